"""Memory of the heap that was freed goes back to the system.

A step's tensors have ever new sizes, and the pieces that they leave in glibc's heap are rarely reused: a training of
the embedded model grew from 2.6 to 8.1 GB in 135 steps, of which 2.9 GB were in use.
"""

from __future__ import annotations

import ctypes
import sys


def return_freed() -> None:
    """Returns freed pages of the heap to the system; does nothing where the C library is not glibc."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
