"""Ends a run on SIGINT and SIGTERM, whatever its main thread is doing.

Python runs signal handlers only between bytecodes of the main thread, which may compute, decode or wait in native code
forever. But the interpreter writes the signal's number to a pipe at once, which a thread reads here. If the run has not
ended within `PATIENCE_S` of the signal, the thread ends the process.

In training, the first signal ends the run after the current step, however long that takes; a second one as above.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)
PATIENCE_S = 6.0
CTRL_C = "SIGINT (Ctrl-C)"
ONE_S = 1.0  # signals this close together count as one: `timeout` and others signal a process and then its group
_TOLD_BY = (signal.SIGINT, signal.SIGTERM)
_patient = threading.Event()  # set during training


@contextmanager
def endable(leave_word: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within this context, SIGTERM raises SystemExit, as Ctrl-C raises KeyboardInterrupt, and a main thread that does
    not react to them is ended.

    Args:
        leave_word: called before the thread ends the process, which it does even if this fails.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield
        return
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.getsignal(signal.SIGTERM)
    if before in (signal.SIG_DFL, None):  # otherwise keep the handler, such as submitit's
        signal.signal(signal.SIGTERM, _raise)
    wakeup = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reads, leave_word), name="ending", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        if signal.getsignal(signal.SIGTERM) is _raise:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        os.close(writes)  # ends the thread
        thread.join()


def begin_patience() -> None:
    """From now on a first signal is left to training, which ends after its step."""
    _patient.set()


def end_patience() -> None:
    """From now on each signal ends the run."""
    _patient.clear()


def name_of(error: BaseException) -> str | None:
    """The name of the signal behind an exception that ends a run; None if it was not caused by a signal."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return CTRL_C
        if isinstance(cause, SystemExit) and isinstance(cause.code, int) and 128 < cause.code < 128 + signal.NSIG:
            return signal.Signals(cause.code - 128).name
        cause = cause.__context__ if isinstance(cause, SystemExit) else None  # Lightning exits on Ctrl-C
    return None


def _raise(signum: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def _watch(reads: int, leave_word: Callable[[signal.Signals], None]) -> None:
    """The thread's loop: returns when the pipe is closed, or ends the process `PATIENCE_S` after a signal."""
    noted: float | None = None
    os.set_blocking(reads, True)
    while word := os.read(reads, 1):
        if word[0] not in _TOLD_BY:
            continue
        signum, now = signal.Signals(word[0]), time.monotonic()
        if noted is not None and now - noted < ONE_S:
            continue
        if _patient.is_set() and noted is None:
            noted = now
            log.warning("stopping after this step, with a checkpoint; press Ctrl-C again to stop at once")
            continue
        if _closed_within(reads, PATIENCE_S):
            break
        said = f"{signum.name}: the process was ended in the middle of a computation that did not react to the signal"
        try:
            leave_word(signum)
        finally:
            print(said, file=sys.stderr, flush=True)
            os._exit(128 + signum)
    os.close(reads)


def _closed_within(reads: int, seconds: float) -> bool:
    """Whether the pipe's other end is closed in time, which means that the run has ended."""
    deadline = time.monotonic() + seconds
    os.set_blocking(reads, False)
    while time.monotonic() < deadline:
        try:
            if not os.read(reads, 64):
                return True
        except BlockingIOError:
            pass
        time.sleep(0.05)
    return False
