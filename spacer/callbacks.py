"""What happens beside the steps of a training run: faults are recorded, rollouts shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.loggers import WandbLogger

from spacer import ranks
from spacer.data.loading import TrainLoader
from spacer.data.processing import PromptBatch
from spacer.data.samples import Fault
from spacer.files import append_rows, drop_torn_line, read_rows
from spacer.grpo import GrpoModule
from spacer.rewards import parse_map

log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """The bar, with the figures that one watches."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The metrics that are logged to the bar, short enough for 80 columns."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in shown.items()}


class ProgressLines(Callback):
    """A line every so many steps, for log files, where a bar leaves no trace."""

    def __init__(self, every_n_steps: int) -> None:
        self._every = every_n_steps
        self._told = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        """Tells when it is time."""
        step = trainer.global_step
        if step // self._every == self._told // self._every:
            return
        self._told = step
        figures = ", ".join(f"{name} {float(value):.3g}" for name, value in trainer.progress_bar_metrics.items())
        total = pl_module.training_plan.total_steps
        log.info("step %d%s: %s", step, "" if total is None else f" of {total}", figures)


class DataWait(Callback):
    """Logs how many seconds each step stood still for want of its data, on the mean of the processes."""

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader
        self._before = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: PromptBatch, batch_idx: int) -> None:
        """Logs the time since the last step."""
        pl_module.log("data/wait_s", self._loader.waited - self._before, batch_size=1, sync_dist=True)
        self._before = self._loader.waited


class FaultRecorder(Callback):
    """Appends every sample that could not be read, in whichever process, to `faults.jsonl`, once a fault; the run goes
    on without it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        drop_torn_line(path)
        self._seen = {Fault(**row) for row in read_rows(path)}  # by the run that this one goes on from

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: PromptBatch, batch_idx: int) -> None:
        """Records the batch's faults."""
        found = ranks.join_texts([json.dumps(asdict(fault)) for fault in batch.faults], pl_module.device)
        every = (Fault(**json.loads(text)) for text in found)
        fresh = [fault for fault in dict.fromkeys(every) if fault not in self._seen]
        self._seen.update(fresh)
        if trainer.is_global_zero:
            append_rows(self._path, [asdict(fault) for fault in fresh])


class RolloutTable(Callback):
    """Logs a table of rollouts to W&B every so many steps: the first group of the batch, best and worst first."""

    def __init__(self, every_n_steps: int) -> None:
        self._every = every_n_steps
        self._shown = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        """Logs when it is time."""
        logger = next((entry for entry in trainer.loggers if isinstance(entry, WandbLogger)), None)
        step = trainer.global_step
        due = self._shown < 0 or (step - 1) // self._every != (self._shown - 1) // self._every
        if logger is None or not due or not trainer.is_global_zero or not isinstance(pl_module, GrpoModule):
            return
        self._shown = step
        rows = rollout_rows(pl_module, step)
        if rows:
            from spacer.report.rollouts import rollout_table

            logger.experiment.log({"rollout/completions": rollout_table(rows), "trainer/global_step": step})


def rollout_rows(module: GrpoModule, step: int) -> list[Any]:
    """The best and the worst completion of each of the batch's first prompts, with all there is to look at."""
    from spacer.report.rollouts import RolloutRow

    if module.last_rollout is None:
        return []
    batch, scored = module.last_rollout
    group = len(scored.parts) // len(batch.samples)
    rows = []
    for n, item in enumerate(batch.samples[:4]):
        inside = range(n * group, (n + 1) * group)
        for i in dict.fromkeys((max(inside, key=_total(scored.parts)), min(inside, key=_total(scored.parts)))):
            parts, text = scored.parts[i], scored.rollout.texts[i]
            names = ("total", "answer", "map", "format", "length", "temporal")
            rows.append(
                RolloutRow(
                    step=step,
                    frame=batch.frames[n],
                    question=item.problem,
                    completion=text,
                    solution=item.solution,
                    parts={name: getattr(parts, name) for name in names},
                    advantage=float(scored.advantages_B[i]),
                    true_map=dict(item.true_map or {}),
                    predicted_map=parse_map(text, item.true_map or {}),
                )
            )
    return rows


def _total(parts: Sequence[Any]) -> Any:
    return lambda i: parts[i].total
