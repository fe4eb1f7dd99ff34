"""Group-relative policy optimisation with Lightning: data, model, rewards and objective joined."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacer import ranks
from spacer.attended import RolloutAttention
from spacer.data.processing import PromptBatch
from spacer.lanes import side_by_side
from spacer.measures import measure, rollout_metrics
from spacer.modeling import Packing, Vision, drops, encode_vision, plain, row_logps, trains_vision
from spacer.module import RowLoss, Training, TreeModule
from spacer.objective import (
    PolicyBatch,
    group_advantages,
    kept_completions,
    loss_denominator,
    policy_loss,
    zero_variance,
)
from spacer.rewards import RewardParts, score_group
from spacer.rollout import Decoding, Rollout, sample
from spacer.settings import ObjectiveSettings, RewardSettings
from spacer.sharding import gathered
from spacer.strategies import shard_for
from spacer.tree import Forest, PackedRow, pack

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


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
        self._sees_alike = not trains_vision(policy)  # adapters are on the language model alone

    def configure_model(self) -> None:
        """Spreads the models over the processes, where the strategy does."""
        shard_for(self.trainer, self.policy, *([] if self.reference is None else [self.reference]))

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Rolls out the batch's prompts, scores them, and takes a step, or several, on the completions."""
        counts = ranks.gather(len(batch.samples), self.device)
        if not sum(counts):
            self.step(batch_idx)
            return
        vision = self.see(batch)
        start = time.monotonic()
        attended = self._room_for_attention(batch.forest)
        scored = self._roll_out(batch, vision.detach(), batch_idx, sum(counts[: self.global_rank]), attended)
        self.rollout_seconds = time.monotonic() - start
        if batch.samples:
            self.last_rollout = (batch, scored)
        table = ranks.join(measure(scored.parts, scored.rollout), self.device)
        if self.steps_now(batch_idx):
            self.log_step()
            self._log_rollout(table, sum(counts))
        metrics: list[Mapping[str, Tensor]] = []
        for update in range(self._objective.updates_per_rollout):
            if update:
                if self.trainer.global_step == self.trainer.max_steps:
                    break
                vision = self.see(batch)
                attended = None  # which was another policy's
            metrics.append(self._backward(batch, vision, scored, update, attended))
            self.step(batch_idx)
        if self.steps_now(batch_idx):
            self._log_objective(sum(counts), metrics)

    def _room_for_attention(self, forest: Forest) -> RolloutAttention | None:
        """Where the rollout is to leave what its attention comes to, if the first update can go on from that: it must
        attend in blocks, with no dropout, in a precision in which both compute alike."""
        autocast = torch.is_autocast_enabled(self.device.type)
        exact = plain(self.policy).lm_head.weight.dtype.itemsize >= 4 and not autocast
        if self.packing.attention != "blocks" or drops(self.policy) or not exact:
            return None
        completions = len(forest.ends) * self._objective.group_size
        return RolloutAttention(forest, completions, self._objective.max_completion_length)

    def _backward(
        self,
        batch: PromptBatch,
        vision: Vision,
        scored: ScoredRollout,
        update: int,
        attended: RolloutAttention | None,
    ) -> Mapping[str, Tensor]:
        """The gradient of the policy loss of all groups, and its metrics: means over completions, as of one row."""
        rollout = scored.rollout
        kept_B = kept_completions(
            rollout.mask_BC,
            self._objective,
            truncated_B=rollout.truncated_B,
            zero_variance_B=scored.zero_variance_B,
        )
        # of all processes
        denominator, completions, tokens = ranks.add(
            torch.stack(
                [
                    loss_denominator(rollout.mask_BC, kept_B, self._objective),
                    rollout.mask_BC.any(1).sum().float(),
                    rollout.mask_BC.sum().float(),
                ]
            )
        )

        def loss_of(completions_B: Sequence[int], logp_BC: Tensor) -> RowLoss:
            mine, width = list(completions_B), logp_BC.shape[1]
            found = policy_loss(
                PolicyBatch(
                    logp_BC=logp_BC,
                    advantages_B=scored.advantages_B[mine],
                    mask_BC=rollout.mask_BC[mine, :width],
                    # the policy that sampled is the policy of the first update: its ratio is 1
                    old_logp_BC=rollout.logp_BC[mine, :width] if update else None,
                    ref_logp_BC=None if scored.ref_logp_BC is None else scored.ref_logp_BC[mine, :width],
                    truncated_B=rollout.truncated_B[mine],
                    zero_variance_B=scored.zero_variance_B[mine],
                ),
                self._objective,
                denominator,
            )
            logged = {name: value * len(mine) / completions for name, value in found.metrics.items()}
            logged["loss"] = found.loss.detach()
            if not update:
                drift = (logp_BC.detach() - rollout.logp_BC[mine, :width]).abs() * rollout.mask_BC[mine, :width]
                logged["sampling_drift"] = drift.sum() / tokens
            return found.loss, logged

        _, nothing = loss_of([], rollout.logp_BC[[]])  # names the metrics where this process has no completions
        parts = self.backward_rows(
            batch,
            vision,
            scored.rows,
            lambda row, logp_N: loss_of(row.completions, row.unpack(logp_N)),
            self._objective.temperature,
            attended,
        )
        totals = ranks.add(torch.stack([torch.stack(list(part.values())) for part in (nothing, *parts)]).sum(0))
        return dict(zip(nothing, totals, strict=True))

    def _roll_out(
        self, batch: PromptBatch, vision: Vision, batch_idx: int, before: int, attended: RolloutAttention | None
    ) -> ScoredRollout:
        """`before` prompts of this step are other processes', and come before the batch's."""
        group = self._objective.group_size
        shuffled_texts: list[tuple[str, ...] | None] = [None] * len(batch.samples)
        with gathered(self.policy) as policy:
            rollout = self._sample(policy, batch, vision, group, batch_idx, before, use=0, attended=attended)
            completions = rollout.completions(group)
            self.check(policy, batch, vision, completions, self.packing, attended)
            if self._reward.temporal is not None and batch.shuffled_video_pixels is not None:
                with torch.no_grad():
                    mixed = encode_vision(policy, batch.shuffled(), self.packing.lanes)
                shuffled = self._sample(policy, batch, mixed, group // 2, batch_idx, before, use=1)
                for n, item in enumerate(batch.samples):
                    if item.data_type == "video":
                        shuffled_texts[n] = shuffled.texts[n * (group // 2) : (n + 1) * (group // 2)]
        rows = tuple(pack(batch.forest, completions, self.packing.row_tokens))
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
        rewards_NG = torch.tensor([part.total for part in parts], device=self.device).view(len(batch.samples), group)
        advantages_NG = group_advantages(rewards_NG, kind=self._objective.advantage, eps=self._objective.advantage_eps)
        return ScoredRollout(
            rollout=rollout,
            rows=rows,
            parts=tuple(parts),
            advantages_B=advantages_NG.flatten(),
            zero_variance_B=zero_variance(rewards_NG),
            ref_logp_BC=self._reference_logps(batch, vision, rollout, rows) if self._objective.beta else None,
        )

    def _sample(
        self,
        policy: Any,
        batch: PromptBatch,
        vision: Vision,
        group: int,
        batch_idx: int,
        before: int,
        use: int,
        attended: RolloutAttention | None = None,
    ) -> Rollout:
        # the 0 names the stream, and no process: a completion is the same whichever of them writes it
        words = [self._seed, 0, self.current_epoch, batch_idx, use]
        return sample(
            policy,
            self._processor,
            batch.forest,
            vision,
            self.packing,
            Decoding(self._objective.temperature, self._objective.top_p, self._objective.max_completion_length),
            seeds=[[*words, before * group + i] for i in range(len(batch.samples) * group)],
            attended=attended,
        )

    @torch.no_grad()
    def _reference_logps(
        self, batch: PromptBatch, vision: Vision, rollout: Rollout, rows: Sequence[PackedRow]
    ) -> Tensor:
        logp_BC = torch.zeros_like(rollout.logp_BC)
        with self._as_reference() as model:
            seen = vision if self._sees_alike else encode_vision(model, batch.pictures, self.packing.lanes)

            def logps(row: PackedRow) -> Tensor:
                return row.unpack(row_logps(model, row, seen, self.packing, self._objective.temperature))

            for row, found in zip(rows, side_by_side(logps, rows, self.packing.lanes), strict=True):
                logp_BC[list(row.completions), : found.shape[1]] = found.to(logp_BC.dtype)
        return logp_BC

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[Any]:
        if self.reference is not None:
            with gathered(self.reference) as model:
                yield model
        else:
            with gathered(self.policy) as model, model.disable_adapter():
                yield model

    def _log_rollout(self, table: Tensor, prompts: int) -> None:
        metrics = rollout_metrics(table, self._objective.group_size)
        self.log_dict(metrics, batch_size=prompts)
        shown = {"reward": "reward/total", "map": "rollout/map_quality", "length": "rollout/length"}
        self.log_dict(
            {short: metrics[name] for short, name in shown.items()}, prog_bar=True, logger=False, batch_size=prompts
        )

    def _log_objective(self, prompts: int, updates: Sequence[Mapping[str, Tensor]]) -> None:
        """Logs the metrics of a rollout's updates: their mean, and of the sampling drift the first, the only one."""
        metrics = {name: torch.stack([found[name] for found in updates if name in found]).mean() for name in updates[0]}
        for name, value in metrics.items():
            if name not in ("completion_length_mean", "truncated_share"):  # which are logged of the rollout
                self.log(f"train/{name}", value, prog_bar=name == "kl", batch_size=prompts)
