"""What is logged of a step's completions: each metric by hand, and none that does not apply."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spacer.config.settings import LengthBonusSettings, ObjectiveSettings, RewardSettings
from spacer.objective.loss import PolicyBatch, policy_loss
from spacer.report.labels import CURVES, METRICS, label_of
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


def test_each_metric_of_a_rollout_by_hand_and_under_a_readable_name() -> None:
    """Two groups of two: both right, one with a map and short; and both wrong, of which one never ended."""
    scorer = Scorer(RewardSettings(length=LengthBonusSettings(min_tokens=0, max_tokens=3)))
    question: Any = SimpleNamespace(
        solution="B", problem_type="multiple choice", options=(), true_map={"chair": [[1, 2]]}, problem="?", id="0"
    )
    lengths = [2, 4, 1, 8]
    texts = (WITH_MAP, RIGHT, WRONG, "<think>By")
    parts = [*scorer(question, texts[:2], lengths[:2]), *scorer(question, texts[2:], lengths[2:])]
    mask_BC = torch.arange(8) < torch.tensor(lengths)[:, None]
    logp_BC = torch.tensor([[-1.0], [-2.0], [-3.0], [-4.0]]).expand(4, 8)
    rollout = Rollout(mask_BC.long(), mask_BC, logp_BC, torch.tensor([False, False, False, True]), texts)
    found = rollout_metrics(measure(parts, rollout, scorer.terms), 2, scorer.terms)
    answers, formats, maps = [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]
    bonus = [0.2, 0.0, 0.0, 0.0]  # of two right answers, of which one is short enough
    totals = [sum(each) for each in zip(answers, formats, maps, bonus, strict=True)]
    terms = {"answer": answers, "format": formats, "map": maps, "length": bonus, "total": totals}
    expected = {f"reward/{name}": fmean(values) for name, values in terms.items()}
    expected |= {f"rollout/std_{name}": stdev(values) for name, values in terms.items()}
    expected |= {"rollout/length": 3.75, "rollout/length_min": 1, "rollout/length_max": 8, "rollout/truncated": 0.25}
    expected |= {"rollout/entropy": 2.5, "rollout/pass_at_group": 0.5, "rollout/map_drawn": 0.25}
    expected |= {"rollout/groups_all_right": 0.5, "rollout/groups_all_wrong": 0.5, "rollout/groups_zero_variance": 0}
    expected |= {"rollout/map_quality": 1, "rollout/reward_std": fmean([stdev(totals[:2]), stdev(totals[2:])])}
    assert found == pytest.approx(expected)
    beside = ("rollout/groups_teaching", "rollout/groups", "rollout/filled")
    assert all(label_of(name) != name for name in (*found, *beside))


def test_every_metric_of_the_loss_has_a_readable_name() -> None:
    ones = torch.ones(2, 3)
    settings = ObjectiveSettings(clip_low=0.2, clip_high=0.2)
    batch = PolicyBatch(logp_BC=ones, advantages_B=torch.ones(2), mask_BC=ones > 0, ref_logp_BC=ones)
    names = {f"train/{name}" for name in policy_loss(batch, settings).metrics} - {"train/completion_length_mean"}
    assert {"train/kl", "train/clip_low_fraction", "train/clip_high_fraction"} <= names <= CURVES.keys()
    assert len({*CURVES.values()}) == len(CURVES) and not CURVES.keys() & METRICS.keys()
