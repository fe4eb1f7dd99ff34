"""The tests' own SLURM: a job of two nodes has a task on each."""

from __future__ import annotations

import pytest

from tests.slurm.lab import NODES, Lab

pytestmark = pytest.mark.long


def test_a_job_of_two_nodes_has_a_task_on_each(slurm: Lab) -> None:
    said = slurm.call("srun", "--nodes=2", "--ntasks-per-node=1", "sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")
    assert sorted(said.splitlines()) == [f"{rank} {node}" for rank, node in enumerate(NODES)]
