"""Runs a sweep's jobs on a SLURM cluster: submits them as hydra-submitit-launcher does, and polls SLURM until they end.

submitit waits for a job's result, which a killed job never writes, unless the cluster has accounting (sacct). Here a
job has ended when it has left the queue, and its record says how; an error in one job does not stop the wait for
the others. Jobs that an earlier call of the same line left in the queue are waited for, not submitted again.
"""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from spacer.errors import UserError
from spacer.files import write_text
from spacer.sweeping.lock import held
from spacer.sweeping.record import Status, says_nothing
from spacer.sweeping.sweep import Job, Sweep
from spacer.terminal.pasting import quoted

log = logging.getLogger(__name__)
JOB_FILE = "slurm_job"  # in a job's folder: the id of its last submission
# SLURM's states of an ended job; a job in any other state may still run
OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
LONGEST_POLL_S = 15.0
SILENCE_S = 600.0  # without an answer from squeue, before giving up
WORD_S = 15.0  # for the record of an ended job to arrive over a network file system


@dataclass(frozen=True)
class End:
    """How a job ended, according to SLURM: its state, exit status and signal; null if SLURM no longer knows."""

    state: str | None
    status: int | None = None
    signal: int | None = None

    @property
    def killed(self) -> bool:
        """Whether it was ended from outside; if SLURM does not know, at least it had no time to write its record."""
        return self.state not in ("COMPLETED", "FAILED") or bool(self.signal) or (self.status or 0) > 128

    def __str__(self) -> str:
        if self.state is None:
            return "gone from SLURM"
        return f"SLURM: {self.state}, exit status {self.status}, signal {self.signal}"


class Reporting:
    """Wraps hydra-submitit-launcher's callable so that an error in the run fails the SLURM job too."""

    def __init__(self, launcher: Any) -> None:
        self._launcher = launcher

    def __call__(self, *arguments: Any) -> Any:
        """Runs the job; raises what it raises."""
        done: JobReturn = self._launcher(*arguments)
        return done.return_value

    def checkpoint(self, *arguments: Any) -> Any:
        """Called by submitit to requeue a preempted job: the same call again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def run_all(sweep: Sweep, jobs: Sequence[Job], launcher: Any) -> None:
    """Submits the jobs that are not in the queue, and waits until all have left it.

    Args:
        sweep: is told how each job ended.
        jobs: the jobs to run.
        launcher: hydra-submitit-launcher's, set up; its parameters are the resources that the jobs request.

    Raises:
        UserError: sbatch refuses the jobs, or squeue does not answer.
        KeyboardInterrupt: the jobs stay in the queue.
    """
    with held(sweep.folder, wait=True):  # another call of the same line waits until these submissions are visible
        waiting = in_queue(jobs)
        for identity, job in waiting.items():
            log.info("%s is in the queue already, as job %s", ",".join(job.chosen) or job.folder, identity)
        new = [job for job in jobs if job not in waiting.values() and not _runs_here(job)]
        waiting |= _submit(sweep, new, launcher) if new else {}
    try:
        _wait(sweep, waiting)
    except KeyboardInterrupt:
        log.warning("the jobs stay in the queue, and the same line again waits for them; to end them: scancel JOB")
        raise


def submitted_as(folder: Path) -> str | None:
    """The id of a job's last submission; None if it was never submitted."""
    file = folder / JOB_FILE
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def queue() -> dict[str, str]:
    """This user's jobs by id (array tasks as `12_3`) and their states; SLURM forgets ended jobs after some minutes.

    Raises UserError if squeue does not answer.
    """
    if which("squeue") is None:
        raise UserError("squeue is not here to ask after SLURM's jobs: call from a machine of the cluster")
    words = ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"squeue: {done.stderr.strip()}")
    return {
        identity.strip(): state for identity, _, state in (line.partition("|") for line in done.stdout.splitlines())
    }


def in_queue(jobs: Sequence[Job]) -> dict[str, Job]:
    """The jobs that SLURM has not ended yet, by id. Raises UserError if squeue does not answer."""
    known = {identity: job for job in jobs if (identity := submitted_as(job.folder)) is not None}
    states = queue() if known else {}
    return {identity: job for identity, job in known.items() if states.get(identity, "COMPLETED") not in OVER}


def end_of(identity: str) -> End:
    """How a job ended, while SLURM still knows."""
    words = ["scontrol", "--oneliner", "show", "job", identity]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    state, code = (re.search(rf"\b{name}=(\S+)", said) for name in ("JobState", "ExitCode"))
    if state is None or code is None:
        return End(None)
    status, _, signal = code[1].partition(":")
    return End(state[1], int(status), int(signal))


def _runs_here(job: Job) -> bool:
    with held(job.folder, wait=False) as lock:
        if lock is None:
            log.warning("%s is being run by another process of this machine, and left alone", job.folder)
        return lock is None


def _submit(sweep: Sweep, jobs: Sequence[Job], launcher: Any) -> dict[str, Job]:
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    if which("sbatch") is None:
        raise UserError(
            "cluster=slurm submits with sbatch, which is not here: call from a login node of the cluster, or choose "
            "cluster=ddp or cluster=fsdp for the devices of this machine"
        )
    parameters: Mapping[str, Any] = launcher.params
    common = OmegaConf.structured(BaseQueueConf).keys()
    executor = submitit.AutoExecutor(
        parameters["submitit_folder"], cluster="slurm", slurm_max_num_timeout=parameters["max_num_timeout"]
    )
    asked = {key: value for key, value in parameters.items() if key not in ("submitit_folder", "max_num_timeout")}
    executor.update_parameters(**{key if key in common else f"slurm_{key}": value for key, value in asked.items()})
    # else ranks wait for a failed one until their collectives time out
    executor.update_parameters(slurm_srun_args=["--kill-on-bad-exit=1"])
    for job in jobs:
        sweep.begin(job)
    place = [f"hydra.sweep.dir={quoted(str(sweep.folder))}"]
    calls = [
        (
            [*sweep.words(job), *place, f"hydra.sweep.subdir={quoted(str(job.folder.relative_to(sweep.folder)))}"],
            "hydra.sweep.dir",
            job.number,
            f"job_id_for_{job.number}",
            Singleton.get_state(),
        )
        for job in jobs
    ]
    try:
        submitted = executor.map_array(Reporting(launcher), *zip(*calls, strict=True))
    except submitit.core.utils.FailedJobError as error:  # sbatch's message when it refuses the jobs
        for job in jobs:
            sweep.settle(job, Status.failed, f"sbatch: {error}")
        raise UserError(f"sbatch refuses the jobs: {error}") from error
    for job, handed in zip(jobs, submitted, strict=True):
        write_text(job.folder / JOB_FILE, [f"{handed.job_id}\n"])
        log.info("%s is job %s, log %s", ",".join(job.chosen) or job.folder, handed.job_id, handed.paths.stderr)
    return {handed.job_id: job for handed, job in zip(submitted, jobs, strict=True)}


def _wait(sweep: Sweep, waiting: dict[str, Job]) -> None:
    """Waits until SLURM reports each job as ended twice in a row: a requeued job may look ended once."""
    seen_over = dict.fromkeys(waiting, 0)
    poll, answered = 1.0, time.monotonic()
    while seen_over:
        time.sleep(poll)
        poll = min(LONGEST_POLL_S, poll * 1.1)
        try:
            states = queue()
        except UserError as error:
            if time.monotonic() - answered > SILENCE_S:
                raise UserError(f"{error}; no answer for {SILENCE_S:.0f} s: the same line again waits on") from error
            continue
        answered = time.monotonic()
        for identity in list(seen_over):
            seen_over[identity] = seen_over[identity] + 1 if states.get(identity, "COMPLETED") in OVER else 0
            if seen_over[identity] == 2:
                del seen_over[identity]
                _settle(sweep, waiting[identity], identity)


def _settle(sweep: Sweep, job: Job, identity: str) -> None:
    end = end_of(identity)
    deadline = time.monotonic() + (0 if end.killed and end.state is not None else WORD_S)
    while time.monotonic() < deadline and says_nothing(job.folder):
        time.sleep(1)
    sweep.settle(job, Status.killed if end.killed else Status.failed, f"{end}; its log is in .submitit/{identity}")
