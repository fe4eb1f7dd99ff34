"""A vision tower trained by read-outs, and a language model trained on from it, as a user calls both."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.cli.conftest import ROOT, Command, succeeds

STILLS = ("dataset=stills", "dataset.train_scenes=8", "dataset.heldout_scenes=1", "dataset.workers=1")


def test_a_vision_stage_and_what_goes_on_from_it(command: Command, tmp_path: Path) -> None:
    seen, drawn = tmp_path / "seen", tmp_path / "drawn"
    brief = (*STILLS, "stage.batch_size=4", "logger=none", "trainer.max_steps=2")
    succeeds(command("stage=vision", "model.freeze_vision=false", *brief, f"hydra.run.dir={seen}"))
    before = load_file(ROOT / "spacer/assets/tiny/model.safetensors")
    after = load_file(seen / "model/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed and all("visual" in name for name in changed)
    taught = ("stage=sft", *brief, f"model.name_or_path={seen}/model", "stage.optimizer.kind=muon")
    succeeds(command(*taught, "stage.evaluate_after=false", f"hydra.run.dir={drawn}"))
    assert (drawn / "model/model.safetensors").exists()


def test_stills_are_asked_with_other_pictures_beside_their_own(command: Command, tmp_path: Path) -> None:
    two = tuple(word.replace("heldout_scenes=1", "heldout_scenes=2") for word in STILLS)
    asked = ("evaluation.controls=[other_video,grey,prior]", "evaluation.resamples=50", "dataset.questions_per_still=1")
    said = succeeds(command("stage=evaluate", *two, *asked, "logger=none", f"hydra.run.dir={tmp_path}"))
    own = [json.loads(line) for line in (tmp_path / "predictions/rooms.jsonl").read_text().splitlines()]
    assert [row["question_type"] == "drawing" for row in own] == [True, False] * 2
    controls = json.loads((tmp_path / "summary.json").read_text())["controls"]
    assert set(controls) == {"other_video", "grey", "prior"}
    assert controls["prior"]["map/drawn"]["before"] == 0.5  # one layout for each drawing, none for the short questions
    other = [json.loads(line) for line in (tmp_path / "predictions/controls/rooms.other_video.jsonl").open()]
    assert all(row["scene"] not in Path(row["video"]).stem for row in other)
    assert "What the video adds to grey frames" in said
