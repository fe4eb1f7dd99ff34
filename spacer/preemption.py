"""What a run does when it is told to end: by SLURM, for another job or a time limit that comes near, or by hand.

In training it writes a checkpoint after the step that it is at, all of its processes the same one. Then, in a job of
submitit's, the job is queued again and goes on from there; otherwise the log says how to go on. In its other phases
such a job is queued again at once: their results are on disk as they come.

Who queues a job again is submitit, whose handler of SIGUSR2 keeps count of time limits, and nobody else: Lightning is
told not to (`spacer.stages`), and a job that was cancelled, or that SLURM has put back into the queue itself, is left.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

log = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], Any]
TOLD_BY = (signal.SIGUSR2, signal.SIGTERM)  # SLURM's first word where --signal is set, and where it is not
MARGIN_S = 15  # for queueing the job again before it is killed
LINGER_S = 5  # from queueing the job again to an end without SLURM's doing: processes that lose one of them would fail


class Watch:
    """Hears the signals that tell a run to end, and ends it. There is one a process, as there is of signals.

    `delay_s`: how long after its signal SLURM kills a job; None where the run is not to be queued again. Where a step
    in training takes longer, the job is queued again `MARGIN_S` before, without a new checkpoint.
    """

    def __init__(self, delay_s: float | None) -> None:
        self.told: signal.Signals | None = None
        self._delay_s = delay_s
        self._requeue: Handler | None = None  # where this is a job of submitit's
        self._before: dict[int, Any] = {}  # handlers that training has displaced
        self._training = threading.Event()
        self._left = threading.Event()
        self._leaving = threading.Lock()

    @property
    def requeues(self) -> bool:
        """Whether the run is queued again when it is told to end."""
        return self._requeue is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, a job of submitit's is queued again when it is told to end; elsewhere nothing is done."""
        handler = signal.getsignal(signal.SIGUSR2)
        if self._delay_s is None or os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not callable(handler):
            yield
            return
        # A handler runs between two operations of the main thread, which may wait for another process, or compute, for
        # longer than SLURM does. Python writes each signal to this pipe at once, and a thread reads it.
        self._requeue = handler
        reads, writes = os.pipe()
        os.set_blocking(writes, False)
        handlers = {signum: signal.signal(signum, self._note) for signum in TOLD_BY}
        wakeup = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        waits = (reads, self._delay_s - MARGIN_S)
        threading.Thread(target=self._wait, args=waits, name="preemption", daemon=True).start()
        try:
            yield
        finally:
            if not self._left.is_set():  # else no further signal counts
                signal.set_wakeup_fd(wakeup)
                for signum, handler in handlers.items():
                    signal.signal(signum, handler)
                os.close(writes)  # which ends the thread

    def begin_training(self) -> None:
        """From here on signals, Ctrl-C too where no scheduler is at work, are noted, to be looked at after each step.

        Lightning's handler of SIGTERM is displaced: it speaks to the other processes in the middle of a step.
        """
        signals = TOLD_BY if self.requeues else (*TOLD_BY, signal.SIGINT)
        self._before = {signum: signal.signal(signum, self._note) for signum in signals}
        self._training.set()

    def end_training(self) -> None:
        """From here on signals do what they did before."""
        self._training.clear()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def leave(self) -> NoReturn:
        """Ends the process once a checkpoint is written.

        Raises:
            SystemExit: with 128 + the signal, as a shell has it, where the run is not queued again.
            UncompletedJobError (submitit): the job has met as many time limits as it may.
        """
        signum = self.told or signal.SIGTERM  # where another of the run's processes was told
        if self._requeue is None:
            sys.exit(128 + signum)
        self._end_job(signum)
        sys.exit(0)

    def _note(self, signum: int, _: FrameType | None) -> None:
        self.told = self.told or signal.Signals(signum)
        if signum == signal.SIGINT:
            signal.signal(signum, self._before[signum])  # a second Ctrl-C ends at once
            log.warning("ends after this step, with a checkpoint; Ctrl-C again ends at once")

    def _wait(self, reads: int, patience_s: float) -> None:
        """The thread: waits for a signal and, where training does not end in time, or there is none, ends the job."""
        while word := os.read(reads, 1):
            if word[0] not in TOLD_BY:
                continue
            signum = signal.Signals(word[0])
            if self._training.is_set() and self._left.wait(patience_s):
                return
            if _rank() and signum == signal.SIGUSR2:
                continue  # the first process queues the job again, which ends the others
            try:
                self._end_job(signum)
            except BaseException as error:  # nobody else hears of it in a thread; the process ends below
                if not isinstance(error, SystemExit):  # as submitit's handler does when it is done
                    log.error("%s", error)
            time.sleep(LINGER_S)
            os._exit(128 + signum)
        os.close(reads)

    def _end_job(self, signum: signal.Signals) -> None:
        """Has submitit queue the job again, once, from whichever thread is first; the other waits to be ended."""
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()
        self._left.set()
        assert self._requeue is not None
        if _rank() == 0 and _is_running():
            self._requeue(signum, None)


def has_begun_before() -> bool:
    """Whether SLURM has started this job before, and then queued it again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def _is_running() -> bool:
    """Whether SLURM lets this job run still: not if it was cancelled, or waits in the queue already."""
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:  # whose id alone, which the last of its tasks has too, stands for all of them
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    words = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    try:
        state = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except subprocess.SubprocessError as error:
        log.warning("%s: taken to mean that this job runs", error)
        return True
    if state != "RUNNING":
        log.warning("SLURM calls this job %s: it is not queued again", state)
    return state == "RUNNING"
