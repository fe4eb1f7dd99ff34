"""What loading a model changes in it, and what it must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from spacer.config.settings import Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, collate
from spacer.models import logps as logps_module
from spacer.models import vision as vision_module
from spacer.models.forward import RowContext
from spacer.models.load import load_policy
from spacer.models.logps import row_logps
from spacer.models.token_logps import token_logps
from spacer.models.vision import count_passes, encode_vision
from spacer.tree.forest import Completion
from spacer.tree.packing import pack
from tests.parity.conftest import prompts_of
from tests.parity.families import FAMILIES, exact, make, make_prompts
from tests.parity.test_rollout import COMPUTE


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Questions about four videos."""
    return prompts_of(dataset, 0, 4, 8, 12)


@pytest.mark.parametrize("patches", [1, 600, 10_000])
def test_vision_features_are_those_of_transformers_however_they_are_portioned(
    settings: Settings, prompts: list[Prompt], patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision_module, "PATCHES", patches)
    policy = load_policy(replace(settings.model, dtype="float64"))
    original = AutoModelForImageTextToText.from_pretrained(settings.model.name_or_path, dtype=torch.float64)
    assert policy.state_dict().keys() == original.state_dict().keys()
    pictures = collate(prompts).pictures
    with torch.no_grad():
        found = encode_vision(policy, pictures).embeds_MH
        expected = original.get_video_features(pictures.video_pixels, pictures.video_grids, return_dict=True)
    # the tower rotates in float32
    torch.testing.assert_close(found, torch.cat(expected.pooler_output), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_may_be_cut_between_its_frames(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = make(family), np.random.default_rng(0)
    shown = (("video", 1), ("image", 1), ("video", 1))
    made = [p for kind, count in shown for p in make_prompts(family, model, rng, kind, count, torch.float64)]
    pictures = collate(made).pictures
    assert pictures.video_grids is not None and int(pictures.video_grids[:, 0].max()) > 1
    found, passes = [], []
    with torch.no_grad(), exact(model):
        for patches in (1, 10_000):
            monkeypatch.setattr(vision_module, "PATCHES", patches)
            found.append(encode_vision(model, pictures).tensors)
            passes.append(count_passes(pictures))
    assert passes == [1 + int(pictures.video_grids[:, 0].sum()), 2]
    for cut, whole in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-9)


def test_the_vocabulary_is_met_in_chunks_of_equal_result(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(replace(settings.model, dtype="float64"))
    batch = collate(prompts)
    completions = [Completion(n, torch.arange(20, 40 + n)) for n in range(len(prompts))]
    (row,) = pack(batch.forest, completions, COMPUTE.row_tokens)
    vision = encode_vision(policy, batch.pictures).detach()
    found = []
    for logits in (2**24, 1024 * 7):
        monkeypatch.setattr(logps_module, "LOGITS", logits)
        widest = 0

        def note(logits_BCV: torch.Tensor, targets_BC: torch.Tensor) -> torch.Tensor:
            nonlocal widest
            widest = max(widest, logits_BCV.shape[1])
            return token_logps(logits_BCV, targets_BC)

        monkeypatch.setattr(logps_module, "token_logps", note)
        policy.zero_grad()
        logp = row_logps(policy, row, RowContext(vision, COMPUTE))
        logp.sum().backward()
        found.append((logp.detach(), policy.lm_head.weight.grad.clone(), widest))
    assert found[0][2] == len(row.targets_N) and found[1][2] == 7
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-12)


def test_log_probabilities_are_taken_at_the_temperature_of_sampling(settings: Settings, prompts: list[Prompt]) -> None:
    policy = load_policy(settings.model)
    batch = collate(prompts[:1])
    (row,) = pack(batch.forest, [Completion(0, torch.tensor([5, 6, 7]))], COMPUTE.row_tokens)
    with torch.no_grad():
        vision = encode_vision(policy, batch.pictures)
        warm = row_logps(policy, row, RowContext(vision, COMPUTE, 2.0))
        plain = row_logps(policy, row, RowContext(vision, COMPUTE))
    assert not torch.allclose(warm, plain, atol=1e-3)
