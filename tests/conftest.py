"""Tests run side by side: a few at a time, which share the cores."""

import os
import signal

import pytest

MOST = 8  # at a time: each may train in processes of its own, with a gigabyte each

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before torch is imported, here or in a process that a test starts
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # which a shell that starts pytest in the background hands on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for what tests start and interrupt


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` stands for."""
    return min(MOST, os.cpu_count() or 1)
