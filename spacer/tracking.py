"""Where metrics go: the history file always, W&B when asked for."""

from __future__ import annotations

import netrc
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import Logger, WandbLogger

from spacer.report.history import HistoryLogger
from spacer.settings import Settings


def wandb_mode() -> str:
    """`WANDB_MODE` where it is set; else online when a key is at hand, and offline when none is.

    W&B itself would ask at the terminal and wait for an answer.
    """
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (FileNotFoundError, netrc.NetrcParseError):
        return "offline"
    return "online" if host in known else "offline"


def make_loggers(settings: Settings, folder: Path) -> list[Logger]:
    """The loggers of a run that writes to `folder`."""
    loggers: list[Logger] = [HistoryLogger(folder / "history.jsonl")]
    if settings.logger.kind == "wandb":
        # its banners would break into the progress bar; where the run lies is told at the end
        os.environ.setdefault("WANDB_SILENT", "true")
        # pictures of tables are kept beside the run until they are synced, not in the home folder
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
        loggers.append(
            WandbLogger(
                project=settings.logger.project,
                entity=settings.logger.entity,
                group=settings.logger.group,
                name=settings.logger.name or folder.name,
                id=_run_id(folder),
                resume="allow",
                save_dir=str(folder),
                mode=wandb_mode(),
                config=asdict(settings),
                settings={"silent": True, "console": "off"},
            )
        )
    return loggers


def _run_id(folder: Path) -> str:
    """The same for every start of a run in the same folder, so that a resumed run goes on with its curves."""
    return "-".join(folder.resolve().parts[-2:]).replace(":", "-")[-64:]


def close_until_resumed(loggers: list[Logger]) -> None:
    """Sends what W&B has not got yet, and has it show the run as one that will go on."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.mark_preempting()
            logger.experiment.finish(exit_code=1)  # 0 would say that it is done


def finish(loggers: list[Logger], pictures: dict[str, Path], summary: dict[str, Any]) -> str | None:
    """Sends the last figures to W&B and closes the run; returns how to sync it when it is offline."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            run = logger.experiment
            run.summary.update(summary)
            run.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
            offline, where = run.offline, run.dir
            run.finish()
            return f"wandb sync {Path(where).parent}" if offline else None
    return None
