"""Half an hour on a GPU: what only a device can tell, part by part (`bash tests/gpu.sh`)."""
