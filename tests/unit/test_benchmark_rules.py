"""Benchmarks, the guard against their videos in training, and how held-out questions are asked, are three things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spacer.config import derived
from spacer.config.choices import BENCHMARKS
from spacer.config.settings import JsonlSettings
from tests.unit.configs import PROMPTS, load, only_problem, problems

BENCHMARK = {"name": "vsi_bench", "root": "/tmp", "prompts": PROMPTS}


@pytest.mark.parametrize("stage", ["train", "sft", "prepare"])
def test_a_benchmark_guards_no_training(stage: str) -> None:
    found = [problem for problem in problems(stage=stage, benchmark=BENCHMARK) if "vsi_bench" in problem]
    assert found == [
        f"stage.name={stage} asks no benchmark: to keep the videos of vsi_bench out of training, set "
        "dataset.guard.vsi_bench=DIR instead of benchmark=vsi_bench; to ask its questions, take stage=evaluate"
    ]
    (several,) = [problem for problem in problems(stage=stage, benchmarks={"a": BENCHMARK}) if "=all" in problem]
    assert "leave benchmark=all to stage=evaluate" in several and "dataset.guard.vsi_bench=DIR" in several


def test_how_held_out_questions_are_asked_is_apart_from_benchmarks() -> None:
    assert load(evaluation__temperature=0.0, evaluation__limit=3).evaluation.limit == 3
    for stage in ("train", "evaluate"):
        said = only_problem(stage=stage, benchmark={"temperature": 0.0, "index": "x"})
        assert said.startswith("benchmark: benchmark.temperature, benchmark.index set, and no benchmark is chosen")
        assert "evaluation.temperature=0" in said and "dataset.guard" in said
    asked = load(stage="evaluate", benchmark=BENCHMARK).benchmark
    assert asked is not None and asked.temperature == 0.0
    assert "is no benchmark: choose benchmark=NAME" in " ".join(
        problems(stage="evaluate", benchmark=BENCHMARK | {"name": "rooms"})
    )
    assert only_problem(benchmark=BENCHMARK | {"name": 3}).startswith("benchmark.name: is 3, must be a text")


def test_a_guard_names_benchmarks_and_folders(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").touch()
    own = {
        "kind": "jsonl",
        "root": str(tmp_path),
        "index": "i.jsonl",
        "prompts": PROMPTS,
    }
    kept = load(dataset=own | {"guard": {"vsi_bench": str(tmp_path)}}).dataset
    assert isinstance(kept, JsonlSettings) and kept.guard == {"vsi_bench": str(tmp_path)}
    unknown = only_problem(dataset=own | {"guard": {"vsi": str(tmp_path)}})
    assert unknown.startswith("dataset.guard={'vsi':") and "among blink, " in unknown
    assert "a folder that is not there" in only_problem(dataset=own | {"guard": {"vsi_bench": "/nowhere"}})


def test_held_out_questions_are_called_as_no_benchmark() -> None:
    settings = load()
    assert derived.heldout_name(settings) == "rooms"
    own = JsonlSettings(root="data", prompts=PROMPTS)
    assert derived.heldout_name(replace(settings, dataset=own)) == "heldout"
    assert "heldout" not in BENCHMARKS and "rooms" not in BENCHMARKS
