"""CPU time, wall time and memory of a call."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path


def quiet() -> None:
    """Keeps from this process's output what libraries say of every step."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds of all threads, those of processes that ended meanwhile included, and seconds on the clock."""
    cpu, wall = sum(os.times()[:4]), time.perf_counter()
    run()
    return sum(os.times()[:4]) - cpu, time.perf_counter() - wall


def peak(run: Callable[[], None]) -> int:
    """Bytes that the process grows by at its largest.

    Linux's own high-water mark, set back before; memory that earlier calls freed is given back to the system first, so
    that it is not counted as there already. A run that follows finds memory to reuse, as a step in training does.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
