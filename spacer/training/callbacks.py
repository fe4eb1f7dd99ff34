"""Callbacks of training: progress, timing, freed memory, and a record of unreadable samples."""

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

from spacer.cpu.heap import return_freed
from spacer.data.asking import prompt_tokens
from spacer.data.loading import Batch, TrainLoader
from spacer.data.samples import Fault
from spacer.distributed import collectives
from spacer.files import append_rows, drop_torn_line, read_rows
from spacer.training.grpo import GrpoModule

log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """The progress bar, with the main metrics, in 80 columns."""

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """The bar, the steps and the time left; rates are among the logged metrics."""
        return [BarColumn(bar_width=8), MofNCompleteColumn(), TimeRemainingColumn(compact=True)]

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The metrics logged to the bar, shortened to fit 80 columns."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return _short(shown)


class ProgressLines(Callback):
    """Logs a row of metrics every `every_n_steps` steps, as a table in 80 columns that is readable in log files too,
    where a progress bar is not."""

    def __init__(self, every_n_steps: int) -> None:
        self._every = every_n_steps
        self._told = 0
        self._names: tuple[str, ...] = ()
        self._began: tuple[float, int] | None = None  # start time, and the steps made before

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Counts from the step that the run goes on from."""
        self._told = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Starts the clock: an evaluation before the first step is no part of it."""
        self._began = self._began or (time.monotonic(), trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Logs a row if one is due, and a header row if the columns have changed."""
        step, total = trainer.global_step, pl_module.training_plan.total_steps
        if step // self._every == self._told // self._every:
            return
        self._told = step
        row = {"step": str(step) if total is None else f"{step}/{total}", **_short(trainer.progress_bar_metrics)}
        if total is not None and self._began is not None:
            start, first = self._began
            left = timedelta(seconds=round((time.monotonic() - start) / (step - first) * (total - step)))
            row["left"] = str(left)
        if tuple(row) != self._names:
            self._names = tuple(row)
            log.info(table_row(self._names, self._names))
        log.info(table_row(self._names, [str(value) for value in row.values()]))


def table_row(names: Sequence[str], values: Sequence[str]) -> str:
    """Values right-aligned in the columns of their names.

    >>> table_row(["step", "kl"], ["10/59", "0.0283"])
    '      10/59   0.0283'
    """
    widths = [max(11 if name == "step" else 9, len(name) + 2) for name in names]
    return "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))


class Speed(Callback):
    """Logs the cost of each step over all of its batches: seconds by phase, tokens, prompts, memory.

    Seconds and memory are means over the processes, tokens and prompts are totals. It must come before callbacks that
    do work at the end of a batch, so that their time is not counted.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader
        self._waited = 0.0
        self._began = 0.0
        self._step: defaultdict[str, float] = defaultdict(float)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Adds the time spent waiting for the batch."""
        self._step["wait_s"] += self._loader.waited - self._waited
        self._waited = self._loader.waited
        self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Adds the batch; logs once the optimizer step is made."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # queued kernels are part of the step
        rollout = pl_module.rollout_seconds if batch.samples else 0.0
        self._step["rollout_s"] += rollout
        self._step["train_s"] += time.monotonic() - self._began - rollout
        self._step["tokens"] += _tokens(pl_module, batch) if batch.samples else 0
        self._step["prompts"] += self._loader.batch_size * trainer.world_size
        if not pl_module.stepped:
            return
        phases = {name: self._step[name] for name in ("rollout_s", "train_s", "wait_s")}
        whole = sum(phases.values())
        metrics = {
            "step_s": whole,
            **phases,
            "tokens_per_s": self._step["tokens"] * trainer.world_size / whole,  # averaged by sync_dist
            "prompts_per_s": self._step["prompts"] / whole,
            "memory_gb": _peak_memory(pl_module.device) / 1e9,
        }
        pl_module.log_dict({f"speed/{name}": value for name, value in metrics.items()}, batch_size=1, sync_dist=True)
        self._step.clear()


class HeapTrimmer(Callback):
    """Returns freed memory to the system every `every_n_batches` batches on a CPU, where tensors are on the heap."""

    def __init__(self, every_n_batches: int = 20) -> None:
        self._every = every_n_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Returns it if that is due."""
        if pl_module.device.type == "cpu" and (batch_idx + 1) % self._every == 0:
            return_freed()


class FaultRecorder(Callback):
    """Appends each unreadable sample of any process to `faults.jsonl`, each fault once; the run continues without
    it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        drop_torn_line(path)
        self._seen = {Fault(**row) for row in read_rows(path)}  # from the run that this one resumes

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Records the batch's faults."""
        found = collectives.join_texts([json.dumps(asdict(fault)) for fault in batch.faults], pl_module.device)
        every = (Fault(**json.loads(text)) for text in found)
        fresh = [fault for fault in dict.fromkeys(every) if fault not in self._seen]
        self._seen.update(fresh)
        if trainer.is_global_zero:
            append_rows(self._path, [asdict(fault) for fault in fresh])


def _short(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with short names and values, to fit 80 columns.

    >>> _short({"train/kl": 0.0123456, "reward": 1.5})
    {'kl': '0.0123', 'reward': '1.5'}
    """
    shown = {name.rpartition("/")[2]: value for name, value in metrics.items()}
    return {name: f"{value:.3g}" if isinstance(value, float | torch.Tensor) else value for name, value in shown.items()}


def _tokens(module: Any, batch: Batch) -> int:
    """Tokens of the batch's prompts and completions; shared ones are counted once."""
    prompts = prompt_tokens(batch)
    if isinstance(module, GrpoModule) and module.last_rollout is not None:
        return prompts + sum(module.last_rollout[1].rollout.lengths)
    return prompts + sum(len(target) for target in batch.targets or ())


def _peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the device, or, on a CPU, of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB except on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
