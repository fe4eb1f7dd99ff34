"""Handles requests to stop a run: preemption or an approaching time limit from SLURM, or a signal sent by hand.

During training, all processes finish the current step and write a checkpoint after it. A submitit job is then requeued
and resumes from it; otherwise the log says how to resume. In other phases, a submitit job is requeued at once, since
their results are written to disk as they come.

Only submitit requeues jobs: its SIGUSR2 handler counts timeouts. Lightning's requeueing is disabled (`spacer.stages`),
and a job that was cancelled, or that SLURM has already requeued, is not requeued.
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

from spacer.process import ending

log = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], Any]
TOLD_BY = (signal.SIGUSR2, signal.SIGTERM)  # SLURM's first signal, with and without --signal
MARGIN_S = 15  # time to requeue the job before SLURM kills it
LINGER_S = 5  # wait for SLURM to end a requeued job before exiting: other processes fail when they lose this one


class SignalWatcher:
    """Watches for signals to stop and ends the run. Signal handlers are per process, so create only one.

    `delay_s` is the time between SLURM's signal and its kill; None if the run is not to be requeued. If a training step
    takes longer, the job is requeued `MARGIN_S` before the kill, without a new checkpoint.
    """

    def __init__(self, delay_s: float | None) -> None:
        self.told: signal.Signals | None = None
        self._delay_s = delay_s
        self._requeue: Handler | None = None  # submitit's handler, in its jobs
        self._before: dict[int, Any] = {}  # the handlers replaced during training
        self._since = 0.0  # when the first signal arrived
        self._training = threading.Event()
        self._left = threading.Event()
        self._leaving = threading.Lock()

    @property
    def requeues(self) -> bool:
        """Whether the run is requeued when it is stopped."""
        return self._requeue is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context, a submitit job is requeued when it is stopped; does nothing for other runs."""
        handler = signal.getsignal(signal.SIGUSR2)
        if self._delay_s is None or os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not callable(handler):
            yield
            return
        # A Python handler runs only between bytecodes of the main thread, which may wait or compute for longer than
        # SLURM's delay. The interpreter writes each signal to this pipe at once, and a thread reads it.
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
            if not self._left.is_set():  # otherwise keep ignoring further signals
                signal.set_wakeup_fd(wakeup)
                for signum, handler in handlers.items():
                    signal.signal(signum, handler)
                os.close(writes)  # ends the thread

    def begin_training(self) -> None:
        """From now on signals (also Ctrl-C, unless the run is requeued) only set a flag that is read after each step.

        This replaces Lightning's SIGTERM handler, which communicates with other processes in the middle of a step.
        """
        signals = TOLD_BY if self.requeues else (*TOLD_BY, signal.SIGINT)
        self._before = {signum: signal.signal(signum, self._note) for signum in signals}
        self._training.set()
        ending.begin_patience()

    def end_training(self) -> None:
        """Restores the previous signal handlers."""
        self._training.clear()
        ending.end_patience()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def leave(self) -> NoReturn:
        """Ends the process after the checkpoint is written.

        Raises:
            SystemExit: with 128 + the signal, the shell's convention, if the run is not requeued.
            UncompletedJobError (submitit): the job has reached its maximum number of timeouts.
        """
        signum = self.told or signal.SIGTERM  # None if another process of the run got the signal
        if self._requeue is None:
            sys.exit(128 + signum)
        self._end_job(signum)
        sys.exit(0)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.told is None:
            self.told, self._since = signal.Signals(signum), time.monotonic()
        elif not self.requeues and time.monotonic() - self._since > ending.ONE_S:  # a second one ends the run at once
            raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    def _wait(self, reads: int, patience_s: float) -> None:
        """The thread's loop: waits for a signal, and ends the job unless training stops in time."""
        while word := os.read(reads, 1):
            if word[0] not in TOLD_BY:
                continue
            signum = signal.Signals(word[0])
            if self._training.is_set() and self._left.wait(patience_s):
                return
            if _rank() and signum == signal.SIGUSR2:
                continue  # rank 0 requeues the job, which ends the others
            try:
                self._end_job(signum)
            except BaseException as error:  # would be lost in a thread; the process ends below
                if not isinstance(error, SystemExit):  # submitit's handler exits when it is done
                    log.error("%s", error)
            time.sleep(LINGER_S)
            os._exit(128 + signum)
        os.close(reads)

    def _end_job(self, signum: signal.Signals) -> None:
        """Has submitit requeue the job, once; a second thread that gets here blocks until the process ends."""
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()
        self._left.set()
        assert self._requeue is not None
        if _rank() == 0 and _is_running():
            self._requeue(signum, None)


def has_begun_before() -> bool:
    """Whether this is a restart of a requeued SLURM job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def _is_running() -> bool:
    """Whether SLURM still lists this job as running: not if it was cancelled or is already requeued."""
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:  # the array's id, which is also its last task's, would select all tasks
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    words = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    try:
        state = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except subprocess.SubprocessError as error:
        log.warning("%s: assuming that this job is running", error)
        return True
    if state != "RUNNING":
        log.warning("SLURM lists this job as %s: it is not requeued", state)
    return state == "RUNNING"
