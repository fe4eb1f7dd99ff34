"""Random trees against the plain computation: log-probabilities and the gradient of every parameter."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from spacer.attention.blocks import Blocks
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.logps import row_logps
from spacer.models.vision import encode_vision
from spacer.tree.forest import Completion
from spacer.tree.packing import pack
from tests.parity.families import EOS, FAMILIES, exact, make, make_prompts, plain_logps

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest entry
kinds = st.sampled_from(["video", "image", "images", "mixed", "text"])
media = st.lists(st.tuples(kinds, st.integers(1, 4)), min_size=1, max_size=3)  # what is shown, questions about it
patient = hypothesis_settings(deadline=None, max_examples=40)


@functools.cache
def model_of(family: str, dtype: torch.dtype) -> Any:
    return make(family, dtype)


@pytest.fixture(autouse=True)
def throughout(family: str) -> Iterator[None]:
    with exact(model_of(family, torch.float64)):
        yield


def drawn(
    family: str, model: Any, shown: list[tuple[str, int]], group: int, seed: int, dtype: torch.dtype
) -> tuple[PromptBatch, list[Prompt], list[Completion]]:
    """A batch of questions in random order, each with `group` completions of 1 to 9 tokens, some ended early."""
    rng = np.random.default_rng(seed)
    prompts = [prompt for kind, count in shown for prompt in make_prompts(family, model, rng, kind, count, dtype)]
    prompts = [prompts[i] for i in rng.permutation(len(prompts))]
    completions = []
    for n in range(len(prompts)):
        for _ in range(group):
            ids = torch.from_numpy(rng.integers(0, 50, rng.integers(1, 10)))
            if rng.random() < 0.5:
                ids[-1] = EOS
            completions.append(Completion(n, ids))
    return collate(prompts), prompts, completions


def tree_logps(
    model: Any, batch: PromptBatch, completions: list[Completion], compute: ComputeOptions
) -> dict[int, Tensor]:
    vision = encode_vision(model, batch.pictures)
    found = {}
    for row in pack(batch.forest, completions, compute.row_tokens):
        logp_BC = row.unpack(row_logps(model, row, RowContext(vision, compute)))
        for owner, place in enumerate(row.completions):
            found[place] = logp_BC[owner, : len(completions[place].ids_C)]
    return found


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, id=str(dtype), marks=[] if dtype == torch.float64 else [pytest.mark.long])
        for dtype in TOLERANCE
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
@patient
@given(
    shown=media, group=st.integers(1, 4), budget=st.sampled_from([1, 40, 90, 10_000]), seed=st.integers(0, 2**32 - 1)
)
def test_log_probabilities_and_gradients_equal_the_plain_ones(
    family: str, dtype: torch.dtype, shown: list[tuple[str, int]], group: int, budget: int, seed: int
) -> None:
    model = model_of(family, dtype)
    batch, prompts, completions = drawn(family, model, shown, group, seed, dtype)
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(completions), 9))).to(dtype)

    found = tree_logps(model, batch, completions, ComputeOptions("blocks", budget))
    in_tree = gradients(model, sum((found[i] * weights[i, : len(found[i])]).sum() for i in found))
    expected = [plain_logps(model, prompts[c.prompt], c.ids_C) for c in completions]
    plain = gradients(model, sum((logp * weights[i, : len(logp)]).sum() for i, logp in enumerate(expected)))

    assert found.keys() == set(range(len(completions)))
    for i, logp in enumerate(expected):
        torch.testing.assert_close(found[i], logp, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert in_tree.keys() == plain.keys()
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        assert float((in_tree[name] - gradient).abs().max()) <= TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("family", FAMILIES)
def test_long_segments_and_every_way_to_attend_agree(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family, torch.float64)
    batch, prompts, completions = drawn(
        family, model, [("video", 3), ("images", 2), ("text", 1)], 3, seed=5, dtype=torch.float64
    )
    expected = torch.cat([plain_logps(model, prompts[c.prompt], c.ids_C) for c in completions])
    plain = gradients(model, expected.sin().sum())
    for attention, alone in (("blocks", 1), ("blocks", 6), ("blocks", 10_000), ("masked", 0), ("flex", 0)):
        monkeypatch.setattr(Blocks, "ALONE", alone)
        with torch.set_grad_enabled(attention == "blocks"):
            found = tree_logps(model, batch, completions, ComputeOptions(attention, 10_000))
        together = torch.cat([found[i] for i in range(len(completions))])
        torch.testing.assert_close(together, expected, rtol=1e-9, atol=1e-9, msg=f"{attention} {alone}")
        if attention == "blocks":
            for name, gradient in gradients(model, together.sin().sum()).items():
                torch.testing.assert_close(gradient, plain[name], rtol=1e-7, atol=1e-9, msg=f"{name} {alone}")


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_and_positions_matter_to_the_models(family: str) -> None:
    """The parity above would be empty if these models ignored what they see."""
    model = model_of(family, torch.float64)
    _, prompts, completions = drawn(family, model, [("video", 1), ("image", 1)], 1, seed=3, dtype=torch.float64)
    with torch.no_grad():
        expected = [plain_logps(model, prompts[c.prompt], c.ids_C) for c in completions]
        for n, prompt in enumerate(prompts):
            assert prompt.pixels_PD is not None
            blind = replace(prompt, pixels_PD=prompt.pixels_PD.flip(0) * 2)
            moved = replace(prompt, positions_3L=torch.arange(len(prompt.ids_L)).expand(3, -1) * 3)
            for other in (blind, moved):
                changed = plain_logps(model, other, completions[n].ids_C)
                assert float((changed - expected[n]).abs().max()) > 1e-3
