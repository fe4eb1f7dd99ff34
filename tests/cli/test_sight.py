"""The embedded model looks: it is asked with its own videos and with those of other rooms, as a user asks."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, succeeds
from tests.cli.test_train import rows

ROOMS = ("train_scenes=60", "heldout_scenes=60", "workers=1", "heldout_questions_per_scene=3")


@pytest.mark.long
def test_the_embedded_model_draws_what_its_own_video_shows(command: Command, tmp_path: Path) -> None:
    weights = ROOT / "spacer/assets/tiny"
    assert sum(file.stat().st_size for file in weights.iterdir()) <= 8e6
    rooms = [f"dataset.{word}" for word in (*ROOMS, f"root={tmp_path}/rooms")]
    run = tmp_path / "run"
    asked = ("evaluation.resamples=2000", "logger=none", "report.strips=0")
    succeeds(command("stage=evaluate", *rooms, *asked, f"hydra.run.dir={run}"))
    controls = json.loads((run / "summary.json").read_text())["controls"]
    added = controls["other_video"]["map/quality"]
    assert added["questions"] >= 120  # maps drawn with both videos
    assert added["delta_low"] > 0.12
    assert controls["other_video"]["reward/answer"]["delta"] > 0
    # guesses stop halfway through the map, so whole maps are compared on their own
    answers = run / "predictions"
    own, other = whole_maps(answers / "rooms.jsonl"), whole_maps(answers / "controls/rooms.other_video.jsonl")
    both = sorted(own.keys() & other.keys())
    assert len(both) >= 40
    assert statistics.fmean(own[name] - other[name] for name in both) > 0.2
    best_constant = controls["prior"]["map/quality"]["before"]
    assert statistics.fmean(own.values()) > best_constant + 0.05


def whole_maps(answers: Path) -> dict[str, float]:
    """Question → quality of the map, of completions that do not begin by saying that they guess."""
    found = (row for row in rows(answers) if row["drawn"])
    told = {row["id"]: (row["completion"].partition("<map>")[0], row["reward"]["map_quality"]) for row in found}
    return {name: quality for name, (opening, quality) in told.items() if "guess" not in opening}
