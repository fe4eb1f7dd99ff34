"""Top-level keys that a stage does not take are refused with the stage that does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.configs import PROMPTS, load, only_problem, problems

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


def test_a_pass_rate_is_of_a_file_of_completions() -> None:
    assert "dataset.pass_rate=[0.1, 0.9] is of completions, and none are named" in only_problem(
        dataset__pass_rate=[0.1, 0.9]
    )
    assert "is no range: put the lower end first" in only_problem(
        dataset__pass_rate=[0.9, 0.1], dataset__generated=__file__
    )
    assert "changes nothing by itself: set dataset.pass_rate" in only_problem(dataset__generated=__file__)
    missing = only_problem(dataset__pass_rate=[0, 1], dataset__generated="/none/generated.jsonl")
    assert "dataset.generated=/none/generated.jsonl is not an existing file" in missing
    found = load(dataset__pass_rate=[0, 0.5], dataset__generated=__file__)
    assert found.dataset.pass_rate == (0, 0.5)
    # which asks held-out questions, so that a run's settings can be taken as they are
    load(stage="evaluate", dataset__pass_rate=[0, 1], dataset__generated="/none/generated.jsonl")


def test_completions_to_imitate_are_named_and_used() -> None:
    generated = {"stage": "sft", "stage__targets": "generated"}
    assert "none are named: set dataset.generated=RUN/generated.jsonl" in only_problem(**generated)
    guesses = only_problem(**generated, dataset__generated=__file__, stage__guesses={"share": 0.5, "after": 0})
    assert "stage.guesses stand in place of worked completions" in guesses
    assert "stage.best=2 is of generated completions" in only_problem(stage="sft", stage__best=2)
    assert load(**generated, dataset__generated=__file__, stage__best=2).stage.best == 2


def test_greedy_completions_are_not_generated() -> None:
    assert "greedy completions would all be equal" in only_problem(stage="generate", stage__temperature=0)
