"""Evaluates a fixed subset of the held-out questions while a run trains, before the first step and every few steps."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.seed import isolate_rng

from spacer.config.settings import EvaluationSettings
from spacer.distributed import collectives
from spacer.distributed.checkpoint_files import read
from spacer.distributed.checkpoint_parts import remove
from spacer.distributed.sharding import gathered
from spacer.errors import UserError
from spacer.evaluation.answering import Answering, EvaluationRequest
from spacer.evaluation.kept import Row, by_medium, share_of
from spacer.files import read_rows, write_rows
from spacer.statistics.summaries import METRICS, by_metric, mean_scores

log = logging.getLogger(__name__)
PREFIX = "eval/during/"  # of the metrics in logs
BEST = "best.ckpt"


def judges(settings: EvaluationSettings, checkpoints: Path) -> list[ModelCheckpoint | EarlyStopping]:
    """Lightning's callbacks that go by `evaluation.metric`: early stopping, and the best checkpoint, in `checkpoints`.

    The latter is last, so that its checkpoint holds what the former has counted.
    """
    monitor = PREFIX + settings.metric
    found: list[ModelCheckpoint | EarlyStopping] = []
    if settings.patience is not None:
        found.append(EarlyStopping(monitor, patience=settings.patience, mode="max", check_on_train_epoch_end=False))
    if settings.keep_best:
        found.append(
            ModelCheckpoint(
                checkpoints,
                filename=BEST.removesuffix(".ckpt"),
                monitor=monitor,
                mode="max",
                save_top_k=1,
                enable_version_counter=False,
                save_on_train_epoch_end=False,
            )
        )
    return found


class DuringTraining(Callback):
    """Asks the questions before the first step and every `evaluation.every_n_steps`, and has `judges` count the result.

    The rows of the evaluation after n steps are in `folder`, `N.jsonl`. It is made before the checkpoint after n steps,
    which Lightning writes last: a checkpoint implies its evaluation, and what a killed run had evaluated after its
    last checkpoint is repeated with these steps. The RNG state is preserved, so that training does not depend on it.

    Metrics after n steps are logged as the history's step n, that of the rollouts of the same weights.

    `halted` tells whether the run is being stopped to go on later: then the next run logs what this one has not yet.
    """

    def __init__(
        self,
        folder: Path,
        request: EvaluationRequest,
        settings: EvaluationSettings,
        judges: Sequence[ModelCheckpoint | EarlyStopping],
        halted: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._request = request
        self._settings = settings
        self._judges = judges
        self._halted = halted
        self._answering = Answering(request)
        self._samples = request.dataset.samples[: settings.limit]
        self._chosen = by_medium(spread(len(self._samples), settings.subset), self._samples)
        self._before = 0
        self._unlogged: tuple[int, Mapping[str, float]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Evaluates before the first step; after a restart, logs the last evaluation again, if it is of this step."""
        step = trainer.global_step
        self._forget_after(step, trainer, pl_module)
        for judge in self._judges:
            if isinstance(judge, EarlyStopping) and self._settings.patience is not None:
                judge.patience = self._settings.patience  # a checkpoint has brought its own
        self._tell_cost(pl_module, step)
        if step == 0:
            self._evaluate(trainer, pl_module)
        elif trainer.is_global_zero and (rows := read_rows(self._file(step))):
            self._unlogged = (step, self._metrics(rows, pl_module))
        if self._out_of_patience:
            trainer.should_stop = True  # as the run had before it was killed
            self._tell_patience()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Logs the last evaluation, now that the metrics of the step before it are logged."""
        self._log(trainer)
        self._before = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Evaluates if the step is due."""
        every = self._settings.every_n_steps
        if self._before // every != trainer.global_step // every:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs the last evaluation, if no later run does."""
        if not self._halted() or trainer.global_step == pl_module.training_plan.total_steps:
            self._log(trainer)

    def _forget_after(self, step: int, trainer: pl.Trainer, module: Any) -> None:
        """Removes what a killed run evaluated in steps that are made again, the best checkpoint too if it is of one."""
        best = [judge for judge in self._judges if isinstance(judge, ModelCheckpoint)]
        # checking a checkpoint's file reads all of it: one process does
        steps = [_step_of(self._best(judge)) if trainer.is_global_zero else -1 for judge in best]
        made = [max(collectives.gather(of_best, module.device)) for of_best in steps]
        gone = [judge for judge, of_best in zip(best, made, strict=True) if of_best > step]
        for judge in gone:
            judge.best_k_models, judge.best_model_path, judge.kth_best_model_path = {}, "", ""
            judge.best_model_score = judge.current_score = None
        if trainer.is_global_zero:
            for judge in gone:
                remove(self._best(judge))
            for path in self._folder.glob("*.jsonl"):
                if int(path.stem) > step:
                    path.unlink()

    @staticmethod
    def _best(judge: ModelCheckpoint) -> Path:
        return Path(str(judge.dirpath)) / BEST

    def _evaluate(self, trainer: pl.Trainer, module: Any) -> None:
        start, step = time.monotonic(), trainer.global_step
        rows = self._ask(trainer, module)
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_rows(self._file(step), rows)
            self._unlogged = (step, self._metrics(rows, module))
        means = {name: sum(value for value, _ in part) / len(part) for name, part in by_metric(rows).items()}
        wanted = self._settings.metric
        judged = [judge for judge in self._judges if wanted in means]
        if self._judges and not judged:
            if step == 0 and wanted not in METRICS:
                raise UserError(
                    f"evaluation.metric={wanted} is not measured by the held-out questions: choose one of "
                    f"{', '.join(sorted(means))}"
                )
            log.warning("no answer after step %d has %s: it does not count for the best checkpoint", step, wanted)
        for judge in judged:
            trainer.callback_metrics[PREFIX + wanted] = torch.tensor(means[wanted], dtype=torch.float64)
            judge.on_validation_end(trainer, module)
        if trainer.is_global_zero:
            self._tell(trainer, step, time.monotonic() - start)

    def _ask(self, trainer: pl.Trainer, module: Any) -> list[Row]:
        """The rows of all processes, each of which asks its share of the questions, in the data set's order."""
        mine = share_of(self._chosen, trainer.global_rank, trainer.world_size)
        rows: list[Row] = []
        # as in a trainer's validation; dropout, if any, is off
        with isolate_rng(), trainer.precision_plugin.val_step_context(), gathered(module.policy) as policy:
            was_training = policy.training
            policy.eval()
            with torch.no_grad():
                for batch in self._request.batches(mine):
                    rows += [row for _, row in self._answering.rows(policy, batch.to(module.device))]
            policy.train(was_training)
        texts = collectives.join_texts([json.dumps(row) for row in rows], module.device)
        order = {self._samples[index].id: index for index in self._chosen}
        return sorted(map(json.loads, texts), key=lambda row: order[row["id"]])

    def _metrics(self, rows: Sequence[Row], module: Any) -> dict[str, float]:
        scores = mean_scores(rows, self._settings.resamples, self._request.seed)
        logged = {f"{PREFIX}{name}": score["mean"] for name, score in scores.items()}
        logged |= {f"{PREFIX}{name}/{end}": score[end] for name, score in scores.items() for end in ("low", "high")}
        return {"train/prompts_seen": float(module.prompts_seen)} | {
            name: value
            for name, value in logged.items()
            if math.isfinite(value)  # few scenes have no interval
        }

    def _log(self, trainer: pl.Trainer) -> None:
        if self._unlogged is not None:
            step, metrics = self._unlogged
            for logger in trainer.loggers:
                logger.log_metrics(dict(metrics), step=step)
            self._unlogged = None

    def _tell(self, trainer: pl.Trainer, step: int, seconds: float) -> None:
        assert self._unlogged is not None
        _, metrics = self._unlogged
        names = list(dict.fromkeys(("reward/total", "reward/answer", self._settings.metric)))
        told = []
        for at in (PREFIX + name for name in names if PREFIX + name in metrics):
            ends = [f"{metrics[f'{at}/{end}']:.3f}" for end in ("low", "high") if f"{at}/{end}" in metrics]
            told.append(f"{at.removeprefix(PREFIX)} {metrics[at]:.3f}{f' ({ends[0]} to {ends[1]})' if ends else ''}")
        log.info("held out after step %d, in %.0f s: %s", step, seconds, ", ".join(told))
        if self._out_of_patience:
            self._tell_patience()

    def _tell_patience(self) -> None:
        log.info("training stops: %d evaluations brought no better %s", self._settings.patience, self._settings.metric)

    def _tell_cost(self, module: Any, step: int) -> None:
        every, total = self._settings.every_n_steps, module.training_plan.total_steps
        times = "" if total is None else f", {total // every - step // every + (step == 0)} times"
        log.info(
            "evaluating %d of %d held-out questions every %d steps%s: at most %d tokens each time",
            len(self._chosen),
            len(self._samples),
            every,
            times,
            len(self._chosen) * self._settings.max_new_tokens,
        )

    @property
    def _out_of_patience(self) -> bool:
        return any(isinstance(judge, EarlyStopping) and judge.wait_count >= judge.patience for judge in self._judges)

    def _file(self, step: int) -> Path:
        return self._folder / f"{step}.jsonl"


def _step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written; -1 if there is none."""
    return int(read(checkpoint, mmap=True)["global_step"]) if checkpoint.exists() else -1


def spread(count: int, wanted: int | None) -> list[int]:
    """`wanted` of `count` indices, evenly spread; all if it is None or more.

    >>> spread(10, 4), spread(2, 4), spread(3, None)
    ([0, 2, 5, 7], [0, 1], [0, 1, 2])
    """
    if wanted is None or wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]
