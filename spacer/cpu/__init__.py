"""Optimisations for CPUs alone: parts of a computation side by side, and oneDNN's products."""
