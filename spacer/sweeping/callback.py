"""The end of a sweep: its table is printed, and the command fails where a job did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """What Hydra calls after a sweep."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table; exits with status 1 where a job is not done."""
        left = tell(Path(config.hydra.sweep.dir))
        if left:
            sys.exit(
                f"{left} job{'s are' if left > 1 else ' is'} not done; the same line again runs only what is missing"
            )


def tell(folder: Path) -> int:
    """Prints the table of the sweep in a folder; returns how many of its jobs are not done."""
    from rich.console import Console

    from spacer.report.sweep import show_sweep

    return show_sweep(Console(), folder)
