"""`stage=evaluate run=DIR`: the model that a run has trained answers as it did at the run's end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import BRIEF, Command, fails, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long


def test_a_run_is_asked_again_with_its_own_settings(command: Command, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    succeeds(command(*BRIEF, "reward=grpo", "seed=3", f"hydra.run.dir={run}"))
    words = ["stage=evaluate", f"run={run}", "evaluation.limit=8", "evaluation.resamples=200", "logger=none"]
    said = succeeds(command(*words, f"hydra.run.dir={again}"))
    assert rows(again / "predictions/rooms.jsonl") == rows(run / "predictions/after.jsonl")
    config = yaml.safe_load((again / ".hydra/config.yaml").read_text())
    assert config["model"]["name_or_path"] == f"{run}/model" and config["dataset"]["heldout_scenes"] == 2
    assert "reward/map" not in said or config["reward"]["map"] is False
    fails(
        command("stage=evaluate", f"run={tmp_path}", f"hydra.run.dir={tmp_path / 'no'}"), "is not the folder of a run"
    )
