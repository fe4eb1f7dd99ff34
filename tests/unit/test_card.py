"""The command for half an hour on a GPU: at tiny sizes on the CPU, and the page of its results."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.card.page import HEAD, NONE, page
from tests.card.parts import DRY, PARTS
from tests.pages import DOCS, ROOT


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    dry = {"part": "flex", "dry": True, "date": "2026-01-01", "seconds": 1.0, "metrics": {"48": {"error": 0.1}}}
    (tmp_path / "flex.json").write_text(json.dumps(dry))
    assert page(tmp_path) == HEAD + NONE


def test_the_page_shows_what_each_part_has_told(tmp_path: Path) -> None:
    told = {
        "part": "versions",
        "dry": False,
        "date": "2026-01-01",
        "seconds": 2.0,
        "metrics": {"card": "A", "vllm": None},
    }
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "b.json").write_text(
        json.dumps(told | {"part": "flex", "metrics": {"8": {"x": 0.123456}, "9": {"y": 2}}})
    )
    (tmp_path / "step.json").write_text(json.dumps({"rows": [{"system": "spacer", "wall_s": 1.5}]}))
    shown = page(tmp_path)
    for text in ("| card | A |", "| | x | y |", "| 8 | 0.1235 |  |", "| 9 |  | 2 |", "| spacer | 1.5 |", "2026-01-01"):
        assert text in shown, text


def test_the_documentation_has_the_page_of_results() -> None:
    assert (DOCS / "gpu.md").read_text(encoding="utf-8").startswith(HEAD)


@pytest.mark.parametrize("part", ["versions", "drift"])
def test_parts_measure_on_a_cpu_at_tiny_sizes(part: str) -> None:
    figures = json.loads(json.dumps(PARTS[part](DRY)))
    assert figures
    if part == "drift":
        assert all(row["holds"] for row in figures.values())


@pytest.mark.long
def test_the_whole_command_ends_dry_and_passes_over_what_is_done(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there: bash tests/gpu.sh measures on it")

    def run() -> subprocess.CompletedProcess[str]:
        words = ["bash", "tests/gpu.sh", "--dry", str(tmp_path)]
        return subprocess.run(
            words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )

    first = run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert {"versions", "flex", "decode", "drift", "tests", "resume", "step", "trl", "large"} <= {
        file.stem for file in tmp_path.glob("*.json")
    }
    (tmp_path / "flex.json").unlink()
    again = run()
    assert again.returncode == 0 and "versions: done before" in again.stdout and "flex …" in again.stdout
