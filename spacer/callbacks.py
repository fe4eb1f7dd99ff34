"""What happens beside the steps of a training run: progress is told, time measured, faults are recorded."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from spacer import ranks
from spacer.data.loading import TrainLoader
from spacer.data.processing import PromptBatch
from spacer.data.samples import Fault
from spacer.files import append_rows, drop_torn_line, read_rows
from spacer.grpo import GrpoModule

log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """The bar, with the figures that one watches, in 80 columns."""

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """The bar, steps and the time left; rates are in the metrics that are logged."""
        return [BarColumn(bar_width=8), MofNCompleteColumn(), TimeRemainingColumn(compact=True)]

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The metrics that are logged to the bar, short enough for 80 columns."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return _short(shown)


class ProgressLines(Callback):
    """A table that gets a row every so many steps, in 80 columns: on a terminal, and in log files, where a bar leaves
    no trace."""

    def __init__(self, every_n_steps: int) -> None:
        self._every = every_n_steps
        self._told = 0
        self._names: tuple[str, ...] = ()
        self._began = (0.0, 0)  # when, and after which step

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begins to take the time."""
        self._told = trainer.global_step
        self._began = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        """Adds a row when it is time, under names where these are new."""
        step, total = trainer.global_step, pl_module.training_plan.total_steps
        if step // self._every == self._told // self._every:
            return
        self._told = step
        row = {"step": str(step) if total is None else f"{step}/{total}", **_short(trainer.progress_bar_metrics)}
        start, first = self._began
        if total is not None:
            left = timedelta(seconds=round((time.monotonic() - start) / (step - first) * (total - step)))
            row["left"] = str(left)
        if tuple(row) != self._names:
            self._names = tuple(row)
            log.info(table_row(self._names, self._names))
        log.info(table_row(self._names, [str(value) for value in row.values()]))


def table_row(names: Sequence[str], values: Sequence[str]) -> str:
    """Values under their names, right-aligned.

    >>> table_row(["step", "kl"], ["10/59", "0.0283"])
    '      10/59   0.0283'
    """
    widths = [max(11 if name == "step" else 9, len(name) + 2) for name in names]
    return "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))


class Speed(Callback):
    """Logs what a step cost, over all of its batches: seconds by what they went into, tokens, prompts, memory.

    Seconds and memory are means over the processes, tokens and prompts those of all. It stands before callbacks that do
    work of their own at the end of a batch, which are not counted.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader
        self._waited = 0.0
        self._began = 0.0
        self._step: defaultdict[str, float] = defaultdict(float)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: PromptBatch, batch_idx: int) -> None:
        """Counts how long the batch was waited for."""
        self._step["wait_s"] += self._loader.waited - self._waited
        self._waited = self._loader.waited
        self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        """Counts the batch; logs when the step is made."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # what was queued is part of the step
        rollout = pl_module.rollout_seconds if batch.samples else 0.0
        self._step["rollout_s"] += rollout
        self._step["train_s"] += time.monotonic() - self._began - rollout
        self._step["tokens"] += _tokens(pl_module, batch) if batch.samples else 0
        self._step["prompts"] += self._loader.batch_size * trainer.world_size
        if not pl_module.steps_now(batch_idx):
            return
        phases = {name: self._step[name] for name in ("rollout_s", "train_s", "wait_s")}
        whole = sum(phases.values())
        figures = {
            "step_s": whole,
            **phases,
            "tokens_per_s": self._step["tokens"] * trainer.world_size / whole,  # whose mean is that of all
            "prompts_per_s": self._step["prompts"] / whole,
            "memory_gb": _peak_memory(pl_module.device) / 1e9,
        }
        pl_module.log_dict({f"speed/{name}": value for name, value in figures.items()}, batch_size=1, sync_dist=True)
        self._step.clear()


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


def _short(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with names and figures short enough for 80 columns.

    >>> _short({"train/kl": 0.0123456, "reward": 1.5})
    {'kl': '0.0123', 'reward': '1.5'}
    """
    shown = {name.rpartition("/")[2]: value for name, value in metrics.items()}
    return {name: f"{value:.3g}" if isinstance(value, float | torch.Tensor) else value for name, value in shown.items()}


def _tokens(module: Any, batch: PromptBatch) -> int:
    """Tokens of the batch's prompts and completions, those that several share once."""
    prompts = sum(len(segment) for segment in batch.forest.segments)
    if isinstance(module, GrpoModule) and module.last_rollout is not None:
        return prompts + sum(module.last_rollout[1].rollout.lengths)
    return prompts + sum(len(target) for target in batch.targets or ())


def _peak_memory(device: torch.device) -> int:
    """Bytes that the device, or on a CPU this process, has held at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # of what the system tells
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
