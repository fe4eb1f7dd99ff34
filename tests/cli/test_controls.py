"""What the video adds to a score, as a user asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Command, succeeds

CONTROLS = ("other_video", "grey", "none", "prior")


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.long
def test_an_evaluation_says_what_the_video_adds(command: Command, tmp_path: Path) -> None:
    asked = (f"evaluation.controls=[{','.join(CONTROLS)}]", "evaluation.limit=12", "evaluation.resamples=200")
    small = [word for word in SMALL if word.startswith("dataset.")]
    said = succeeds(command("stage=evaluate", *small, *asked, "logger=none", f"hydra.run.dir={tmp_path}"))
    own = rows(tmp_path / "predictions/rooms.jsonl")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert tuple(summary["controls"]) == CONTROLS
    for control, found in summary["controls"].items():
        answered = rows(tmp_path / f"predictions/controls/rooms.{control}.jsonl")
        assert [row["id"] for row in answered] == [row["id"] for row in own]
        total = found["reward/answer"]
        means = [sum(row["reward"]["answer"] for row in some) / len(some) for some in (answered, own)]
        assert [total["before"], total["after"]] == pytest.approx(means)
        assert total["delta"] == pytest.approx(means[1] - means[0])
        drawn = [row["id"] for row, other in zip(own, answered, strict=True) if row["drawn"] and other["drawn"]]
        assert found.get("map/quality", {"questions": 0})["questions"] == len(drawn)
    others = rows(tmp_path / "predictions/controls/rooms.other_video.jsonl")
    assert all(row["scene"] not in Path(row["video"]).stem for row in others)
    prior = rows(tmp_path / "predictions/controls/rooms.prior.jsonl")
    assert all(row["drawn"] for row in prior)
    assert sum(row["extracted"] for row in prior) > len(prior) / 2  # ten scenes do not have every type
    assert "What the video adds to another scene's" in said and "What the model adds to priors" in said
