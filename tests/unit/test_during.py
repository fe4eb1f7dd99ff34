"""What an evaluation during training logs: means with their intervals, where there are scenes enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spacer.evaluation.during import PREFIX, DuringTraining
from spacer.statistics.summaries import mean_scores

REWARD = {"answer": 0.0, "map": 0.0, "map_quality": 0.0, "format": 1.0, "length": 0.0, "temporal": 0.0}


def rows(scenes: int) -> list[dict[str, Any]]:
    """Two questions about each scene; the answers to every third scene are right."""
    return [
        {
            "id": f"{scene}/{n}",
            "scene": str(scene),
            "question_type": "object_counting",
            "drawn": False,
            "completion_tokens": 3,
            "reward": {**REWARD, "answer": float(scene % 3 == 0), "total": 1.0 + float(scene % 3 == 0)},
        }
        for scene in range(scenes)
        for n in range(2)
    ]


@pytest.mark.parametrize(("scenes", "with_interval"), [(12, True), (3, False)])
def test_means_and_their_intervals_are_logged(scenes: int, with_interval: bool) -> None:
    held: Any = SimpleNamespace(_settings=SimpleNamespace(resamples=500), _request=SimpleNamespace(seed=0))
    logged = DuringTraining._metrics(held, rows(scenes), SimpleNamespace(prompts_seen=7))
    assert logged["train/prompts_seen"] == 7.0
    assert logged[f"{PREFIX}reward/total"] == pytest.approx(4 / 3)
    assert logged[f"{PREFIX}answer/object_counting"] == pytest.approx(1 / 3)
    assert (f"{PREFIX}reward/total/low" in logged) == with_interval
    if with_interval:
        score = mean_scores(rows(scenes), 500, 0)["reward/total"]
        assert logged[f"{PREFIX}reward/total/low"] == score["low"] < 4 / 3 < logged[f"{PREFIX}reward/total/high"]
