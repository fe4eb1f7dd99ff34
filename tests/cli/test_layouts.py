"""Layouts as a user trains on them and asks them: the map of a question is given, in training and in asking."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command, succeeds

LAYOUTS = ("dataset=layouts", "dataset.train_scenes=8", "dataset.heldout_scenes=2", "logger=none")


def test_completions_go_on_from_the_map_that_is_given(command: Command, tmp_path: Path) -> None:
    trained, asked = tmp_path / "trained", tmp_path / "asked"
    steps = ("trainer.max_epochs=null", "trainer.max_steps=2", "stage.batch_size=8", "stage.evaluate_after=false")
    succeeds(command("stage=sft", *LAYOUTS, "dataset.ways=1", *steps, f"hydra.run.dir={trained}"))
    losses = [json.loads(line)["train/loss"] for line in (trained / "history.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)

    model = f"model.name_or_path={trained / 'model'}"
    succeeds(command("stage=evaluate", *LAYOUTS, model, "report.strips=0", f"hydra.run.dir={asked}"))
    (written,) = (asked / "predictions").glob("*.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(rows) >= 10
    for row in rows:
        given = row["completion"].partition("<map>")[2].partition("</map>")[0]
        assert json.loads(given) == row["true_map"]
        assert row["video"] is None
