"""Top-level keys that a stage does not take are refused with the stage that does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.configs import PROMPTS, load, problems

BENCHMARK = {"name": "vsi_bench", "root": "/tmp", "prompts": PROMPTS}


@pytest.mark.parametrize(
    ("stage", "changes", "told"),
    [
        (
            "train",
            {"predictions": "answers.jsonl"},
            "predictions=answers.jsonl is for stage=score, and stage=train reads",
        ),
        (
            "evaluate",
            {"predictions": "answers.jsonl"},
            "predictions=answers.jsonl is for stage=score, and stage=evaluate",
        ),
        (
            "plan",
            {"benchmark": BENCHMARK},
            "benchmark is for stage=evaluate, which asks its questions, and stage=score",
        ),
        ("curate", {"benchmarks": {"a": BENCHMARK}}, "benchmark is for stage=evaluate, which asks its questions"),
        (
            "score",
            {"benchmarks": {"a": BENCHMARK}},
            "stage=score scores a file of one benchmark: choose benchmark=NAME",
        ),
        ("evaluate", {"ckpt_path": __file__}, f"ckpt_path={__file__} is for stages that train and for stage=export"),
        ("evaluate", {"runs": ["a"]}, "runs is for stage=compare, stage=report, stage=dashboard, stage=export"),
    ],
)
def test_what_a_stage_does_not_take_is_refused(stage: str, changes: dict[str, Any], told: str) -> None:
    assert sum(problem.startswith(told) for problem in problems(stage=stage, **changes)) == 1


def test_the_newest_checkpoint_of_a_run_may_be_named_in_any_stage() -> None:
    """As `cluster=slurm` does: there is none where nothing was trained."""
    assert load(stage="evaluate", ckpt_path="last").ckpt_path == "last"
