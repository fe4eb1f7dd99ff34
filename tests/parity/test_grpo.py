"""A training step against the plain computation: one completion at a time, pixels and all, loops over tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import attrs
import pytest
import pytorch_lightning as pl
import torch
from transformers import AutoModelForImageTextToText

from spacer.config.settings import ObjectiveSettings, RewardSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.models.forward import ComputeOptions
from spacer.models.load import load_policy, load_reference
from spacer.models.probe import probe_model
from spacer.rewards import Scorer
from spacer.training.grpo import GrpoModule
from spacer.training.lessons import ScoredRollout
from spacer.training.tree_module import Training
from tests.parity.conftest import composed, prompts_of

GROUP = 4


@dataclass
class Repeated:
    """A loader that gives one batch so many times; Lightning would take a list for a list of loaders."""

    batch: PromptBatch
    times: int

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter([self.batch] * self.times)


class Capture(pl.Callback):
    """Keeps the gradients of the last step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def naive_positions(ids: list[int], video_token: int) -> torch.Tensor:
    """3 x 1 x L, worked out for the videos of this test: 4 steps of 4 x 4 tokens, 1 s apart, 2 positions a second."""
    rows: list[tuple[int, int, int]] = []
    seen = start = 0
    for token in ids:
        after = max((max(row) for row in rows), default=-1) + 1
        if token == video_token:
            start = after if seen == 0 else start
            rows.append((start + 2 * (seen // 16), start + seen % 16 // 4, start + seen % 4))
            seen += 1
        else:
            rows.append((after, after, after))
    assert seen == 64
    return torch.tensor(rows).T[:, None]


def naive_logps(model: Any, prompt: Prompt, completion: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of one completion: pixels and ids of the whole row through transformers' own forward."""
    ids = torch.cat([prompt.ids_L, completion])[None]
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=prompt.pixels_PD.to(model.dtype),
        video_grid_thw=prompt.grid_thw,
        position_ids=naive_positions(ids[0].tolist(), model.config.video_token_id),
    ).logits[0]
    start = len(prompt.ids_L)
    rows = [logits[start + t - 1].log_softmax(-1)[token] for t, token in enumerate(completion.tolist())]
    return torch.stack(rows)


def naive_loss(
    policy: Any,
    reference: Any,
    prompts: list[Prompt],
    scored: ScoredRollout,
    objective: ObjectiveSettings,
    on_policy: bool = True,
) -> torch.Tensor:
    """The published loss (spec, group-relative policy optimisation), in loops."""
    group = objective.group_size
    per_completion, token_count, kept = [], 0, 0
    for n, prompt in enumerate(prompts):
        rewards = [part.total for part in scored.parts[n * group : (n + 1) * group]]
        mean = sum(rewards) / group
        spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (group - 1))
        for g in range(group):
            if objective.drop_zero_variance and max(rewards) == min(rewards):
                continue
            i = n * group + g
            ids = scored.rollout.ids_BC[i][scored.rollout.mask_BC[i]]
            if objective.mask_truncated and bool(scored.rollout.truncated_B[i]):
                continue
            advantage = rewards[g] - mean
            if objective.advantage == "std":
                advantage /= spread + objective.advantage_eps
            new = naive_logps(policy, prompt, ids)
            old = new.detach() if on_policy else scored.rollout.logp_BC[i][: len(ids)]
            total: Any = 0.0
            log_ratio = (new - old).mean() if objective.ratio == "sequence" else None
            with torch.no_grad():
                ref = naive_logps(reference, prompt, ids) if objective.beta else None
            for t in range(len(ids)):
                ratio = torch.exp(log_ratio if log_ratio is not None else new[t] - old[t])
                gain = ratio * advantage
                if objective.clip_low is not None and objective.clip_high is not None:
                    gain = torch.min(gain, ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high) * advantage)
                total = total + gain
                if ref is not None:
                    d = (ref[t] - new[t]).clamp(-objective.kl_clamp, objective.kl_clamp)
                    total = total - objective.beta * (torch.exp(d) - d - 1)
            kept += 1
            token_count += len(ids)
            if objective.loss_mean == "completion":
                total = total / len(ids)
            elif objective.loss_mean == "budget":
                total = total / objective.max_completion_length
            per_completion.append(-total)
    summed = torch.stack(per_completion).sum()
    return summed / (token_count if objective.loss_mean == "token" else kept)


@pytest.fixture(scope="module")
def batch(dataset: PromptDataset) -> tuple[PromptBatch, list[Prompt]]:
    """Prompts of unequal length, two of them about one video, in float64."""
    prompts = prompts_of(dataset, 0, 5, 1)
    assert len({len(p.ids_L) for p in prompts}) > 1
    joined = collate(prompts)
    assert joined.pictures.video_pixels is not None
    doubled = replace(joined.pictures, video_pixels=joined.pictures.video_pixels.double())
    return attrs.evolve(joined, pictures=doubled), prompts


@pytest.mark.parametrize(
    ("objective", "budget"),
    [
        *(("grpo", 16_384), ("gspo", 16_384), ("ppo_clip", 700)),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("grpo", 1), ("dr_grpo", 300), ("dapo", 500))),
    ],
)
def test_gradient_of_a_step_equals_the_naive_one(
    settings: Settings, batch: tuple[PromptBatch, list[Prompt]], objective: str, budget: int
) -> None:
    chosen = composed(f"objective={objective}", f"objective.group_size={GROUP}").objective
    chosen = replace(chosen, max_completion_length=64, updates_per_rollout=1)  # some completions are cut
    model = replace(settings.model, dtype="float64")
    policy, reference = load_policy(model), load_reference(model)
    with torch.no_grad():  # so that the KL is not zero
        for parameter in reference.parameters():
            parameter.mul_(1.02)
    assert settings.stage.optimizer is not None
    module = GrpoModule(
        policy,
        reference,
        probe_model(model),
        chosen,
        Scorer(RewardSettings()),
        ComputeOptions("blocks", budget),
        Training(settings.stage.optimizer, 1),
        seed=3,
    )
    before = AutoModelForImageTextToText.from_pretrained(model.name_or_path, dtype=torch.float64)
    capture = Capture()
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=1,
        precision="64-true",
        callbacks=[capture],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Repeated(batch[0], 1))
    assert module.last_rollout is not None
    scored = module.last_rollout[1]
    assert len({part.total for part in scored.parts}) > 1

    naive_loss(before, reference, batch[1], scored, chosen).backward()
    naive = {name: p.grad for name, p in before.named_parameters() if p.grad is not None}
    assert naive.keys() == capture.gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in naive.values())
    assert largest > 1e-6
    for name, gradient in naive.items():
        # rewards and advantages are float32: entries that nearly cancel carry their rounding
        error = float((capture.gradients[name] - gradient).abs().max())
        assert error <= 5e-7 * largest, (name, error, largest)
