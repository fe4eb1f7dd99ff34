"""A reward in a file of the user's own, from the command line: nothing of the package is touched."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import BRIEF, Command

FILE = """
def short(completions, tokens, **fields):
    return [1.0 if n < 1000 else 0.0 for n in tokens]


def directions(thinking, question_type):
    return [None if "direction" not in kind else float(len(text) % 2) for text, kind in zip(thinking, question_type)]


def broken(completions):
    return [len(text) / 0 for text in completions]
"""


def test_its_terms_are_everywhere(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    paths = [f"{{path: '{tmp_path}/mine.py:{name}', weight: 0.25}}" for name in ("short", "directions")]
    words = [word for word in BRIEF if word != "stage.evaluate_before=false"]
    said = command(*words, f"reward.functions=[{','.join(paths)}]", f"hydra.run.dir={tmp_path / 'run'}")
    assert said.returncode == 0, said.stdout + said.stderr
    run = tmp_path / "run"
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert {row["reward/short"] for row in history if "reward/short" in row} == {0.25}
    rows = [json.loads(line) for line in (run / "predictions/after.jsonl").read_text().splitlines()]
    assert all(row["reward"]["short"] == 0.25 for row in rows)
    assert {("directions" in row["reward"]) for row in rows if "direction" not in row["question_type"]} == {False}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["reward/short"]["after"] == 0.25
    assert "  short" in said.stdout
    assert '"reward/short"' in (run / "report.html").read_text()
    shown = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert shown and all(row["reward"]["short"] == 0.25 for row in shown)


def test_an_error_in_it_ends_the_run_with_a_sentence(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    path = f"reward.functions=[{{path: '{file}:broken'}}]"
    said = command(*BRIEF, path, f"hydra.run.dir={tmp_path / 'run'}")
    assert said.returncode == 1
    told = said.stdout + said.stderr
    assert f"{file}:11: reward broken: `return [len(text) / 0 for text in completions]`: ZeroDivisionError" in told
    assert "Traceback" not in told
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"


def test_a_file_that_is_not_there_is_told_before_anything_loads(command: Command, tmp_path: Path) -> None:
    said = command("reward.functions=[{path: nowhere.py:mine}]", "objective.betta=0", f"hydra.run.dir={tmp_path}")
    assert said.returncode == 1
    assert "2 mistakes" in said.stderr and "nowhere.py cannot be read: No such file" in said.stderr
