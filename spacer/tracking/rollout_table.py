"""Logs rollouts during a run: some from the current step, and the same held-out prompts repeatedly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.seed import isolate_rng

from spacer.config.settings import AskingSettings
from spacer.data.asking import Bounds, QuestionLoader
from spacer.data.loading import Batch, Prompts
from spacer.distributed.sharding import gathered
from spacer.models.probe import ModelProbe
from spacer.report.rollouts import (
    ShownCompletion,
    begin_rollouts,
    latest_rows,
    read_rollouts,
    rollout_table,
    show_rollouts,
)
from spacer.rewards import Scorer
from spacer.rollout.asked import ask
from spacer.rollout.sampling import Decoding
from spacer.training.grpo import GrpoModule

MOST_TABLES = 20  # that a run logs to W&B, besides the first and the last


@dataclass(frozen=True)
class Watched:
    """What is shown, every `every` steps: `prompts` of the batch, and held-out prompts, decoded greedily.

    `heldout` gives the held-out prompts in batches, none if none are shown; `scorer` scores them.
    """

    every: int
    prompts: int
    heldout: Callable[[], Sequence[Batch]]
    probe: ModelProbe
    scorer: Scorer
    max_new_tokens: int


def spread_batches(dataset: Prompts, count: int, how: AskingSettings, answer: int) -> list[Batch]:
    """`count` evenly spaced samples of a data set, in the batches of an evaluation with answers of `answer` tokens."""
    chosen = sorted({i * len(dataset) // count for i in range(min(count, len(dataset)))}) if count else []
    bounds = Bounds(how.batch_tokens, how.batch_size, answer)
    return [batch for batch in QuestionLoader(dataset, chosen, bounds) if batch.samples]


def table_stride(every: int, steps: float) -> int:
    """Steps between the tables that W&B gets: a multiple of `every`, such that `steps` steps have at most about
    `MOST_TABLES`; `every` where their number is not known.

    >>> table_stride(20, 119), table_stride(20, 10_000), table_stride(20, float("inf"))
    (20, 500, 20)
    """
    if not every or not math.isfinite(steps):
        return every
    return every * max(1, math.ceil(steps / (every * MOST_TABLES)))


class RolloutTable(Callback):
    """Logs rollouts to `rollouts.jsonl`, with pictures, and to a W&B table.

    Logs to the file after the first step and every `every` steps, and to W&B, which keeps every version of a table, at
    some `MOST_TABLES` of these: prompts of the step's batch with all their completions, and the
    held-out prompts, these before the first step too. The schedule depends on the step alone, and the RNG state is
    preserved, so that a resumed run logs what it would have logged and trains as it would have.
    """

    def __init__(self, folder: Path, watched: Watched) -> None:
        self._folder = folder
        self._watched = watched
        self._heldout: Sequence[Batch] = ()
        self._before = 0
        self._stride = watched.every

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Asks the held-out prompts before the first step."""
        if not self._watched.every:
            return
        if trainer.is_global_zero:
            begin_rollouts(self._folder, trainer.global_step)
        self._stride = table_stride(self._watched.every, trainer.estimated_stepping_batches)
        with isolate_rng():
            self._heldout = self._watched.heldout()
        if trainer.global_step == 0:
            self._show(trainer, pl_module, self._ask(trainer, pl_module))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Remembers the step that the batch is for."""
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Logs rollouts if the step is due."""
        every, step = self._watched.every, trainer.global_step
        if not every or step == self._before:
            return
        due = self._before // every != step // every
        if not due and self._before:
            return
        shown = self._of_batch(pl_module) if batch.samples else []
        self._show(trainer, pl_module, [*shown, *(self._ask(trainer, pl_module) if due else [])])
        logger = next((entry for entry in trainer.loggers if isinstance(entry, WandbLogger)), None)
        tabled = not self._before or self._before // self._stride != step // self._stride
        if logger is not None and trainer.is_global_zero and tabled:
            table = rollout_table(latest_rows(read_rollouts(self._folder), step), self._folder)
            logger.log_metrics({"rollout/table": table}, step=self._before)  # type: ignore[dict-item]

    def _show(self, trainer: pl.Trainer, module: GrpoModule, shown: Sequence[ShownCompletion]) -> None:
        if trainer.is_global_zero:
            show_rollouts(self._folder, trainer.global_step, module.prompts_seen, shown)

    def _of_batch(self, module: GrpoModule) -> list[ShownCompletion]:
        assert module.last_rollout is not None
        batch, scored = module.last_rollout
        group = len(scored.parts) // len(batch.samples)
        lengths = scored.rollout.lengths
        return [
            ShownCompletion(
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

    def _ask(self, trainer: pl.Trainer, module: GrpoModule) -> list[ShownCompletion]:
        """Answers to the held-out prompts; runs on every rank, since those of a sharded model compute together."""
        with isolate_rng(), trainer.precision_plugin.val_step_context(), gathered(module.policy) as policy:
            return [shown for batch in self._heldout for shown in self._answers(policy, batch, module)]

    @torch.no_grad()
    def _answers(self, policy: Any, batch: Batch, module: GrpoModule) -> list[ShownCompletion]:
        batch = batch.to(module.device)
        greedy = Decoding(0.0, 1.0, self._watched.max_new_tokens)
        asked = ask(policy, self._watched.probe, module.compute, batch)
        rollout = asked.sample(greedy, seeds=[[0]] * len(batch.samples))  # no random number is used
        shown = []
        for item, strip, text, length in zip(batch.samples, batch.strips, rollout.texts, rollout.lengths, strict=True):
            (parts,) = self._watched.scorer(item, [text], [length])
            shown.append(ShownCompletion("heldout", item, strip, 0, text, length, parts, None))
        return shown
