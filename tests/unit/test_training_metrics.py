"""What is logged of a step's completions: each metric by hand, and none that does not apply."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spacer.config.settings import RewardSettings
from spacer.rewards import Scorer
from spacer.rollout.completion import Rollout
from spacer.training.metrics import measure, rollout_metrics

RIGHT, WRONG, WITH_MAP = (
    "<think>By the door.</think><answer>B</answer>",
    "<think>By the door.</think><answer>A</answer>",
    "<think><map>{'chair': [[1, 2]]}</map></think><answer>B</answer>",
)


def logged(texts: list[str], maps: list[dict[str, Any] | None], reward: RewardSettings) -> dict[str, float]:
    """The metrics of two completions for each question, which has the map that `maps` gives."""
    scorer, parts = Scorer(reward), []
    for n, true_map in enumerate(maps):
        question: Any = SimpleNamespace(
            solution="B", problem_type="multiple choice", options=(), true_map=true_map, problem="?", id=str(n)
        )
        parts += scorer(question, texts[2 * n : 2 * n + 2], [3, 3])
    written = torch.ones(len(texts), 3, dtype=torch.bool)
    rollout = Rollout(written.long(), written, -written.float(), torch.zeros(len(texts), dtype=torch.bool), ("",))
    return rollout_metrics(measure(parts, rollout, scorer.terms), 2, scorer.terms)


def test_what_no_completion_has_is_not_logged() -> None:
    found = logged([RIGHT, WRONG], [None], RewardSettings())
    assert not [name for name in found if "map" in name]
    assert (found["reward/total"], found["reward/answer"], found["reward/format"]) == (1.5, 0.5, 1.0)
    bare = logged([RIGHT, WRONG], [None], RewardSettings(format=False, map=False))
    assert {name for name in bare if name.startswith("reward/")} == {"reward/total", "reward/answer"}
    assert all(math.isfinite(value) for value in (found | bare).values())


def test_a_term_that_is_0_where_it_applies_is_logged() -> None:
    found = logged([RIGHT, WRONG], [{"chair": [[1, 2]]}], RewardSettings())
    assert (found["reward/map"], found["rollout/std_map"], found["rollout/map_drawn"]) == (0.0, 0.0, 0.0)
    assert "rollout/map_quality" not in found  # of no map


@pytest.mark.parametrize(("maps", "mean"), [([{"chair": [[1, 2]]}, None], 0.5), ([None, None], None)])
def test_maps_are_averaged_over_questions_with_one_and_drawn_over_all(maps: list[Any], mean: float | None) -> None:
    found = logged([WITH_MAP, RIGHT, RIGHT, WITH_MAP], maps, RewardSettings())
    assert found.get("reward/map") == mean and found["rollout/map_drawn"] == 0.5
    assert found.get("rollout/map_quality") == (None if mean is None else 1.0)


def test_a_map_is_drawn_or_not_although_none_is_rewarded() -> None:
    found = logged([WITH_MAP, RIGHT], [{"chair": [[1, 2]]}], RewardSettings(map=False))
    assert "reward/map" not in found and (found["rollout/map_drawn"], found["rollout/map_quality"]) == (0.5, 1.0)
