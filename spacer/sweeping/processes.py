"""The jobs of a sweep on this machine: one after the other, each a process of its own, as if called by hand.

So no job finds anything of another's in its memory, a job that is killed takes nothing with it, and training on several
devices starts its ranks as ever.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spacer.sweeping.lock import held
from spacer.sweeping.record import Status, read, says_nothing
from spacer.sweeping.slurm import in_queue
from spacer.sweeping.sweep import Job, Sweep, quoted

log = logging.getLogger(__name__)
GRACE_S = 60  # for a job to end by itself after Ctrl-C, which reaches it too


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C reaches this process alone."""


def run_all(sweep: Sweep, jobs: Sequence[Job], program: Path, options: Sequence[str]) -> None:
    """Runs the jobs, but for those that wait in SLURM's queue or run there.

    Those that another process of this machine is running now come last, and only if it leaves them undone.

    Args:
        sweep: is told how each ended.
        jobs: what to run.
        program: run.py.
        options: Hydra's own overrides, for each job.

    Raises:
        UserError: a job was handed to SLURM, and squeue does not say whether it still runs.
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
    # the lock goes with the process, so that one which outlives us is not run a second time
    process = subprocess.Popen([sys.executable, str(program), *words], stdin=subprocess.DEVNULL, pass_fds=(lock,))
    try:
        process.wait()
    except Terminated:
        process.terminate()
        process.wait()
        raise
    except KeyboardInterrupt:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise
    finally:
        code = process.poll()
        if code is not None and code < 0:
            sweep.settle(job, Status.killed, signal.Signals(-code).name)
        elif code is not None:
            sweep.settle(job, Status.failed, f"exit status {code}, with no word of why in {job.folder}")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def handler(number: int, frame: types.FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
