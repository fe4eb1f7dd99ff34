"""Hydra callbacks: check that the output folder is writable, mask secrets, and print the table after a sweep."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from spacer.errors import of_the_machine
from spacer.terminal.masking import mask_files, mask_logs, told

_ROOM = 65536  # bytes; a run writes more than this before it begins


class WritableFolder(Callback):
    """Reports an output folder that is not writable, where Hydra, which writes to it first, would print a traceback."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the folder of a run."""
        self._check("hydra.run.dir", config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the folder of a sweep."""
        self._check("hydra.sweep.dir", config.hydra.sweep.dir)

    def _check(self, name: str, folder: str) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(bytes(_ROOM))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            known = of_the_machine(error) or f"{error.strerror}: choose another folder"
            sys.exit(told(f"{name}={folder} cannot be written: {known}"))


class MaskedSecrets(Callback):
    """Keeps secrets out of Hydra's files and out of the log."""

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Masks a run, whose configuration has just been written."""
        mask_logs()
        if config.hydra.output_subdir is not None:  # as in the processes that Lightning starts
            mask_files(Path(config.hydra.runtime.output_dir) / config.hydra.output_subdir)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Masks a sweep."""
        mask_files(Path(config.hydra.sweep.dir))


class SweepTable(Callback):
    """Prints the table after a sweep."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table; exits with status 1 where a job is not done."""
        left = tell(Path(config.hydra.sweep.dir))
        if left:
            sys.exit(
                f"{left} job{'s are' if left > 1 else ' is'} not done; the same line again runs only what is missing"
            )


def tell(folder: Path) -> int:
    """Prints the table of the sweep in a folder; returns the number of unfinished jobs."""
    from spacer.sweeping.table import show_sweep
    from spacer.terminal.screen import screen

    return show_sweep(screen(), folder)
