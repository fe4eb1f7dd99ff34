"""When checkpoints of training are written, and how: whole or not at all."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from spacer.preemption import Watch

log = logging.getLogger(__name__)
LAST = "last.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then moves it there, so that a kill leaves the one before.

    Lightning's own writes in the folder for temporary files, and copies where that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves what `torch.save` takes to a file of this machine."""
        assert storage_options is None  # which nobody sets here
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.tmp")  # one name: what a kill leaves is written over
        with open(beside, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)


class Checkpoints(ModelCheckpoint):
    """A checkpoint every so many steps, after the last one, and after the one at which the run is told to end.

    In the last case training stops there, on all processes, and `stopped` is true.
    """

    def __init__(self, folder: Path, every_n_steps: int, watch: Watch) -> None:
        super().__init__(
            dirpath=folder,
            every_n_train_steps=every_n_steps,
            save_last=True,
            save_top_k=0,  # and no second file of the same
            enable_version_counter=False,  # the last one is always last.ckpt
        )
        self.stopped = False
        self._folder = folder
        self._every = every_n_steps
        self._watch = watch

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begins to note signals; not before, since Lightning sets handlers of its own when it begins to fit."""
        super().on_train_start(trainer, pl_module)
        self._watch.begin_training()
        if trainer.global_step:
            log.info("going on after step %d", trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves when it is time, or where any of the processes was told to end."""
        if not pl_module.steps_now(batch_idx):
            return  # gradients that are gathered for a step are in no checkpoint
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.strategy.reduce_boolean_decision(self._watch.told is not None, all=False):
            self.stopped = trainer.should_stop = True
            self._save_unless_saved(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Saves what training came to: a run that is told to end in a later phase need not train again."""
        self._watch.end_training()
        if not self.stopped:  # else the epoch would count as over
            self._save_unless_saved(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Notes no signals any more."""
        super().on_exception(trainer, pl_module, exception)
        self._watch.end_training()

    def _save_unless_saved(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self._every and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set late
            trainer.save_checkpoint(self._folder / LAST)
