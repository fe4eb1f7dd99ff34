"""Rollouts to look at while a run goes on: some of a step's own, and the same held-out prompts again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.seed import isolate_rng

from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import Prompts
from spacer.data.processing import PromptBatch
from spacer.grpo import GrpoModule
from spacer.modeling import encode_vision
from spacer.report.rollouts import (
    Shown,
    begin_rollouts,
    latest_rows,
    read_rollouts,
    rollout_table,
    show_rollouts,
)
from spacer.rewards import score_group
from spacer.rollout import Decoding, sample
from spacer.settings import BenchmarkSettings, RewardSettings
from spacer.sharding import gathered

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Watched:
    """What is shown: of every `every` steps, `prompts` of the batch; and held-out prompts, answered greedily.

    `heldout` gives the held-out prompts in batches, none where none are shown; they are scored by `reward`.
    """

    every: int
    prompts: int
    heldout: Callable[[], Sequence[PromptBatch]]
    processor: Qwen2_5_VLProcessor
    reward: RewardSettings
    max_new_tokens: int


def spread_batches(dataset: Prompts, count: int, benchmark: BenchmarkSettings, answer: int) -> list[PromptBatch]:
    """So many samples of a data set, evenly spread, in batches as an evaluation with answers of `answer` tokens has."""
    chosen = sorted({i * len(dataset) // count for i in range(min(count, len(dataset)))}) if count else []
    bounds = Bounds(benchmark.batch_tokens, benchmark.batch_size, answer)
    return [batch for batch in QuestionLoader(dataset, chosen, bounds) if batch.samples]


class RolloutTable(Callback):
    """Shows rollouts in `rollouts.jsonl`, with pictures, and in a table of W&B.

    Shown are after the first step and every so many: prompts of the step's batch with all their completions, and the
    held-out prompts, these before the first step too. When is read off the steps alone, and random numbers are left as
    they were, so that a resumed run shows what it would have shown and trains as it would have.
    """

    def __init__(self, folder: Path, watched: Watched) -> None:
        self._folder = folder
        self._watched = watched
        self._heldout: Sequence[PromptBatch] = ()
        self._before = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Asks the held-out prompts before the first step."""
        if not self._watched.every:
            return
        if trainer.is_global_zero:
            begin_rollouts(self._folder, trainer.global_step)
        with isolate_rng():
            self._heldout = self._watched.heldout()
        if trainer.global_step == 0:
            self._show(trainer, pl_module, self._ask(trainer, pl_module))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: PromptBatch, batch_idx: int) -> None:
        """Remembers the step that the batch is for."""
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        """Shows when it is time."""
        every, step = self._watched.every, trainer.global_step
        if not every or step == self._before:
            return
        due = self._before // every != step // every
        if not due and self._before:
            return
        shown = self._of_batch(pl_module) if batch.samples else []
        self._show(trainer, pl_module, [*shown, *(self._ask(trainer, pl_module) if due else [])])
        logger = next((entry for entry in trainer.loggers if isinstance(entry, WandbLogger)), None)
        if logger is not None and trainer.is_global_zero:
            table = rollout_table(latest_rows(read_rollouts(self._folder), step), self._folder)
            logger.log_metrics({"rollout/table": table}, step=self._before)  # type: ignore[dict-item]

    def _show(self, trainer: pl.Trainer, module: GrpoModule, shown: Sequence[Shown]) -> None:
        if trainer.is_global_zero:
            show_rollouts(self._folder, trainer.global_step, module.prompts_seen, shown)

    def _of_batch(self, module: GrpoModule) -> list[Shown]:
        assert module.last_rollout is not None
        batch, scored = module.last_rollout
        group = len(scored.parts) // len(batch.samples)
        lengths = scored.rollout.lengths
        return [
            Shown(
                "train",
                batch.samples[n],
                batch.strips[n],
                i,
                scored.rollout.texts[n * group + i],
                lengths[n * group + i],
                scored.parts[n * group + i],
                float(scored.advantages_B[n * group + i]),
            )
            for n in range(min(self._watched.prompts, len(batch.samples)))
            for i in range(group)
        ]

    def _ask(self, trainer: pl.Trainer, module: GrpoModule) -> list[Shown]:
        """The held-out prompts' answers; by every process, since those of a sharded model compute together."""
        with isolate_rng(), trainer.precision_plugin.val_step_context(), gathered(module.policy) as policy:
            return [shown for batch in self._heldout for shown in self._answers(policy, batch, module)]

    @torch.no_grad()
    def _answers(self, policy: Any, batch: PromptBatch, module: GrpoModule) -> list[Shown]:
        batch = batch.to(module.device)
        rollout = sample(
            policy,
            self._watched.processor,
            batch.forest,
            encode_vision(policy, batch.pictures, module.packing.lanes),
            module.packing,
            Decoding(0.0, 1.0, self._watched.max_new_tokens),
            seeds=[[0]] * len(batch.samples),  # greedy: no number is used
        )
        shown = []
        for item, strip, text, length in zip(batch.samples, batch.strips, rollout.texts, rollout.lengths, strict=True):
            (parts,) = score_group(
                [text],
                [length],
                solution=item.solution,
                problem_type=item.problem_type,
                true_map=item.true_map,
                settings=self._watched.reward,
            )
            shown.append(Shown("heldout", item, strip, 0, text, length, parts, None))
        return shown
