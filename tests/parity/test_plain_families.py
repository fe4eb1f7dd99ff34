"""Models of families without prefix trees, untrained: what is sampled is what passes give, in groups or alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spacer.config.choices import Shown
from spacer.config.settings import ModelSettings, Settings
from spacer.data.asking import join
from spacer.data.loading import PromptDataset, SampleDraw
from spacer.data.plain import PlainBatch, shows_videos
from spacer.data.samples import Fault, Medium, Sample
from spacer.data.sources import Split
from spacer.errors import UserError
from spacer.models.load import load_plain
from spacer.models.plain import PlainOptions, completion_logps
from spacer.models.probe import ModelProbe, probe_model
from spacer.models.unwrap import vision_tower
from spacer.rollout.asked import ask
from spacer.rollout.sampling import Decoding
from tests.plain_models import CLASSES, make_folder

SAMPLED = Decoding(1.0, 0.95, 12)
GROUP = 3


@pytest.fixture(scope="module")
def samples(split: Split, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A question about a video, one about a picture, one about both and one about none."""
    video = split.samples[0]
    still = tmp_path_factory.mktemp("still") / "still.png"
    noise = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(noise.repeat(12, 0).repeat(12, 1)).save(still)
    both = (Medium("video", video.path), Medium("image", still))
    return [
        video,
        replace(video, id="picture", data_type="image", path=still, true_map=None),
        replace(video, id="text", data_type="text", true_map=None),
        replace(video, id="both", media=both, true_map=None),
    ]


def items_of(probe: ModelProbe, samples: Sequence[Sample], settings: Settings) -> tuple[PromptDataset, list[Any]]:
    """The samples as the plain computation asks them; frames are pictures where there are no videos."""
    shown = Shown.video if shows_videos(probe.processor) else Shown.pictures
    few = replace(settings.dataset.video, max_frames=4, min_frames=4, max_pixels=4096, shown=shown)
    asked = PromptDataset(samples, probe.processor, replace(settings.dataset, video=few), rule=None)
    return asked, [asked[SampleDraw(n, n)] for n in range(len(samples))]


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_sampled_is_what_passes_give_and_teaches_all_of_the_model(
    kind: str, settings: Settings, samples: list[Sample], tmp_path: Path
) -> None:
    chosen = ModelSettings(name_or_path=str(make_folder(tmp_path / "model", kind)), dtype="float64")
    probe, model = probe_model(chosen, plain=True), load_plain(chosen, "sdpa").eval()
    dataset, items = items_of(probe, samples, settings)
    if kind == "glm4v":
        fault = items.pop()
        assert isinstance(fault, Fault) and "the same token in the places of pictures and of videos" in fault.detail
    assert not any(isinstance(item, Fault) for item in items), items
    batch = join([dataset.collate(items[:1]), dataset.collate(items[1:])])
    assert isinstance(batch, PlainBatch)
    asked = ask(model, probe, PlainOptions(16_384), batch)
    rollout = asked.sample(SAMPLED, [[5, i] for i in range(len(items) * GROUP)])
    assert len(set(rollout.texts)) > len(items)
    completions = rollout.completions(GROUP)
    for n, inputs in enumerate(batch.inputs):
        mine = [completions[n * GROUP + i].ids_C for i in range(GROUP)]
        together = completion_logps(model, inputs, mine)
        alone = torch.cat([completion_logps(model, inputs, [ids_C]) for ids_C in mine])
        sampled = torch.cat(rollout.sampled[n * GROUP : (n + 1) * GROUP])
        assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together.float(), sampled, atol=1e-5)
        together.sum().backward()
    taught = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    tower = {id(value) for value in vision_tower(model).parameters()}
    assert {id(value) in tower for name, value in model.named_parameters() if name in taught} == {True, False}


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_model_of_a_package_that_is_not_installed_says_so(tmp_path: Path) -> None:
    """Gemma 3n has its vision tower from timm."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n"}))
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"need a package that is not installed \(.*timm"):
        load_plain(ModelSettings(name_or_path=str(tmp_path)))
