"""Packed rows on a CUDA device: against the plain computation in float64 on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spacer.attention.interface import WINDOWS
from spacer.models.forward import ComputeOptions
from spacer.models.selfcheck import LIMITS
from spacer.models.vision import encode_vision
from spacer.tree.forest import Completion
from tests.parity.families import FAMILIES, make, plain_logps
from tests.parity.test_tree import drawn, gradients, tree_logps

HEAD_DIM = 32  # FlexAttention takes no less than 16
# what is shown, and questions about it: rows of several lengths, through one compiled kernel
SHOWN = ([("video", 3), ("text", 1)], [("images", 2), ("image", 1), ("text", 2)], [("video", 1)], [("text", 1)])


def joined(found: dict[int, Tensor], completions: list[Completion]) -> Tensor:
    return torch.cat([found[i] for i in range(len(completions))])


def near(found: Tensor, expected: Tensor, share: float, what: str) -> None:
    """Within a share of the largest entry."""
    difference = float((found.detach().cpu().double() - expected).abs().max())
    largest = float(expected.abs().max())
    assert difference <= share * largest + 1e-12, f"{what}: off by {difference:.2e}, where {largest:.2e} is the largest"


@pytest.mark.parametrize("budget", [60, 10_000])
@pytest.mark.parametrize("attention", ["flex", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_are_the_plain_ones(
    family: str, attention: str, budget: int, device: torch.device
) -> None:
    reference: Any = make(family, head_dim=HEAD_DIM)
    model = make(family, torch.float32, HEAD_DIM).to(device)
    for seed, shown in enumerate(SHOWN):
        batch, prompts, completions = drawn(family, reference, shown, 3, seed, torch.float64)
        expected = torch.cat([plain_logps(reference, prompts[c.prompt], c.ids_C) for c in completions])
        wanted = gradients(reference, expected.sin().sum())
        found = joined(tree_logps(model, batch.to(device), completions, ComputeOptions(attention, budget)), completions)
        near(found, expected.detach(), 1e-4, "log-probabilities")
        for name, gradient in gradients(model, found.sin().sum()).items():
            near(gradient, wanted[name], 1e-4, name)


@pytest.mark.parametrize("attention", ["flex", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_stays_near(family: str, attention: str, device: torch.device) -> None:
    reference: Any = make(family, head_dim=HEAD_DIM)
    model = make(family, torch.float32, HEAD_DIM).to(device)
    batch, prompts, completions = drawn(family, reference, SHOWN[0], 4, 5, torch.float64)
    with torch.no_grad():
        expected = torch.cat([plain_logps(reference, prompts[c.prompt], c.ids_C) for c in completions])
    with torch.autocast("cuda", torch.bfloat16):
        found = joined(tree_logps(model, batch.to(device), completions, ComputeOptions(attention, 10_000)), completions)
    assert float((found.detach().cpu() - expected).abs().mean()) < LIMITS[torch.bfloat16]
    for name, gradient in gradients(model, found.sin().sum()).items():
        assert bool(gradient.isfinite().all()), name


@pytest.mark.parametrize("tower", [WINDOWS, "flash_attention_2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_look_alike_whatever_the_tower_attends_with(family: str, tower: str, device: torch.device) -> None:
    """In bfloat16, features and their gradient, against PyTorch's attention in float32."""
    if tower == "flash_attention_2":
        pytest.importorskip("flash_attn")
    seen = []
    for dtype, attention in ((torch.float32, "sdpa"), (torch.bfloat16, tower)):
        model = make(family, dtype, HEAD_DIM).to(device)
        model.set_attn_implementation({"vision_config": attention})
        batch = drawn(family, model, SHOWN[0] + SHOWN[1], 1, 3, torch.float64)[0].to(device)
        assert batch.pictures.image_pixels is not None and batch.pictures.video_pixels is not None
        features = torch.cat(encode_vision(model, batch.pictures).tensors)
        features.float().sin().sum().backward()
        weights = [p.grad for p in model.model.visual.parameters() if p.grad is not None]
        seen.append((features.detach().float(), torch.cat([w.float().flatten() for w in weights])))
    for expected, found in zip(*seen, strict=True):
        assert float((found - expected).norm()) < 0.05 * float(expected.norm())
