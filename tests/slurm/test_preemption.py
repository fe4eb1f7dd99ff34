"""Runs that SLURM ends before they are done go on, and end as one that was left in peace, bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command, succeeds
from tests.cli.test_train import rows
from tests.slurm.lab import GRACE_S, Lab
from tests.slurm.runs import ON_SLURM, PATIENCE_S, STEPS, TRAINING, Submitted, assert_as_in, give_way, submitted

pytestmark = pytest.mark.long

CHECK_S = 30  # how often SLURM looks at time limits


@pytest.fixture(scope="module")
def peace(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without SLURM."""
    folder = tmp_path_factory.mktemp("peace")
    succeeds(command(*TRAINING, f"hydra.run.dir={folder}"))
    return folder


@pytest.fixture
def run(slurm: Lab, environment: dict[str, str], tmp_path: Path, peace: Path) -> Iterator[Submitted]:
    """The same on SLURM, just submitted."""
    with submitted(slurm, environment, tmp_path, *TRAINING, *ON_SLURM) as run:
        yield run


def requeued(said: str) -> int:
    """How often submitit says that it queues a job again: before it does, since what follows may be lost with srun."""
    told = {line for line in said.splitlines() if line.startswith("submitit WARNING")}  # both logs have a warning
    return sum("this job is" in line for line in told)


def test_one_that_gives_way_to_a_higher_partition(run: Submitted, peace: Path) -> None:
    run.reaches(2)
    with run.held():
        urgent = give_way(run.slurm)
        run.slurm.wait("the run has to give way", lambda: run.slurm.shown(run.job)["PreemptTime"] != "None", 30)
    run.slurm.wait("the urgent job has run", lambda: run.slurm.state(urgent) == "COMPLETED", GRACE_S + 60)
    said = run.succeeds()
    assert run.slurm.restarts(run.job) == requeued(said) == 1
    assert "stopped after step 3" in said and "resuming after step 3" in said
    assert_as_in(peace, run.folder)


def test_one_over_its_time_limit(slurm: Lab, environment: dict[str, str], tmp_path: Path, peace: Path) -> None:
    # SLURM tells a job that its time is nearly over when it looks next, at most so long before as is said here
    words = (*TRAINING, *ON_SLURM, "cluster.signal_delay_s=90", "cluster.timeout_min=10")
    with submitted(slurm, environment, tmp_path, *words) as run:
        run.reaches(2)
        with run.held():
            ran = slurm.call("squeue", "--noheader", f"--jobs={run.job}", "--format=%M")
            minutes = int(ran.split(":")[0]) + 2
            slurm.call("scontrol", "update", f"job={run.job}", f"TimeLimit={minutes}")
            slurm.wait("the run is queued again", lambda: slurm.restarts(run.job) == 1, CHECK_S + 60)
        slurm.call("scontrol", "update", f"job={run.job}", "TimeLimit=10")
        said = run.succeeds()
    assert requeued(said) == slurm.restarts(run.job) == 1
    assert "this job is timed-out" in said and "99 remaining timeouts" in said
    assert "stopped after step 3" in said and "resuming after step 3" in said
    assert_as_in(peace, run.folder)


def test_one_that_is_killed_and_then_called_again(
    slurm: Lab, environment: dict[str, str], tmp_path: Path, peace: Path
) -> None:
    with submitted(slurm, environment, tmp_path, *TRAINING, *ON_SLURM) as run:
        run.reaches(3)
        (task,) = run.processes()
        os.kill(task, signal.SIGKILL)
        slurm.wait("the run has failed", lambda: slurm.state(run.job) == "FAILED", 60)
        assert slurm.restarts(run.job) == 0
    with submitted(slurm, environment, tmp_path, *TRAINING, *ON_SLURM) as run:
        said = run.succeeds()
    assert "resuming after step 2" in said
    assert_as_in(peace, run.folder)


def test_one_whose_wandb_ends_at_the_signal(
    slurm: Lab, environment: dict[str, str], tmp_path: Path, peace: Path
) -> None:
    with submitted(slurm, environment, tmp_path, *TRAINING, *ON_SLURM, "logger=wandb") as run:
        run.reaches(2)
        slurm.call("scancel", "--signal=TERM", run.job)
        said = run.succeeds()
    assert slurm.restarts(run.job) == requeued(said) == 1
    assert_as_in(peace, run.folder)


def test_one_that_is_told_to_end_while_it_is_asked(run: Submitted, peace: Path) -> None:
    answers = run.folder / "predictions"
    run.slurm.wait("the first answer", lambda: any(answers.glob("after.*")), PATIENCE_S)
    run.slurm.call("scancel", "--signal=TERM", run.job)
    said = run.succeeds()
    assert run.slurm.restarts(run.job) == requeued(said) == 1
    assert_as_in(peace, run.folder)
    assert len(rows(run.folder / "history.jsonl")) == STEPS  # nothing was trained again


def test_one_that_is_cancelled_leaves_a_checkpoint_and_stays_out_of_the_queue(run: Submitted) -> None:
    run.reaches(1)
    run.slurm.call("scancel", run.job)
    run.slurm.wait("the run has ended", lambda: run.slurm.state(run.job) == "CANCELLED", 60)
    assert run.slurm.restarts(run.job) == 0
    assert "it is not requeued" in run.log()
    assert (run.folder / "checkpoints/last.ckpt").exists()
