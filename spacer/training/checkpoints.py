"""Training checkpoints: when they are written, and atomically."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from spacer.distributed.checkpoint_files import REMEDY, read
from spacer.errors import UserError
from spacer.training.preemption import SignalWatcher

log = logging.getLogger(__name__)
LAST = "last.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the same folder and renames it, so a kill leaves the previous one.

    Lightning's own checkpoint IO uses the system's temporary folder, and copies if that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves `checkpoint` to a local file with `torch.save`."""
        assert storage_options is None  # never set in this project
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.tmp")  # a fixed name, so that a leftover of a kill is overwritten
        try:
            with open(beside, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)  # frees the space if the disk is full

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Loads a checkpoint with `read`. Raises UserError if it has weights but no training state."""
        found = read(Path(path), map_location=map_location or "cpu")
        if not {"global_step", "loops"} <= found.keys():
            raise UserError(f"{path} holds only weights, and no training state to resume from: {REMEDY}")
        return found


class Checkpoints(ModelCheckpoint):
    """Saves a checkpoint every `every_n_steps` steps, after the last step, and after the step in which a signal to stop
    arrives.

    In the last case training stops there, on all processes, and `stopped` is true.
    """

    def __init__(self, folder: Path, every_n_steps: int, watch: SignalWatcher) -> None:
        super().__init__(
            dirpath=folder,
            every_n_train_steps=1,  # of those below
            save_last=True,
            save_top_k=0,  # no other files than last.ckpt
            enable_version_counter=False,  # overwrite last.ckpt, without a -v1
        )
        self.stopped = False
        self._folder = folder
        self._every = every_n_steps
        self._watch = watch
        self._before = 0  # the step before the batch
        self._saved = 0  # the last step that is saved

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Starts watching for signals; not earlier, since Lightning installs its own handlers when fitting starts."""
        super().on_train_start(trainer, pl_module)
        self._watch.begin_training()
        self._saved = trainer.global_step
        if trainer.global_step:
            log.info("resuming after step %d", trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remembers the step before the batch, which may make several."""
        self._before = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves if a checkpoint is due, or if any process received a signal to stop."""
        if not pl_module.steps_now(batch_idx):
            return  # accumulated gradients are not part of checkpoints
        if self._before // self._every != trainer.global_step // self._every:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._saved = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self._watch.told is not None, all=False):
            self.stopped = trainer.should_stop = True
            self._save_unless_saved(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Saves the final state, so that a run that is stopped in a later phase need not train again."""
        self._watch.end_training()
        if not self.stopped:  # otherwise the checkpoint would say that the epoch is over
            self._save_unless_saved(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Stops watching for signals."""
        super().on_exception(trainer, pl_module, exception)
        self._watch.end_training()

    def _save_unless_saved(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self._saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set late
            trainer.save_checkpoint(self._folder / LAST)
