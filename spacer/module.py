"""The LightningModules that join data, model, rewards and objective."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from spacer.data.processing import PromptBatch
from spacer.modeling import completion_logps, embed
from spacer.objective import (
    PolicyBatch,
    group_advantages,
    group_stats,
    policy_loss,
    zero_variance,
)
from spacer.rewards import RewardParts, score_group
from spacer.rollout import Decoding, Rollout, sample
from spacer.settings import ObjectiveSettings, OptimizerSettings, RewardSettings, Schedule

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


def configure_adamw(
    module: pl.LightningModule, settings: OptimizerSettings, total_steps: int | None
) -> Mapping[str, Any]:
    """AdamW over the trainable parameters; linear warm-up, then the schedule over the rest of `total_steps`.

    The steps are told, not asked of `Trainer.estimated_stepping_batches`: that sets the loader up before a resumed run
    has restored where it stands.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == Schedule.constant or total_steps is None:
            return 1.0
        done = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def no_loss(module: pl.LightningModule) -> Tensor:
    """Zero, with a gradient of zero for every parameter: a batch without a readable sample still takes part in DDP."""
    return sum((p.sum() * 0.0 for p in module.parameters() if p.requires_grad), torch.zeros((), device=module.device))


class SftModule(pl.LightningModule):
    """Supervised training on worked completions; the prompt bears no loss."""

    def __init__(self, policy: Any, optimizer: OptimizerSettings, total_steps: int | None) -> None:
        super().__init__()
        self.policy = policy
        self._optimizer = optimizer
        self._total_steps = total_steps

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """Mean negative log-likelihood of the batch's target tokens."""
        if not batch.samples:
            return no_loss(self)
        assert batch.targets_BC is not None and batch.target_mask_BC is not None
        logp_BC = completion_logps(
            self.policy,
            embed(self.policy, batch),
            batch.mask_BL,
            batch.positions_3BL,
            batch.targets_BC,
            batch.target_mask_BC,
        )
        loss = -(logp_BC * batch.target_mask_BC).sum() / batch.target_mask_BC.sum()
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.samples))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW as `stage.optimizer` says."""
        return configure_adamw(self, self._optimizer, self._total_steps)


@dataclass(frozen=True)
class ScoredRollout:
    """The completions of a batch of prompts with what the objective needs of them. B = N·G, group by group."""

    rollout: Rollout
    parts: tuple[RewardParts, ...]
    advantages_B: Tensor
    zero_variance_B: Tensor
    ref_logp_BC: Tensor | None
    old_logp_BC: Tensor | None


class GrpoModule(pl.LightningModule):
    """Group-relative policy optimisation (spec: SG-RLVR): sample a group a prompt, score it, take a step.

    Departures from the released trainer: a video goes through the vision tower once for its group, not G times; frame
    times are kept in training; a forward that fails is an error, not a step without vision.

    `reference` is the frozen model that the KL is taken to; None where beta is 0, or where the policy has adapters that
    can be switched off.
    """

    def __init__(
        self,
        policy: Any,
        reference: Any | None,
        processor: Qwen2_5_VLProcessor,
        objective: ObjectiveSettings,
        reward: RewardSettings,
        optimizer: OptimizerSettings,
        total_steps: int | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.reference = reference
        self.strict_loading = False  # checkpoints leave the reference out, see on_save_checkpoint
        self.last_rollout: tuple[PromptBatch, ScoredRollout] | None = None  # for callbacks that show it
        self._processor = processor
        self._objective = objective
        self._reward = reward
        self._optimizer = optimizer
        self._total_steps = total_steps
        self._seed = seed
        self._held: dict[int, ScoredRollout] = {}  # rollouts that further updates are taken from

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The policy loss of the batch's groups."""
        if not batch.samples:
            return no_loss(self)
        embeds_NLH = embed(self.policy, batch)
        slot = batch_idx % self.trainer.accumulate_grad_batches
        if batch.reuse == 0:
            self._held[slot] = self._roll_out(batch, embeds_NLH.detach(), batch_idx)
            self.last_rollout = (batch, self._held[slot])
        scored = self._held[slot]
        logp_BC = self._logps(self.policy, embeds_NLH, batch, scored.rollout)
        loss = policy_loss(
            PolicyBatch(
                logp_BC=logp_BC,
                advantages_B=scored.advantages_B,
                mask_BC=scored.rollout.mask_BC,
                old_logp_BC=scored.old_logp_BC,
                ref_logp_BC=scored.ref_logp_BC,
                truncated_B=scored.rollout.truncated_B,
                zero_variance_B=scored.zero_variance_B,
            ),
            self._objective,
        )
        if batch.reuse == 0 and self._objective.updates_per_rollout > 1:
            # the policy that sampled is the policy of this first update
            self._held[slot] = replace(scored, old_logp_BC=logp_BC.detach())
        self._log(batch, scored, loss.metrics)
        return loss.loss

    def configure_optimizers(self) -> Any:
        """AdamW as `stage.optimizer` says."""
        return configure_adamw(self, self._optimizer, self._total_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen reference out: it is where training began, and is loaded from there."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith("reference.")}

    def _roll_out(self, batch: PromptBatch, embeds_NLH: Tensor, batch_idx: int) -> ScoredRollout:
        group = self._objective.group_size
        rollout = self._sample(batch, embeds_NLH, group, batch_idx, use=0)
        shuffled_texts: list[tuple[str, ...] | None] = [None] * len(batch.samples)
        if self._reward.temporal is not None and batch.shuffled_video_pixels is not None:
            mixed = batch.shuffled()
            with torch.no_grad():
                shuffled = self._sample(mixed, embed(self.policy, mixed), group // 2, batch_idx, use=1)
            for n, item in enumerate(batch.samples):
                if item.data_type == "video":
                    shuffled_texts[n] = shuffled.texts[n * (group // 2) : (n + 1) * (group // 2)]
        parts: list[RewardParts] = []
        lengths = rollout.lengths
        for n, item in enumerate(batch.samples):
            rows = slice(n * group, (n + 1) * group)
            parts += score_group(
                rollout.texts[rows],
                lengths[rows],
                solution=item.solution,
                problem_type=item.problem_type,
                true_map=item.true_map,
                settings=self._reward,
                shuffled_completions=shuffled_texts[n],
            )
        rewards_NG = torch.tensor([part.total for part in parts], device=self.device).view(-1, group)
        advantages_NG = group_advantages(rewards_NG, kind=self._objective.advantage, eps=self._objective.advantage_eps)
        reference_logps = self._reference_logps(batch, rollout) if self._objective.beta else None
        return ScoredRollout(
            rollout=rollout,
            parts=tuple(parts),
            advantages_B=advantages_NG.flatten(),
            zero_variance_B=zero_variance(rewards_NG),
            ref_logp_BC=reference_logps,
            old_logp_BC=None,
        )

    def _sample(self, batch: PromptBatch, embeds_NLH: Tensor, group: int, batch_idx: int, use: int) -> Rollout:
        words = [self._seed, self.global_rank, self.current_epoch, batch_idx, use]
        return sample(
            self.policy,
            self._processor,
            embeds_NLH.repeat_interleave(group, 0),
            batch.mask_BL.repeat_interleave(group, 0),
            batch.positions_3BL.repeat_interleave(group, 1),
            Decoding(self._objective.temperature, self._objective.top_p, self._objective.max_completion_length),
            seed=int(np.random.SeedSequence(words).generate_state(1)[0]),
        )

    def _logps(self, model: Any, embeds_NLH: Tensor, batch: PromptBatch, rollout: Rollout) -> Tensor:
        group = self._objective.group_size
        return completion_logps(
            model,
            embeds_NLH.repeat_interleave(group, 0),
            batch.mask_BL.repeat_interleave(group, 0),
            batch.positions_3BL.repeat_interleave(group, 1),
            rollout.ids_BC,
            rollout.mask_BC,
        )

    @torch.no_grad()
    def _reference_logps(self, batch: PromptBatch, rollout: Rollout) -> Tensor:
        with self._as_reference() as model:
            return self._logps(model, embed(model, batch), batch, rollout)

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[Any]:
        if self.reference is not None:
            yield self.reference
        else:
            with self.policy.disable_adapter():
                yield self.policy

    def _log(self, batch: PromptBatch, scored: ScoredRollout, objective: Mapping[str, Tensor]) -> None:
        if batch.reuse == 0:
            self.log_dict(rollout_metrics(scored, self._objective.group_size), batch_size=len(batch.samples))
            shown: dict[str, Any] = {
                "reward": float(np.mean([part.total for part in scored.parts])),
                "map": float(np.mean([part.map_quality for part in scored.parts])),
                "length": objective["completion_length_mean"],
            }
            self.log_dict(shown, prog_bar=True, logger=False, batch_size=len(batch.samples))
        renamed = {f"objective/{name}": value for name, value in objective.items() if name != "kl"}
        if "kl" in objective:
            self.log("kl", objective["kl"], prog_bar=True, batch_size=len(batch.samples))
        self.log_dict(renamed, batch_size=len(batch.samples))


def rollout_metrics(scored: ScoredRollout, group: int) -> dict[str, Tensor | float]:
    """What is logged of a rollout: the reward, its spread and its parts; maps; groups all right and all wrong."""
    parts = scored.parts
    rewards_NG = torch.tensor([part.total for part in parts]).view(-1, group)
    answers_NG = torch.tensor([part.answer for part in parts]).view(-1, group)
    stats = group_stats(rewards_NG, answers_NG)
    metrics: dict[str, Tensor | float] = {
        f"reward/{name}": float(np.mean([getattr(part, name) for part in parts]))
        for name in ("total", "answer", "map", "format", "length", "temporal")
    }
    metrics |= {f"rollout/{name}": value for name, value in stats.items()}
    metrics["map/drawn"] = float(np.mean([part.drawn for part in parts]))
    metrics["map/quality"] = float(np.mean([part.map_quality for part in parts]))
    metrics["completion/length"] = float(np.mean(scored.rollout.lengths))
    metrics["completion/truncated"] = float(scored.rollout.truncated_B.float().mean())
    return metrics
