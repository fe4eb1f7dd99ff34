"""Tests run side by side: a few at a time, which share the cores."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

LONGEST = ("slurm", "test_spread.py", "test_several.py", "test_families.py", "test_evaluate_resumed.py")
PLACES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK", "RANK")  # which Lightning sets
MOST = 8  # at a time: each may train in processes of its own, with a gigabyte each

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before torch is imported, here or in a process that a test starts
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# threads that wait for one another do not spin meanwhile: other workers have the cores; as in run.py
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# cores are shared: how long an example takes says nothing
hypothesis.settings.register_profile("shared cores", deadline=None)
hypothesis.settings.load_profile("shared cores")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # which a shell that starts pytest in the background hands on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for what tests start and interrupt


@pytest.fixture(autouse=True)
def _no_place_among_processes() -> Iterator[None]:
    """A test that trains in this process leaves the next one no rank."""
    yield
    for name in PLACES:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that last longest first, so that workers end together."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: min(place.get(part, len(place)) for part in item.path.parts[-2:]))


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_auto_num_workers() -> int:
    """The number that `-n auto` means."""
    return min(MOST, os.cpu_count() or 1)
