"""Reports made as a user makes them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command, fails, succeeds
from tests.run_folders import scored_run, sweep_folder, training_run
from tests.unit.html.test_building import elements


def test_of_several_runs_without_torch(without_torch: Command, tmp_path: Path) -> None:
    training_run(tmp_path / "trained", [False] * 6, [True] * 6)
    scored_run(tmp_path / "all/vsi_bench", 30, 0.5, 0)
    scored_run(tmp_path / "scored", 30, 0.6, 1)
    runs = f"runs=[{tmp_path / 'trained'},{tmp_path / 'all'},{tmp_path / 'scored'}]"
    said = succeeds(without_torch("stage=report", runs, f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path))
    assert f"report: {tmp_path / 'out'}/report.html" in said
    index = elements(tmp_path / "out/report.html")["index"]
    assert [run["name"] for run in index["runs"]] == ["trained", "all", "scored"]
    told = {subject["name"]: [column["label"] for column in subject["columns"]] for subject in index["subjects"]}
    assert told == {"rooms": ["A before", "A after"], "vsi_bench": ["B", "C"]}


def test_of_a_sweep(without_torch: Command, tmp_path: Path) -> None:
    """Its folder, which was moved since it ran, is one page, with the jobs that are not done."""
    sweep = sweep_folder(tmp_path / "before").rename(tmp_path / "sweep")
    succeeds(without_torch("stage=report", f"runs=[{sweep}]", f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path))
    index = elements(tmp_path / "out/report.html")["index"]
    assert index["sweep"]["keys"] == ["reward", "seed"]
    jobs = [(*job["values"], job["status"], job["run"]) for job in index["sweep"]["jobs"]]
    assert jobs[:2] == [("grpo", "1", "done", 0), ("grpo", "0", "done", 1)]
    assert jobs[-1] == ("grpo", "2", "failed", None)
    assert index["sweep"]["settings"] == [
        {"label": "reward=grpo", "runs": [0, 1]},
        {"label": "reward=accuracy", "runs": [2, 3]},
    ]
    assert [column["label"] for column in index["subjects"][0]["columns"]] == ["A", "B", "C", "D"]


def test_comparing_runs_leaves_one_of_both(command: Command, tmp_path: Path) -> None:
    folders = [scored_run(tmp_path / name, 40, 0.3 + 0.3 * seed, seed) for seed, name in enumerate("ab")]
    runs = f"runs=[{','.join(map(str, folders))}]"
    said = succeeds(command("stage=compare", runs, "logger=none", f"hydra.run.dir={tmp_path / 'out'}"))
    assert f"report: {tmp_path / 'out'}/report.html" in said
    found = elements(tmp_path / "out/report.html")["index"]["subjects"][0]["metrics"]
    overall = next(row for row in found if row["name"] == "questions")
    made = json.loads((tmp_path / "out/comparison.json").read_text())["comparisons"][0]["metrics"]["overall"]
    assert [overall["changes"][1][name] for name in ("delta", "low", "high")] == [
        made[name] for name in ("delta", "low", "high")
    ]


def test_mistakes_are_told_without_a_traceback(command: Command, tmp_path: Path) -> None:
    out = f"hydra.run.dir={tmp_path / 'out'}"
    fails(command("stage=report", out), "runs is empty: stage=report takes the folders of runs")
    (tmp_path / "empty").mkdir()
    fails(command("stage=report", f"runs=[{tmp_path / 'empty'}]", out), "lacks", "history.jsonl")
    fails(
        command("stage=report", "runs=[a]", "report.frames=3", out),
        "report.frames: is 3, must be an integer (at least 2 and a multiple of 2",
    )
    run = training_run(tmp_path / "run", [True], [True])
    (run / "history.jsonl").write_text('{"step": 0}\nnonsense\n{"step": 1}\n')
    fails(command("stage=report", f"runs=[{run}]", out), "history.jsonl:2: is not JSON", "fix the line")
    assert not (tmp_path / "out/report.html").exists()
