"""Runs of `python run.py cluster=slurm`, watched and disturbed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.cli.conftest import ROOT, SMALL
from tests.cli.test_train import rows
from tests.slurm.lab import Lab

STEPS = 5
# a few seconds of training and three questions: what is tested is the way there
TRAINING = (
    *SMALL,
    "model.prompts_per_rollout=1",
    "objective.group_size=2",
    "objective.max_completion_length=24",
    "reward.length=null",
    f"trainer.max_steps={STEPS}",
    "trainer.checkpoint_every_n_steps=2",
    "stage.evaluate_before=false",
    "evaluation.limit=3",
    "logger=none",
)
ON_SLURM = ("cluster=slurm", "cluster.gpus_per_node=null", "cluster.cpus_per_task=1", "cluster.partition=main")
PATIENCE_S = 240  # for a start of Python on a busy machine, with all that it loads


@dataclass(frozen=True)
class Submitted:
    """A run that was handed to SLURM: the command, which waits for it, its job, and its folder."""

    command: subprocess.Popen[str]
    slurm: Lab
    job: str
    folder: Path

    def steps(self) -> int:
        """How many steps the run has reported."""
        history = self.folder / "history.jsonl"
        return history.read_text().count("\n") if history.exists() else 0

    def reaches(self, step: int) -> None:
        """Returns once the run has reported a step."""
        self.slurm.wait(f"step {step} of job {self.job}", lambda: self.steps() >= step, PATIENCE_S)

    def processes(self) -> list[int]:
        """The job's tasks by rank, without the data workers that they have forked."""
        found = {task.pid: task for task in _tasks() if task.job == self.job}
        return [task.pid for task in sorted(found.values(), key=lambda task: task.rank) if task.parent not in found]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, the tasks are stopped until SLURM sends them a signal, and SIGCONT with it."""
        stopped = self.processes()
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def succeeds(self) -> str:
        """Returns what the job's tasks have said, once the command has ended well."""
        said = self.command.communicate(timeout=PATIENCE_S)[0]
        assert self.command.returncode == 0, said + self.log()
        return self.log()

    def log(self) -> str:
        """What the job's tasks have said so far, over all its starts."""
        return "".join(path.read_text() for path in sorted(self.folder.parent.glob(f".submitit/{self.job}/*_log.*")))


@contextmanager
def submitted(slurm: Lab, environment: dict[str, str], folder: Path, *overrides: str) -> Iterator[Submitted]:
    """Calls run.py so that its one run goes to SLURM; the command does not outlive the block."""
    before = set(slurm.jobs())
    words = [sys.executable, str(ROOT / "run.py"), *overrides]
    words += [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=run"]
    command = subprocess.Popen(
        words, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        slurm.wait("the run is submitted", lambda: _ended(command) or bool(set(slurm.jobs()) - before), PATIENCE_S)
        assert not _ended(command), command.communicate()[0]
        (job,) = set(slurm.jobs()) - before
        yield Submitted(command, slurm, job, folder / "run")
    finally:
        command.kill()
        command.communicate()


def give_way(slurm: Lab) -> str:
    """Submits a job of the higher partition that wants every node for a moment, and returns its id."""
    words = ("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--partition=urgent")
    return slurm.call(*words, "--wrap", "true")


def assert_as_in(peace: Path, mended: Path) -> None:
    """That a run which was disturbed has ended as one that was left in peace."""
    expected, found = (load_file(folder / "model/model.safetensors") for folder in (peace, mended))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    answers = [(folder / "predictions/after.jsonl").read_text() for folder in (peace, mended)]
    assert answers[0] == answers[1]
    # one that is killed takes the steps since its last checkpoint once more
    assert {row["step"] for row in rows(mended / "history.jsonl")} == set(range(STEPS))


def _ended(command: subprocess.Popen[str]) -> bool:
    return command.poll() is not None


@dataclass(frozen=True)
class _Task:
    """A process that runs a job of submitit's, or one that it has forked."""

    pid: int
    parent: int
    job: str
    rank: int


def _tasks() -> Iterator[_Task]:
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or b"submitit" not in (entry / "cmdline").read_bytes():
                continue
            values = dict(word.partition("=")[::2] for word in (entry / "environ").read_text().split("\0"))
            if "SLURM_PROCID" in values and (entry / "exe").resolve().name.startswith("python"):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                yield _Task(int(entry.name), parent, values["SLURM_JOB_ID"], int(values["SLURM_PROCID"]))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
