"""Training that goes on from what the rollout's attention came to: against the plain computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spacer import attention as attention_file
from spacer.attended import RolloutAttention
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, collate
from spacer.modeling import Packing, encode_vision, row_logps
from spacer.rollout import Decoding, sample
from spacer.selfcheck import TreeMismatch, check_tree
from spacer.settings import LoraSettings, ModelSettings, Settings
from spacer.tree import pack
from tests.parity.conftest import prompts_of
from tests.parity.families import FAMILIES, exact, make, make_prompts, plain_logps
from tests.parity.test_rollout import Words
from tests.parity.test_training import fit, grpo, training
from tests.parity.test_tree import gradients

GROUP = 3
DECODING = Decoding(temperature=1.0, top_p=0.95, max_new_tokens=40)


@pytest.mark.parametrize("budget", [60, 10_000])  # rows that cut trees, and rows of whole ones
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_are_the_plain_ones(family: str, budget: int) -> None:
    model, rng = make(family), np.random.default_rng(3)
    shown = (("video", 4), ("image", 1), ("images", 2), ("text", 1))
    prompts = [p for kind, count in shown for p in make_prompts(family, model, rng, kind, count, torch.float64)]
    batch, packing = collate(prompts), Packing("blocks", budget)
    with exact(model):
        with torch.no_grad():
            vision = encode_vision(model, batch.pictures)
        seeds = [[1, i] for i in range(len(prompts) * GROUP)]
        attended = RolloutAttention(batch.forest, len(seeds), DECODING.max_new_tokens)
        rollout = sample(model, Words(), batch.forest, vision, packing, DECODING, seeds, attended)
        completions = rollout.completions(GROUP)
        assert len(set(rollout.lengths)) > 3  # some ended before the others
        weights = torch.from_numpy(np.random.default_rng(0).normal(size=rollout.ids_BC.shape))

        found: dict[int, Tensor] = {}
        vision = encode_vision(model, batch.pictures)
        for row in pack(batch.forest, completions, budget):
            logp_BC = row.unpack(row_logps(model, row, vision, packing, known=attended.over(row)))
            for owner, place in enumerate(row.completions):
                found[place] = logp_BC[owner, : len(completions[place].ids_C)]
        expected = [plain_logps(model, prompts[c.prompt], c.ids_C) for c in completions]
        kept = gradients(model, sum((found[i] * weights[i, : len(found[i])]).sum() for i in found))
        plain = gradients(model, sum((logp * weights[i, : len(logp)]).sum() for i, logp in enumerate(expected)))

    assert found.keys() == set(range(len(completions)))
    for i, logp in enumerate(expected):
        torch.testing.assert_close(found[i], logp, rtol=1e-9, atol=1e-9)
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        assert float((kept[name] - gradient).abs().max()) <= 1e-9 * largest, name


def test_the_self_check_looks_at_what_the_rollout_attended_to() -> None:
    family = FAMILIES[0]
    model, rng = make(family, torch.float32), np.random.default_rng(3)
    prompts = make_prompts(family, model, rng, "video", 2, torch.float32)
    batch, packing = collate(prompts), Packing("blocks", 10_000)
    with torch.no_grad():
        vision = encode_vision(model, batch.pictures)
    seeds = [[1, i] for i in range(len(prompts) * GROUP)]
    attended = RolloutAttention(batch.forest, len(seeds), DECODING.max_new_tokens)
    rollout = sample(model, Words(), batch.forest, vision, packing, DECODING, seeds, attended)
    first = rollout.completions(GROUP)[:GROUP]
    assert check_tree(model, batch, vision, first, packing, attended) is not None
    others = RolloutAttention(batch.forest, len(seeds), DECODING.max_new_tokens)
    turned = replace(vision, embeds_MH=None if vision.embeds_MH is None else vision.embeds_MH.flip(0))
    sample(model, Words(), batch.forest, turned, packing, DECODING, seeds, others)
    with pytest.raises(TreeMismatch):
        check_tree(model, batch, vision, first, packing, others)


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    """Questions about two videos."""
    return prompts_of(dataset, 0, 1, 5)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a forward pass that can be differentiated attended since it was last asked."""
    attend, count = attention_file._attend_blocks, [0]

    def noted(q: Tensor, *rest: Any) -> Any:
        count[0] += q.requires_grad
        return attend(q, *rest)

    def since() -> int:
        count[0], found = 0, count[0]
        return found

    monkeypatch.setattr(attention_file, "_attend_blocks", noted)
    return since


@pytest.mark.parametrize(
    ("changes", "options", "updates", "attends"),
    [
        ({}, {}, 1, False),
        ({}, {}, 2, True),  # the second update is another policy's
        ({"lora": LoraSettings(rank=4, dropout=0.1)}, {}, 1, True),  # which acts in training alone
        ({"lora": LoraSettings(rank=4, dropout=0.0)}, {}, 1, False),
        ({}, {"precision": "bf16-mixed"}, 1, True),
    ],
)
def test_it_is_taken_where_it_is_what_training_would_come_to(
    settings: Settings,
    prompts: list[Prompt],
    changes: dict[str, Any],
    options: dict[str, Any],
    updates: int,
    attends: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: ModelSettings = replace(settings.model, **changes)
    module = grpo(settings, model, training(settings), updates_per_rollout=updates)
    since = counted(monkeypatch)
    assert fit(module, collate(prompts), **options)
    assert (since() > 0) == attends
