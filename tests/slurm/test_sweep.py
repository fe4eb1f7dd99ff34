"""A sweep on SLURM: a killed job does not keep the others, and the same line again submits only what is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spacer.benchmarks import benchmark
from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import BRIEF, ROOT, Command
from tests.cli.test_train import rows
from tests.slurm.lab import Lab
from tests.slurm.runs import Submitted

pytestmark = pytest.mark.long

CLUSTER = ("cluster=slurm", "cluster.gpus_per_node=null", "cluster.cpus_per_task=2", "cluster.timeout_min=10")
BETAS = ("0.0", "0.01", "0.02", "0.04")


def begun(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """The command, running."""
    words = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_the_others_finish_and_the_same_line_again_runs_the_killed_one_only(
    slurm: Lab, command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    words = [*CLUSTER, *BRIEF, f"objective.beta={','.join(BETAS)}", f"hydra.sweep.dir={tmp_path}"]
    folders = {beta: tmp_path / f"objective.beta={beta}" for beta in BETAS}
    process = begun(words, environment)
    victim = folders["0.01"]
    history = victim / "history.jsonl"
    slurm.wait("a job has trained", lambda: history.exists() and len(history.read_text().splitlines()) >= 2, 200)
    identity = (victim / "slurm_job").read_text().strip()
    raw = slurm.call("squeue", "--noheader", f"--jobs={identity}", "--format=%A")
    (task,) = Submitted(process, slurm, raw, victim).processes()
    os.kill(task, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    table = {row["job"]: row for row in json.loads((tmp_path / "sweep.json").read_text())["jobs"]}
    assert {job: row["status"] for job, row in table.items()} == {
        folder.name: "killed" if folder == victim else "done" for folder in folders.values()
    }
    assert identity in table[victim.name]["reason"] and table[victim.name]["score"] is None
    assert "1 job is not done" in said and "Traceback" not in said

    kept = [folder / name for folder in folders.values() if folder != victim for name in ("run.json", "slurm_job")]
    before = [path.stat().st_mtime_ns for path in kept]
    again = command(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 done already, 1 to run, 1 of them from a checkpoint" in again.stdout
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (victim / "slurm_job").read_text().strip() != identity
    steps = [row["step"] for row in rows(history)]
    assert set(steps) == {0, 1, 2} and steps.count(0) == 1  # it went on, and did not begin anew
    table = {row["job"]: row for row in json.loads((tmp_path / "sweep.json").read_text())["jobs"]}
    assert all(row["status"] == "done" and isinstance(row["score"], float) for row in table.values())
    assert all(row["low"] is row["high"] is None for row in table.values())  # of so few rooms there is no interval


def test_jobs_left_in_the_queue_are_waited_for_and_not_submitted_again(
    slurm: Lab, environment: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "vsi"
    MAKERS["vsi_bench"](root)
    questions, _ = benchmark("vsi_bench").read(root)
    for name in ("one", "two"):
        lines = (json.dumps({"id": question.id, "prediction": question.truth}) + "\n" for question in questions)
        (tmp_path / name).write_text("".join(lines))
    files = ",".join(str(tmp_path / name) for name in ("one", "two"))
    out = tmp_path / "out"
    words = [*CLUSTER, "stage=score", "benchmark=vsi_bench", f"benchmark.root={root}", f"predictions={files}"]
    words.append(f"hydra.sweep.dir={out}")
    blocker = slurm.call("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 99")
    process = begun(words, environment)
    slurm.wait("the jobs are submitted", lambda: len(list(out.glob("*/slurm_job"))) == 2, 60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("queued") == 2 and "scancel" in said and "Traceback" not in said
    submitted = {path: path.read_text() for path in out.glob("*/slurm_job")}

    again = begun(words, environment)
    assert again.stdout is not None
    for _ in range(2):
        next(line for line in again.stdout if "is in the queue already, as job" in line)
    slurm.call("scancel", blocker)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert {path: path.read_text() for path in submitted} == submitted
    assert json.loads((out / "sweep.json").read_text())["jobs"][0]["score"] == pytest.approx(1)


def test_what_sbatch_refuses_is_told(slurm: Lab, command: Command, tmp_path: Path) -> None:
    words = ("cluster.partition=nowhere", "reward=grpo,accuracy", f"hydra.sweep.dir={tmp_path}")
    done = command(*CLUSTER, *BRIEF, *words)
    assert done.returncode == 1
    assert "sbatch refuses the jobs: " in done.stderr and "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path)  # with what is to be run again
