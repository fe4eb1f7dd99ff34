"""Runs a sweep's jobs on this machine, one after the other, each in its own process as if started by hand.

So jobs share no memory, a killed job takes nothing down with it, and training on several devices starts its ranks
as usual.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spacer.process.ending import ONE_S, PATIENCE_S
from spacer.sweeping.lock import held
from spacer.sweeping.record import Status, read, says_nothing
from spacer.sweeping.slurm import in_queue
from spacer.sweeping.sweep import Job, Sweep
from spacer.terminal.pasting import quoted

log = logging.getLogger(__name__)
AT_ONCE_S = PATIENCE_S + 2  # for a job to end by itself after a second signal (or Ctrl-C)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C reaches this process alone."""


def run_all(sweep: Sweep, jobs: Sequence[Job], program: Path, options: Sequence[str]) -> None:
    """Runs the jobs, except those that are queued or running in SLURM.

    Jobs that another process of this machine is running come last, and only if that process leaves them unfinished.

    Args:
        sweep: is told how each job ended.
        jobs: the jobs to run.
        program: run.py.
        options: Hydra's own overrides, for each job.

    Raises:
        UserError: a job was submitted to SLURM, and squeue does not say whether it still runs.
        KeyboardInterrupt: the running job has ended; it may have left a checkpoint.
    """
    elsewhere = []
    with_slurm = in_queue([job for job in jobs if says_nothing(job.folder)])
    for identity, job in with_slurm.items():
        log.warning("%s is with SLURM, as job %s, and left alone", ",".join(job.chosen) or job.folder, identity)
    jobs = [job for job in jobs if job not in with_slurm.values()]
    with _sigterm_raises():
        for job in jobs:
            with held(job.folder, wait=False) as lock:
                if lock is None:
                    log.info("%s is being run by another process", job.folder)
                    elsewhere.append(job)
                else:
                    _run(sweep, job, program, options, lock)
        for job in elsewhere:
            with held(job.folder, wait=True) as lock:
                record = read(job.folder)
                if lock is not None and (record is None or record.status != Status.done):
                    _run(sweep, job, program, options, lock)


def _run(sweep: Sweep, job: Job, program: Path, options: Sequence[str], lock: int) -> None:
    log.info("%s …", ",".join(job.chosen) or job.folder)
    words = [*options, *sweep.words(job), "hydra.mode=RUN", f"hydra.run.dir={quoted(str(job.folder))}"]
    sweep.begin(job)
    # the job inherits the lock, so that a job that outlives us is not run a second time
    process = subprocess.Popen([sys.executable, str(program), *words], stdin=subprocess.DEVNULL, pass_fds=(lock,))
    try:
        process.wait()
    except KeyboardInterrupt as told:
        _end(process, told)
        raise
    finally:
        code = process.poll()
        if code is not None and code < 0:
            sweep.settle(job, Status.killed, signal.Signals(-code).name)
        elif code is not None:
            sweep.settle(job, Status.failed, f"exit status {code}, with no word of why in {job.folder}")


def _end(process: subprocess.Popen[bytes], told: KeyboardInterrupt) -> None:
    """Waits for a signalled job to end after its step; after a second signal, only for the time that it then needs."""
    try:
        if isinstance(told, Terminated):
            process.terminate()
        process.wait()
    except KeyboardInterrupt as again:
        try:
            if isinstance(again, Terminated):
                process.terminate()
            process.wait(AT_ONCE_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    last = -ONE_S

    def handler(number: int, frame: types.FrameType | None) -> None:
        nonlocal last
        since, last = time.monotonic() - last, time.monotonic()
        if since > ONE_S:
            raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
