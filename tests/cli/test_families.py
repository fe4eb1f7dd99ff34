"""Each supported family by its own processor through the command line: videos, images and text mixed."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spacer.config.families import FAMILIES
from tests.cli.conftest import Command, fails, succeeds
from tests.cli.test_train import rows
from tests.model_folders import make_folder

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions about a video, three about a picture and three about none; one of each is held out. They spell a
    control token."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (12, 6, 8, 3), np.uint8).repeat(12, 1).repeat(12, 2)
    with av.open(str(root / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    Image.fromarray(frames[0]).save(root / "still.png")
    lines = [
        {
            "problem_id": f"{kind}{number}",
            "problem": f"How many <|im_end|> chairs are in {kind} {number}?",
            "problem_type": "numerical",
            "data_type": kind,
            "options": [],
            "solution": "<answer>3</answer>",
            **path,
        }
        for number in range(3)
        for kind, path in (("video", {"path": "clip.mp4"}), ("image", {"path": "still.png"}), ("text", {}))
    ]
    for name, some in (("index", lines[:6]), ("heldout", lines[6:])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in some))
    return root


def words(data: Path, model: Path, out: Path, *more: str) -> list[str]:
    return [
        *("dataset=jsonl", f"dataset.root={data}", "dataset.heldout=heldout.jsonl", "dataset.workers=1"),
        *("dataset.video.max_pixels=4096", "dataset.image_max_pixels=4096", "dataset.video.max_frames=4"),
        *(f"model.name_or_path={model}", "objective.prompts_per_rollout=3", "objective.group_size=2"),
        *("model.completion.max_tokens=8", "model.completion.bonus_min=2", "model.completion.bonus_max=8"),
        *(() if "stage=evaluate" in more else ("stage.evaluate_before=false",)),
        *("trainer.checkpoint_every_n_steps=1", "logger=none", "model.freeze_vision=false", *more),
        f"hydra.run.dir={out}",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_taught_trained_resumed_exported_and_asked(
    family: str, command: Command, data: Path, tmp_path: Path
) -> None:
    model = make_folder(tmp_path / "model", family)
    taught, trained, whole = tmp_path / "taught", tmp_path / "trained", tmp_path / "whole"
    two = ("stage=sft", "stage.batch_size=3", "stage.evaluate_after=false", "trainer.max_steps=2")
    succeeds(command(*words(data, model, taught, *two)))
    model = taught / "model"

    train = ("stage.evaluate_after=false",)
    said = succeeds(command(*words(data, model, whole, *train, "trainer.max_steps=2")))
    assert "self-check: log-probabilities differ by" in said
    succeeds(command(*words(data, model, trained, *train, "trainer.max_steps=1")))
    succeeds(command(*words(data, model, trained, *train, "trainer.max_steps=2", "ckpt_path=last")))
    once, resumed = (load_file(run / "model/model.safetensors") for run in (whole, trained))
    begun = load_file(model / "model.safetensors")
    assert all(torch.equal(once[name], resumed[name]) for name in once)
    vision = [name for name in once if "visual" in name]
    assert vision and any(not torch.equal(once[name], begun[name]) for name in vision)

    checkpoint = ("stage=export", f"ckpt_path={trained / 'checkpoints/last.ckpt'}")
    exported = tmp_path / "exported"
    succeeds(command(*checkpoint, f"model.name_or_path={model}", f"hydra.run.dir={exported}"))
    out = tmp_path / "asked"
    succeeds(command(*words(data, exported / "model", out, "stage=evaluate")))
    (answered,) = (out / "predictions").glob("*.jsonl")
    asked = rows(answered)
    assert {row["id"] for row in asked} == {"video2", "image2", "text2"} and not any("error" in row for row in asked)
    assert all(row["completion_tokens"] > 0 for row in asked)
    assert {row["id"]: row["video"] for row in asked}["text2"] is None


@pytest.mark.parametrize("stage", ["train", "sft", "evaluate"])
def test_a_model_that_is_not_whole_ends_every_stage_in_a_sentence(
    stage: str, command: Command, data: Path, tmp_path: Path
) -> None:
    model = make_folder(tmp_path / "model", "qwen2_5_vl")
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith("mlp.up_proj.weight"))
    del tensors[name]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    done = command(*words(data, model, tmp_path / "out", f"stage={stage}"))
    fails(done, f"model.name_or_path={model}", "mlp.up_proj.weight is missing, and would be random numbers")
    assert not (tmp_path / "out/model").exists()
