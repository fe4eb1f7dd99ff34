"""The tests' own SLURM does what the other tests rely on."""

from __future__ import annotations

from pathlib import Path

from tests.slurm.lab import GRACE_S, NODES, Lab


def test_a_job_of_two_nodes_has_a_task_on_each(slurm: Lab) -> None:
    said = slurm.call("srun", "--nodes=2", "--ntasks-per-node=1", "sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")
    assert sorted(said.splitlines()) == [f"{rank} {node}" for rank, node in enumerate(NODES)]


def test_a_job_gives_way_to_one_of_the_higher_partition_and_is_queued_again(slurm: Lab, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"[ -e {marks} ] && echo again >> {marks} && exit\n"
        f"srun sh -c 'trap \"echo signal >> {marks}\" USR2; while true; do sleep 0.1; done'\n"
    )
    words = ("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null")
    job = slurm.call(*words, "--signal=USR2@10", "--partition=main", str(script))
    slurm.wait("the first job runs", lambda: slurm.state(job) == "RUNNING", 20)
    slurm.call(*words, "--partition=urgent", "--wrap", "true")
    slurm.wait("the first job has ended", lambda: slurm.state(job) == "COMPLETED", GRACE_S + 40)
    assert slurm.restarts(job) == 1
    assert set(marks.read_text().splitlines()) == {"signal", "again"}
