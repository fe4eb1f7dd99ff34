"""Sweeps through the command line: a failed or killed job loses nothing, and the same command resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spacer.benchmarks import benchmark
from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import BRIEF, ROOT, Command, Kill, wait_for
from tests.cli.test_train import rows


def jobs_of(sweep: Path) -> dict[str, dict]:
    return {row["job"]: row for row in json.loads((sweep / "sweep.json").read_text())["jobs"]}


def record(job: Path) -> dict:
    return json.loads((job / "run.json").read_text())


class Answers:
    """Files of predictions for the questions of a benchmark, to be scored, which takes a job a second or two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        MAKERS["vsi_bench"](folder / "vsi")
        self._questions, _ = benchmark("vsi_bench").read(folder / "vsi")

    def write(self, name: str, share: float) -> None:
        """A file in which so many of the answers are right, and the others missing."""
        right = self._questions[: round(share * len(self._questions))]
        lines = (json.dumps({"id": question.id, "prediction": question.truth}) + "\n" for question in right)
        (self.folder / name).write_text("".join(lines))

    def words(self, *more: str) -> list[str]:
        """A line that scores them; file names are relative to the folder."""
        return ["-m", "stage=score", "benchmark=vsi_bench", "benchmark.root=vsi", *more]


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(tmp_path)


def test_failed_jobs_stop_no_others_and_the_same_line_runs_only_what_is_missing(
    answers: Answers, command: Command, tmp_path: Path
) -> None:
    answers.write("half", 0.5)
    answers.write("all", 1.0)
    (tmp_path / "broken").write_text("{\n")
    words = answers.words("predictions=half,broken,absent,all")
    done = command(*words, cwd=tmp_path)
    sweep = tmp_path / "outputs/sweeps/predictions,benchmark.root=vsi,benchmark=vsi_bench,stage=score"
    jobs = jobs_of(sweep)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "2 jobs are not done; the same line again runs only what is missing" in done.stderr
    assert list(jobs) == [f"predictions={name}" for name in ("all", "half", "broken", "absent")]  # the best first
    assert [row["status"] for row in jobs.values()] == ["done", "done", "failed", "failed"]
    best = jobs["predictions=all"]
    assert best["score"] == pytest.approx(1) and best["low"] is None and best["seconds"] > 0
    assert 0 < jobs["predictions=half"]["score"] < 1
    assert jobs["predictions=broken"]["reason"].startswith("broken: 1 faulty line\n")
    assert jobs["predictions=absent"]["reason"].startswith(
        "predictions=absent is not an existing file: set predictions"
    )
    assert json.loads((sweep / "sweep.json").read_text())["best"] == "predictions=all"
    assert "| predictions=broken | failed: broken: 1 faulty line |" in (sweep / "sweep.md").read_text()
    assert "failed: predictions=broken: broken: 1 faulty line" in done.stdout
    assert "none" in done.stdout  # of the few videos there is no interval
    table = done.stdout.partition("95 % interval  answer")[2].partition("failed: ")[0]
    assert "predictions=all" in table and all(len(line) <= 80 for line in table.splitlines())

    kept = [sweep / name / "run.json" for name in ("predictions=all", "predictions=half")]
    before = [path.stat().st_mtime_ns for path in kept]
    answers.write("broken", 0.2)
    answers.write("absent", 0.3)
    again = command(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 jobs in " in again.stdout and "2 done already, 2 to run" in again.stdout
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert [row["status"] for row in jobs_of(sweep).values()] == ["done"] * 4
    nothing = command(*words, cwd=tmp_path)
    assert nothing.returncode == 0 and "4 done already, 0 to run" in nothing.stdout
    assert "predictions=all" in nothing.stdout  # the table is there all the same


def test_a_folder_of_other_settings_is_not_taken_for_done(answers: Answers, command: Command, tmp_path: Path) -> None:
    answers.write("all", 1.0)
    words = answers.words("predictions=all", "hydra.sweep.dir=out", "seed=0,1")
    assert command(*words, cwd=tmp_path).returncode == 0
    other = command(*words, "benchmark.limit=5", cwd=tmp_path)
    assert other.returncode == 1 and "Traceback" not in other.stderr
    said = " ".join(other.stdout.split())
    assert "its folder holds a run with other settings (benchmark.limit: None then, 5 now): remove" in said
    assert "0 to run" in other.stdout
    assert record(tmp_path / "out/seed=0")["settings"]["benchmark"]["limit"] is None


@pytest.mark.long
def test_optuna_goes_on_with_its_trials(answers: Answers, command: Command, tmp_path: Path) -> None:
    answers.write("all", 1.0)

    def search(trials: int, *more: str) -> subprocess.CompletedProcess[str]:
        options = ("sweeps=learning_rate", "predictions=all", "hydra.sweep.dir=kept")
        return command(*answers.words(*options, f"hydra.sweeper.n_trials={trials}", *more), cwd=tmp_path)

    first = search(3)
    assert first.returncode == 0, first.stdout + first.stderr
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("*/run.json")}
    assert len(kept) == 3 and len(jobs_of(tmp_path / "kept")) == 3
    rates = [record(path.parent)["settings"]["model"]["learning_rate"] for path in kept]
    assert all(3e-7 <= rate <= 1e-3 for rate in rates) and len(set(rates)) == 3
    more = search(4)
    assert more.returncode == 0, more.stdout + more.stderr
    assert more.stdout.count("1 done already, 0 to run") == 3 and more.stdout.count("0 done already, 1 to run") == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(jobs_of(tmp_path / "kept")) == 4
    other = search(4, "model.learning_rate=interval(0.1,0.2)")
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert "search the same space, or give this sweep another folder" in other.stderr


def steps(job: Path) -> int:
    history = job / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


@pytest.mark.long
def test_killed_and_interrupted_jobs_go_on_and_end_as_one_run_alone(
    command: Command, kill: Kill, environment: dict[str, str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    words = ["-m", *BRIEF, "objective.beta=0.0,0.01", f"hydra.sweep.dir={sweep}"]
    first, second = (sweep / f"objective.beta={beta}" for beta in ("0.0", "0.01"))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_for(lambda: steps(first) >= 2, process.pid)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    wait_for(lambda: steps(second) >= 1, process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    jobs = jobs_of(sweep)
    assert [jobs[job.name]["status"] for job in (first, second)] == ["killed", "killed"]
    assert jobs[first.name]["reason"] == "SIGKILL" and "killed: objective.beta=0.0: SIGKILL" in said
    # what loads data for a job that is killed may be handing it something over, and then says so
    interrupted = said[said.index("objective.beta=0.01 …") :]
    assert "best" not in said.splitlines()[-1] and "Traceback" not in interrupted

    kill(words, lambda: record(first)["status"] == "running")  # now the sweep itself, with its job

    again = command(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 done already, 2 to run, 2 of them from a checkpoint" in again.stdout
    assert {row["status"] for row in jobs_of(sweep).values()} == {"done"}
    assert [sum(row["step"] == 0 for row in rows(job / "history.jsonl")) for job in (first, second)] == [1, 1]
    tracked = record(second)["settings"]["logger"]
    assert (tracked["group"], tracked["name"]) == ("sweep", "objective.beta=0.01")

    alone = tmp_path / "alone"
    assert command(*BRIEF, "objective.beta=0.01", f"hydra.run.dir={alone}").returncode == 0
    weights = [load_file(folder / "model/model.safetensors") for folder in (second, alone)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    texts = [(folder / "predictions/after.jsonl").read_text() for folder in (second, alone)]
    assert texts[0] == texts[1]
    assert record(alone)["score"] == jobs_of(sweep)[second.name]["score"] == record(second)["score"]
