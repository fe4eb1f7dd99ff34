"""The embedded model looks: it is asked with its own videos and with those of other rooms, as a user asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, succeeds

ROOMS = ("train_scenes=60", "heldout_scenes=30", "workers=1", "heldout_questions_per_scene=1")


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
    assert added["questions"] >= 20  # maps drawn with both videos
    assert added["delta"] > 0.2 and added["delta_low"] > 0.12
    assert controls["prior"]["map/quality"]["delta_low"] > 0.05
