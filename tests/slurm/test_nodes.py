"""A run over two nodes, a process on each, does what two processes of one machine do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Command, succeeds
from tests.cli.test_train import rows
from tests.slurm.lab import NODES, Lab
from tests.slurm.runs import ON_SLURM, STEPS, TRAINING, assert_as_in, submitted
from tests.slurm.test_preemption import requeued

pytestmark = pytest.mark.long


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_training_on_two_nodes(
    strategy: str, slurm: Lab, environment: dict[str, str], command: Command, tmp_path: Path
) -> None:
    shared = (f"cluster.strategy={strategy}", "cluster.accelerator=cpu")
    with submitted(slurm, environment, tmp_path, *TRAINING, *ON_SLURM, *shared, "cluster.num_nodes=2") as run:
        run.reaches(1)
        assert slurm.shown(run.job)["NumNodes"] == str(len(NODES)) == str(len(run.processes()))
        # only one of the processes is told to end, and not the first: all stop after the same step
        os.kill(run.processes()[-1], signal.SIGUSR2)
        said = run.succeeds()
    assert slurm.restarts(run.job) == requeued(said) == 1
    assert said.count("run folder") == 1 + slurm.restarts(run.job)  # the first process alone speaks
    assert len(rows(run.folder / "history.jsonl")) == STEPS
    here = tmp_path / "here"
    succeeds(command(*TRAINING, *shared, f"cluster={strategy}", "cluster.devices=2", f"hydra.run.dir={here}"))
    assert_as_in(here, run.folder)
