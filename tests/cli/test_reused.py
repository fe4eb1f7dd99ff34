"""A folder that is used again: another run's answers are never reported for this one's model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import BRIEF, Command, fails, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long


def test_a_finished_folder_is_refused_begun_anew_or_trained_longer(command: Command, tmp_path: Path) -> None:
    folder, fresh = tmp_path / "again", tmp_path / "fresh"
    here, words = f"hydra.run.dir={folder}", [*BRIEF[:-4], *BRIEF[-3:], "trainer.max_steps=2"]
    words += ["model.learning_rate=0.003"]  # so that it learns
    succeeds(command(*words, here))
    first = rows(folder / "predictions/after.jsonl")
    (folder / "notes.txt").write_text("mine")

    for other in ("seed=1", "reward=accuracy", "trainer.max_steps=3"):
        fails(command(*words, here, other), "holds a finished run of stage=train", "overwrite=true", "hydra.run.dir=")
    assert rows(folder / "predictions/after.jsonl") == first

    longer = command(*words, here, "trainer.max_steps=4", "ckpt_path=last")
    assert "model.trained_steps: 2 then, 4 now" in succeeds(longer)
    after = rows(folder / "predictions/after.jsonl")
    assert [row["id"] for row in after] == [row["id"] for row in first]
    assert after != first
    succeeds(command(*words, here, "trainer.max_steps=4", "ckpt_path=last"))  # nothing is left to do
    assert rows(folder / "predictions/after.jsonl") == after

    succeeds(command(*words, here, "seed=1", "overwrite=true"))
    succeeds(command(*words, f"hydra.run.dir={fresh}", "seed=1"))
    assert rows(folder / "predictions/after.jsonl") == rows(fresh / "predictions/after.jsonl")
    assert len(rows(folder / "history.jsonl")) == 2
    one, other = (load_file(place / "model/model.safetensors") for place in (folder, fresh))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (folder / "notes.txt").read_text() == "mine"
