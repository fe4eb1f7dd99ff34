"""The site's worked example of a new benchmark, put into a copy of the repository as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, fails, succeeds
from tests.cli.test_evaluate import films, to_evaluate
from tests.cli.test_score import predictions
from tests.cli.test_score import words as to_score
from tests.cli.test_train import rows
from tests.pages import blocks, page
from tests.written_files import as_json, place

__all__ = ["films"]
NAME = "my_rooms"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the two files that the page shows where it says, and the benchmark's name."""
    work = tmp_path_factory.mktemp("copy")
    for folder in ("spacer", "hydra_plugins", "conf", "experiments", "sweeps"):
        shutil.copytree(ROOT / folder, work / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", work)
    shown = [
        (match[1], code.partition("\n")[2])
        for _, code in blocks(page("extending"), "yaml", "python")
        if (match := re.match(r"# (\S*my_rooms\.\w+)\n", code))
    ]
    assert [path for path, _ in shown] == ["conf/benchmark/my_rooms.yaml", "spacer/benchmarks/my_rooms.py"]
    for path, text in shown:
        (work / path).write_text(text, encoding="utf-8")
    choices = work / "spacer/config/choices.py"
    choices.write_text(choices.read_text().replace("BENCHMARKS = (", f'BENCHMARKS = ("{NAME}", ', 1))
    return work


@pytest.fixture(scope="module")
def root(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    place(films, root / "videos/a.mp4", root / "videos/b.mp4")
    common = {"options": ["left", "right"], "answer": "B"}
    asked = [
        {"id": n, "video": f"{'ab'[n % 2]}.mp4", "task": ("side", "turn")[n // 3], "question": f"Where is {n}?"}
        | common
        for n in range(4)
    ]
    as_json(root / "questions.json", asked)
    return root


def call(copy: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(copy / "run.py"), *words],
        env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
        cwd=copy,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_answers_are_scored(copy: Path, root: Path, environment: dict[str, str], tmp_path: Path) -> None:
    file = predictions(tmp_path / "made.jsonl", {"0": "B", "1": "right", "2": "A", "3": "<answer>B</answer>"})
    said = succeeds(call(copy, environment, *to_score(NAME, root, file, tmp_path / "out")))
    made = json.loads((tmp_path / "out/scores.json").read_text())
    assert made["official"] == {"overall": 0.75, "task/side": pytest.approx(2 / 3), "task/turn": 1.0}
    assert "my_rooms, in percent" in said and "75.00" in said


@pytest.mark.long
def test_a_model_is_asked(copy: Path, root: Path, environment: dict[str, str], tmp_path: Path) -> None:
    succeeds(call(copy, environment, *to_evaluate(NAME, root, tmp_path / "out")))
    answers = rows(tmp_path / f"out/predictions/{NAME}.jsonl")
    assert [row["id"] for row in answers] == ["0", "1", "2", "3"]
    assert all(row["prediction"] and "error" not in row for row in answers)
    assert answers[0]["options"] == ["A. left", "B. right"]
    assert json.loads((tmp_path / "out/scores.json").read_text())["answered"] == 4


def test_faults_of_its_file_are_told(copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    row = {
        "id": 1,
        "video": "../../a.mp4",
        "task": "side",
        "question": " ",
        "options": ["left", "right"],
        "answer": "C",
    }
    as_json(tmp_path / "files/questions.json", [row])
    file = predictions(tmp_path / "made.jsonl", {"1": "B"})
    done = call(copy, environment, *to_score(NAME, tmp_path / "files", file, tmp_path / "out"))
    fails(done, "questions.json, row 0: 'question' must be text", "'answer' is 'C'", "outside the data root")
