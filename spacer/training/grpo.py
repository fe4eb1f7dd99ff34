"""Group-relative policy optimization (GRPO) with Lightning: combines data, model, rewards and objective."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spacer.config.choices import Advantage
from spacer.config.settings import ObjectiveSettings
from spacer.data.loading import Batch
from spacer.distributed import collectives
from spacer.distributed.sharding import gathered
from spacer.distributed.strategies import shard_for
from spacer.models.probe import ModelProbe
from spacer.models.selfcheck import check_drift
from spacer.objective.advantages import group_advantages, term_advantages, zero_variance
from spacer.objective.loss import PolicyBatch, kept_completions, loss_denominator, policy_loss
from spacer.rewards import RewardParts, Scorer
from spacer.rollout.asked import Compute
from spacer.rollout.sampling import Decoding
from spacer.training.lessons import Lesson, Sampled, ScoredRollout, places
from spacer.training.metrics import measure, rollout_metrics
from spacer.training.row_trainer import RowLoss
from spacer.training.tree_module import Training, TreeModule
from spacer.training.work import Row, Work, begin


class GrpoModule(TreeModule):
    """Group-relative policy optimization (spec: SG-RLVR): sample a group per prompt, score it, take a step.

    Departures from the released trainer: prompts, completions and videos are computed once each, as trees; frame times
    are kept in training; a failing forward pass is an error, not a step without vision; log-probabilities are computed
    at the sampling temperature (1 as published).

    Under `dynamic_sampling`, a step gathers batches until enough groups teach: as many as it has prompts otherwise. All
    of these groups count, also those beyond, where DAPO takes as many as it needs.

    `reference` is the frozen model for the KL term; None if beta is 0, or if the policy has adapters that can be
    disabled instead.
    """

    def __init__(
        self,
        policy: Any,
        reference: Any | None,
        probe: ModelProbe,
        objective: ObjectiveSettings,
        scorer: Scorer,
        compute: Compute,
        training: Training,
        seed: int,
    ) -> None:
        super().__init__(policy, compute, training)
        self.reference = reference
        self.last_rollout: tuple[Batch, ScoredRollout] | None = None  # for callbacks
        self.lessons: tuple[Lesson, ...] = ()  # of the last rollout
        self._probe = probe
        self._objective = objective
        self._scorer = scorer
        self._seed = seed
        self._decoding = Decoding(objective.temperature, objective.top_p, objective.max_completion_length)
        self._sampled = Sampled()
        self._complete = False  # whether the last batch completed a step, under dynamic sampling

    def configure_model(self) -> None:
        """Shards the models over the processes, if the strategy does."""
        shard_for(self.trainer, self.policy, *([] if self.reference is None else [self.reference]))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Samples completions for the batch's prompts, scores them, and makes one or several updates with them."""
        counts = self.gather(batch)
        self._sampled.batches += 1
        if not sum(counts):
            self._complete = self._completes(batch_idx)
            if (loss := self.step(batch_idx)) is not None:
                self._log_step([loss])
            return
        group, sizes = self._objective.group_size, batch.part_sizes
        each = [counts] if len(sizes) == 1 else [collectives.gather(size, self.device) for size in sizes]
        with torch.set_grad_enabled(len(sizes) == 1):  # parts have gradients of their own
            work = begin(self.passes, batch, self._objective.temperature)
        start = time.monotonic()
        scored = self._roll_out(batch, work, batch_idx, places(each, self.global_rank))
        self.rollout_seconds = time.monotonic() - start
        if batch.samples:
            self.last_rollout = (batch, scored)
        self.lessons = self._lessons(work, scored)
        self._sampled.tables.append(
            collectives.join(measure(scored.parts, scored.rollout, self._scorer.terms), self.device)
        )
        self._sampled.groups += sum(counts)
        teaching = int((~scored.zero_variance_B).sum()) // group
        self._sampled.teaching += sum(collectives.gather(teaching, self.device))
        self._complete = self._completes(batch_idx)
        losses: list[float] = []
        taught = [lesson for lesson, shares in zip(self.lessons, each, strict=True) if sum(shares)]
        for number, lesson in enumerate(taught * self._objective.updates_per_rollout):
            if number and self.trainer.global_step == self.trainer.max_steps:
                break
            if number or len(sizes) > 1:
                lesson.work.renew()
            metrics = self._backward(lesson, on_policy=number == 0)
            self._sampled.updates += metrics
            if not number and self.training_plan.self_check:
                check_drift(float(metrics[0][1]["sampling_drift"]), self.policy, self._objective.temperature)
            if (loss := self.step(batch_idx)) is not None:
                losses.append(loss)
        if losses:
            self._log_step(losses)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Counts the prompts, and begins to count anew after a step."""
        super().on_train_batch_start(batch, batch_idx)
        if self._complete:
            self._sampled, self._complete = Sampled(), False

    def steps_now(self, batch_idx: int) -> bool:
        """Whether this batch completes a step: by their number, or by that of groups that teach."""
        if self._objective.dynamic_sampling is None:
            return super().steps_now(batch_idx)
        return self._complete

    def _completes(self, batch_idx: int) -> bool:
        most = self._objective.dynamic_sampling
        if most is None:
            return super().steps_now(batch_idx)
        last = batch_idx + 1 == self.trainer.num_training_batches
        batches = self._sampled.batches
        return self._sampled.teaching >= self._wanted or batches >= most * self.training_plan.accumulate or last

    @property
    def _wanted(self) -> int:
        """The prompts of a step without dynamic sampling, over all processes."""
        plan = self.training_plan
        return plan.batch_size * self.trainer.world_size * plan.accumulate

    def _backward(self, lesson: Lesson, on_policy: bool) -> list[tuple[float, Mapping[str, Tensor]]]:
        """Accumulates the gradient of the policy loss over all groups; returns its metrics, each with the number of
        completions that it is the mean of: those that were computed, then all. The loss is accumulated too, since a
        step may have several batches. `on_policy` is whether the weights are those that sampled."""
        scored, ref_logp_BC = lesson.scored, lesson.ref_logp_BC
        rollout = scored.rollout
        kept_B = kept_completions(
            rollout.mask_BC,
            self._objective,
            truncated_B=rollout.truncated_B,
            zero_variance_B=scored.zero_variance_B,
        )
        computed_BC = rollout.mask_BC & scored.counted_B[:, None]
        # summed over all processes
        counted, completions, computed, tokens = collectives.add(
            torch.stack(
                [
                    loss_denominator(rollout.mask_BC, kept_B, self._objective),
                    rollout.mask_BC.any(1).sum().float(),
                    computed_BC.any(1).sum().float(),
                    computed_BC.sum().float(),
                ]
            )
        )

        denominator = counted.new_tensor(self._gathered.divide_by(float(counted)))

        def loss_of(completions_B: Sequence[int], logp_BC: Tensor) -> RowLoss:
            mine, width = list(completions_B), logp_BC.shape[1]
            found = policy_loss(
                PolicyBatch(
                    logp_BC=logp_BC,
                    advantages_B=scored.advantages_B[mine],
                    mask_BC=rollout.mask_BC[mine, :width],
                    old_logp_BC=None if on_policy else rollout.logp_BC[mine, :width],  # else the ratio is 1
                    ref_logp_BC=None if ref_logp_BC is None else ref_logp_BC[mine, :width],
                    truncated_B=rollout.truncated_B[mine],
                    zero_variance_B=scored.zero_variance_B[mine],
                ),
                self._objective,
                denominator,
            )
            logged = {name: value * len(mine) / computed.clamp(min=1) for name, value in found.metrics.items()}
            logged["kept_share"] = found.metrics["kept_share"] * len(mine) / completions  # of all
            logged["loss"] = found.loss.detach()
            if on_policy:
                drift = (logp_BC.detach() - rollout.logp_BC[mine, :width]).abs() * rollout.mask_BC[mine, :width]
                logged["sampling_drift"] = drift.sum() / tokens.clamp(min=1)
            return found.loss, logged

        _, nothing = loss_of([], rollout.logp_BC[[]])  # provides the metrics' names if this process has no rows
        parts = lesson.work.backward(lesson.rows, lambda row, logp_N: loss_of(row.completions, row.unpack(logp_N)))
        totals = collectives.add(torch.stack([torch.stack(list(part.values())) for part in (nothing, *parts)]).sum(0))
        found = dict(zip(nothing, totals, strict=True))
        self._gathered.loss += float(found.pop("loss"))
        return [(float(computed), found), (float(completions), {"kept_share": found.pop("kept_share")})]

    def _roll_out(self, batch: Batch, work: Work, batch_idx: int, numbers: Sequence[int]) -> ScoredRollout:
        """Samples and scores the batch's completions. `numbers` are its prompts' among those of all processes."""
        group = self._objective.group_size
        shuffled_texts: list[tuple[str, ...] | None] = [None] * len(batch.samples)
        with gathered(self.policy) as policy:
            asked = work.asked(policy, self._probe)
            # the 0 is the stream's number; the rank is not part of the seed, so completions do not depend on it
            words = [self._seed, 0, self.current_epoch, batch_idx]
            seeds = [[*words, 0, n * group + i] for n in numbers for i in range(group)]
            rollout = asked.sample(self._decoding, seeds)
            self.check_numbers("the sampled tokens' log-probabilities", rollout.logp_BC)
            asked.check(self.check, rollout, self._objective.temperature)
            wanted = self._scorer.settings.temporal is not None
            if wanted and (mixed := work.asked_shuffled(policy, self._probe)) is not None:
                half = group // 2
                seeds = [[*words, 1, n * half + i] for n in numbers for i in range(half)]
                shuffled = mixed.sample(self._decoding, seeds)
                for n, item in enumerate(batch.samples):
                    if item.data_type == "video":
                        shuffled_texts[n] = shuffled.texts[n * half : (n + 1) * half]
        parts: list[RewardParts] = []
        lengths = rollout.lengths
        for n, item in enumerate(batch.samples):
            mine = slice(n * group, (n + 1) * group)
            parts += self._scorer(item, rollout.texts[mine], lengths[mine], shuffled_texts[n])
        rewards_NG = torch.tensor([part.total for part in parts], device=self.device).view(len(batch.samples), group)
        advantages_NG, silent_B = self._advantages(rewards_NG, parts)
        counted_B = ~silent_B if self._objective.drop_zero_variance else torch.ones_like(silent_B)
        return ScoredRollout(rollout, tuple(parts), advantages_NG.flatten(), silent_B, counted_B)

    def _lessons(self, whole: Work, scored: ScoredRollout) -> tuple[Lesson, ...]:
        """The rollout's parts, each with its share of the batch."""
        group, sizes = self._objective.group_size, whole.batch.part_sizes
        lessons, start = [], 0
        with self._as_reference() if self._objective.beta else contextlib.nullcontext() as reference:
            for number, size in enumerate(sizes):
                work = whole if len(sizes) == 1 else whole.part(number)
                found = scored.part(start * group, (start + size) * group)
                counted = found.counted_B.nonzero()[:, 0].tolist()
                rows = work.rows(found.rollout.completions(group), counted)
                logp_BC = None
                if reference is not None:
                    logp_BC = self._reference_logps(reference, work, rows, found.rollout.logp_BC)
                lessons.append(Lesson(work, found, rows, logp_BC))
                start += size
        return tuple(lessons)

    def _advantages(self, rewards_NG: Tensor, parts: Sequence[RewardParts]) -> tuple[Tensor, Tensor]:
        """The advantages (N, G), and whether each completion's group has none (B,)."""
        objective = self._objective
        if objective.advantage != Advantage.terms:
            found_NG = group_advantages(rewards_NG, kind=objective.advantage, eps=objective.advantage_eps)
            return found_NG, zero_variance(rewards_NG)
        terms, weights = self._scorer.terms, rewards_NG.new_tensor(self._scorer.weights)
        # a cancelled answer counts for nothing, as in the total
        counted = [part.terms | {"answer": part.counted_answer} for part in parts]
        rows = [[held.get(term, math.nan) for term in terms] for held in counted]
        terms_NGK = rewards_NG.new_tensor(rows).view(*rewards_NG.shape, len(terms))
        found_NG = term_advantages(terms_NGK, weights, eps=objective.advantage_eps)
        return found_NG, (found_NG == 0).all(1).repeat_interleave(rewards_NG.shape[1])

    @torch.no_grad()
    def _reference_logps(self, model: Any, work: Work, rows: Sequence[Row], like_BC: Tensor) -> Tensor:
        """Log-probabilities of the rows' completions under the reference, in the shape of `like_BC`."""
        logp_BC = torch.zeros_like(like_BC)
        for row, found in zip(rows, work.logps(model, rows), strict=True):
            logp_BC[list(row.completions), : found.shape[1]] = found.to(logp_BC.dtype)
        self.check_numbers("the reference's log-probabilities", logp_BC)
        return logp_BC

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[Any]:
        if self.reference is not None:
            with gathered(self.reference) as model:
                yield model
        else:
            with gathered(self.policy) as model, model.disable_adapter():
                yield model

    def _log_step(self, losses: Sequence[float]) -> None:
        """Logs a step, or the updates on one batch: metrics over all of its batches, and the mean loss."""
        sampled = self._sampled
        table = torch.cat(sampled.tables)
        metrics = rollout_metrics(table, self._objective.group_size, self._scorer.terms)
        teaching = sampled.teaching / sampled.groups
        # counted here too, for with objective.advantage=terms a group may teach although its totals are equal
        metrics |= {"rollout/groups_teaching": teaching, "rollout/groups_zero_variance": 1 - teaching}
        metrics |= {"rollout/groups": sampled.groups, "rollout/filled": min(1.0, sampled.teaching / self._wanted)}
        self.log_dict(metrics, batch_size=sampled.groups)
        shown = {"reward": "reward/total", "map": "rollout/map_quality", "length": "rollout/length"}
        shown |= {name: f"reward/{name}" for name in self._scorer.custom_terms}
        self.log_dict(
            {short: metrics[name] for short, name in shown.items() if name in metrics},
            prog_bar=True,
            logger=False,
            batch_size=sampled.groups,
        )
        for name in dict.fromkeys(name for _, found in sampled.updates for name in found):
            if name not in ("completion_length_mean", "truncated_share"):  # logged with the rollout
                value = weighted_mean([(weight, found[name]) for weight, found in sampled.updates if name in found])
                self.log(f"train/{name}", value, prog_bar=name == "kl", batch_size=sampled.groups)
        self.log("train/loss", sum(losses) / len(losses), batch_size=sampled.groups)
        self._sampled = Sampled()


def weighted_mean(values: Sequence[tuple[float, Tensor]]) -> float:
    """The mean of scalars by their weights; 0 if all weights are.

    >>> weighted_mean([(3.0, torch.tensor(1.0)), (1.0, torch.tensor(5.0))])
    2.0
    """
    total = sum(weight for weight, _ in values)
    return sum(weight * float(value) for weight, value in values) / total if total else 0.0
