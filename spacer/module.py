"""The LightningModules that join data, model, rewards and objective."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from spacer.data.processing import PromptBatch
from spacer.modeling import Packing, Vision, encode_vision, plain, row_logps
from spacer.objective import (
    PolicyBatch,
    group_advantages,
    group_stats,
    kept_completions,
    loss_denominator,
    policy_loss,
    zero_variance,
)
from spacer.optimizer import allow_states, check_trained, configure_adamw, without_frozen
from spacer.rewards import RewardParts, score_group
from spacer.rollout import Decoding, Rollout, sample
from spacer.selfcheck import FirstBatchCheck
from spacer.settings import ObjectiveSettings, OptimizerSettings, RewardSettings
from spacer.tree import Completion, PackedRow, pack

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Training:
    """How the modules train: the optimiser, its steps in all, how they are gathered, and whether trees are checked.

    `accumulate` batches make a step; gradients are clipped to a norm of `clip`, None for no bound.
    """

    optimizer: OptimizerSettings
    total_steps: int | None = None
    accumulate: int = 1
    clip: float | None = None
    self_check: bool = True


class TreeModule(pl.LightningModule):
    """Training on prefix trees, row by row.

    Lightning's automatic optimisation knows one backward pass a step. Here a batch has one for each packed row, so that
    only one row is in memory, and one for the vision tower, whose features all rows share; hence the manual one.
    """

    def __init__(self, policy: Any, packing: Packing, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # see on_save_checkpoint
        self.policy = policy
        self.packing = packing
        self.training_plan = training
        self.check = FirstBatchCheck(training.self_check)
        allow_states(training.optimizer.kind)  # Lightning reads a checkpoint before it asks for the optimiser

    def configure_optimizers(self) -> Any:
        """AdamW as `stage.optimizer` says."""
        return configure_adamw(self, self.training_plan.optimizer, self.training_plan.total_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what training changes: not the reference, nor what is frozen, which are loaded from where it began."""
        checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """UserError where the checkpoint lacks what is trained."""
        check_trained(self, checkpoint["state_dict"])

    def see(self, batch: PromptBatch) -> Vision:
        """The policy's vision features of the batch."""
        return encode_vision(self.policy, batch.pictures, self.packing.vision_again)

    def backward_rows(
        self,
        vision: Vision,
        rows: Sequence[PackedRow],
        loss_of: Callable[[PackedRow, Tensor], Tensor],
        temperature: float = 1.0,
    ) -> None:
        """Adds the gradient of Σ loss_of(row, its predicted tokens' log-probabilities) over the rows of a batch."""
        shared = vision.detach()
        for row in rows:
            logp_N = row_logps(self.policy, row, shared, self.packing, temperature)
            self.manual_backward(loss_of(row, logp_N) / self.training_plan.accumulate)
        through = [
            (x * g.grad).sum() for x, g in zip(vision.tensors, shared.tensors, strict=True) if g.grad is not None
        ]
        if through:
            self.manual_backward(torch.stack(through).sum())  # its gradient is what the rows sent to the features

    def steps_now(self, batch_idx: int) -> bool:
        """Whether enough batches have been gathered for an optimiser step. What is logged is of these batches."""
        return (batch_idx + 1) % self.training_plan.accumulate == 0

    def log_step(self) -> None:
        """Makes the coming optimiser step the one that metrics are logged for; Lightning would count batches."""
        self.log("step", float(self.trainer.global_step))

    def step(self, batch_idx: int) -> None:
        """An optimiser step where it is time for one."""
        if not self.steps_now(batch_idx):
            return
        optimizer: Any = self.optimizers()
        if self.training_plan.clip is not None:
            self.clip_gradients(optimizer, self.training_plan.clip, "norm")
        optimizer.step()
        # autocast keeps 16-bit copies of weights until its context ends, which is after the last of several steps
        torch.clear_autocast_cache()
        optimizer.zero_grad()
        scheduler: Any = self.lr_schedulers()
        scheduler.step()


class SftModule(TreeModule):
    """Supervised training on worked completions; the prompt bears no loss."""

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """A step down the mean negative log-likelihood of the batch's target tokens."""
        if batch.samples:
            assert batch.targets is not None
            completions = [Completion(n, target) for n, target in enumerate(batch.targets)]
            tokens = sum(len(target) for target in batch.targets)
            losses: list[Tensor] = []

            def loss_of(row: PackedRow, logp_N: Tensor) -> Tensor:
                losses.append(-logp_N.sum() / tokens)
                return losses[-1]

            vision = self.see(batch)
            self.check(self.policy, batch, vision, completions, self.packing)
            self.backward_rows(vision, pack(batch.forest, completions, self.packing.row_tokens), loss_of)
            if self.steps_now(batch_idx):
                self.log_step()
                loss = torch.stack([part.detach() for part in losses]).sum()
                self.log("loss", loss, prog_bar=True, batch_size=len(batch.samples))
        self.step(batch_idx)


@dataclass(frozen=True)
class ScoredRollout:
    """The completions of a batch of prompts with what the objective needs of them. B = N·G, group by group.

    `rows` are the batch's trees, laid out for reference and policy alike.
    """

    rollout: Rollout
    rows: tuple[PackedRow, ...]
    parts: tuple[RewardParts, ...]
    advantages_B: Tensor
    zero_variance_B: Tensor
    ref_logp_BC: Tensor | None


class GrpoModule(TreeModule):
    """Group-relative policy optimisation (spec: SG-RLVR): sample a group a prompt, score it, take a step.

    Departures from the released trainer: prompts, completions and videos are computed as trees, once each; frame times
    are kept in training; a forward that fails is an error, not a step without vision; log-probabilities are taken at
    the temperature that completions are sampled at (1 as published).

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
        packing: Packing,
        training: Training,
        seed: int,
    ) -> None:
        super().__init__(policy, packing, training)
        self.reference = reference
        self.last_rollout: tuple[PromptBatch, ScoredRollout] | None = None  # for callbacks that show it
        self._processor = processor
        self._objective = objective
        self._reward = reward
        self._seed = seed
        # adapters are on the language model alone
        self._sees_alike = not any(p.requires_grad for p in plain(policy).model.visual.parameters())

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Rolls out the batch's prompts, scores them, and takes a step, or several, on the completions."""
        if not batch.samples:
            self.step(batch_idx)
            return
        vision = self.see(batch)
        scored = self._roll_out(batch, vision.detach(), batch_idx)
        self.last_rollout = (batch, scored)
        if self.steps_now(batch_idx):
            self.log_step()
            self._log_rollout(batch, scored)
        metrics: list[Mapping[str, Tensor]] = []
        for update in range(self._objective.updates_per_rollout):
            if update:
                if self.trainer.global_step == self.trainer.max_steps:
                    break
                vision = self.see(batch)
            metrics.append(self._backward(vision, scored, update))
            self.step(batch_idx)
        if self.steps_now(batch_idx):
            self._log_objective(batch, metrics)

    def _backward(self, vision: Vision, scored: ScoredRollout, update: int) -> Mapping[str, Tensor]:
        """The gradient of the policy loss of all groups, and its metrics: means over completions, as of one row."""
        rollout = scored.rollout
        kept_B = kept_completions(
            rollout.mask_BC,
            self._objective,
            truncated_B=rollout.truncated_B,
            zero_variance_B=scored.zero_variance_B,
        )
        denominator = loss_denominator(rollout.mask_BC, kept_B, self._objective)
        metrics: list[dict[str, Tensor]] = []

        def loss_of(row: PackedRow, logp_N: Tensor) -> Tensor:
            logp_BC = row.unpack(logp_N)
            rows, width = list(row.completions), logp_BC.shape[1]
            found = policy_loss(
                PolicyBatch(
                    logp_BC=logp_BC,
                    advantages_B=scored.advantages_B[rows],
                    mask_BC=rollout.mask_BC[rows, :width],
                    # the policy that sampled is the policy of the first update: its ratio is 1
                    old_logp_BC=rollout.logp_BC[rows, :width] if update else None,
                    ref_logp_BC=None if scored.ref_logp_BC is None else scored.ref_logp_BC[rows, :width],
                    truncated_B=rollout.truncated_B[rows],
                    zero_variance_B=scored.zero_variance_B[rows],
                ),
                self._objective,
                denominator,
            )
            metrics.append({name: value * len(rows) / len(kept_B) for name, value in found.metrics.items()})
            if not update:
                drift = (logp_BC.detach() - rollout.logp_BC[rows, :width]).abs() * rollout.mask_BC[rows, :width]
                metrics[-1]["sampling_drift"] = drift.sum() / rollout.mask_BC.sum()
            return found.loss

        self.backward_rows(vision, scored.rows, loss_of, self._objective.temperature)
        return {name: torch.stack([part[name] for part in metrics]).sum() for name in metrics[0]}

    def _roll_out(self, batch: PromptBatch, vision: Vision, batch_idx: int) -> ScoredRollout:
        group = self._objective.group_size
        rollout = self._sample(batch, vision, group, batch_idx, use=0)
        completions = rollout.completions(group)
        self.check(self.policy, batch, vision, completions, self.packing)
        rows = tuple(pack(batch.forest, completions, self.packing.row_tokens))
        shuffled_texts: list[tuple[str, ...] | None] = [None] * len(batch.samples)
        if self._reward.temporal is not None and batch.shuffled_video_pixels is not None:
            with torch.no_grad():
                mixed = encode_vision(self.policy, batch.shuffled())
            shuffled = self._sample(batch, mixed, group // 2, batch_idx, use=1)
            for n, item in enumerate(batch.samples):
                if item.data_type == "video":
                    shuffled_texts[n] = shuffled.texts[n * (group // 2) : (n + 1) * (group // 2)]
        parts: list[RewardParts] = []
        lengths = rollout.lengths
        for n, item in enumerate(batch.samples):
            mine = slice(n * group, (n + 1) * group)
            parts += score_group(
                rollout.texts[mine],
                lengths[mine],
                solution=item.solution,
                problem_type=item.problem_type,
                true_map=item.true_map,
                settings=self._reward,
                shuffled_completions=shuffled_texts[n],
            )
        rewards_NG = torch.tensor([part.total for part in parts], device=self.device).view(-1, group)
        advantages_NG = group_advantages(rewards_NG, kind=self._objective.advantage, eps=self._objective.advantage_eps)
        return ScoredRollout(
            rollout=rollout,
            rows=rows,
            parts=tuple(parts),
            advantages_B=advantages_NG.flatten(),
            zero_variance_B=zero_variance(rewards_NG),
            ref_logp_BC=self._reference_logps(batch, vision, rollout, rows) if self._objective.beta else None,
        )

    def _sample(self, batch: PromptBatch, vision: Vision, group: int, batch_idx: int, use: int) -> Rollout:
        words = [self._seed, self.global_rank, self.current_epoch, batch_idx, use]
        return sample(
            self.policy,
            self._processor,
            batch.forest,
            vision,
            self.packing,
            Decoding(self._objective.temperature, self._objective.top_p, self._objective.max_completion_length),
            seeds=[[*words, i] for i in range(len(batch.samples) * group)],
        )

    @torch.no_grad()
    def _reference_logps(
        self, batch: PromptBatch, vision: Vision, rollout: Rollout, rows: Sequence[PackedRow]
    ) -> Tensor:
        logp_BC = torch.zeros_like(rollout.logp_BC)
        with self._as_reference() as model:
            seen = vision if self._sees_alike else encode_vision(model, batch.pictures)
            for row in rows:
                found = row.unpack(row_logps(model, row, seen, self.packing, self._objective.temperature))
                logp_BC[list(row.completions), : found.shape[1]] = found.to(logp_BC.dtype)
        return logp_BC

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[Any]:
        if self.reference is not None:
            yield self.reference
        else:
            with self.policy.disable_adapter():
                yield self.policy

    def _log_rollout(self, batch: PromptBatch, scored: ScoredRollout) -> None:
        self.log_dict(rollout_metrics(scored, self._objective.group_size), batch_size=len(batch.samples))
        shown: dict[str, Any] = {
            "reward": float(np.mean([part.total for part in scored.parts])),
            "map": float(np.mean([part.map_quality for part in scored.parts])),
            "length": float(np.mean(scored.rollout.lengths)),
        }
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=len(batch.samples))

    def _log_objective(self, batch: PromptBatch, updates: Sequence[Mapping[str, Tensor]]) -> None:
        """Logs the metrics of a rollout's updates: their mean, and of the sampling drift the first, the only one."""
        metrics = {name: torch.stack([found[name] for found in updates if name in found]).mean() for name in updates[0]}
        renamed = {f"objective/{name}": value for name, value in metrics.items() if name != "kl"}
        if "kl" in metrics:
            self.log("kl", metrics["kl"], prog_bar=True, batch_size=len(batch.samples))
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
