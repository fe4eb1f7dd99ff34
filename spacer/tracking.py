"""Where metrics go: the history file always, W&B when asked for."""

from __future__ import annotations

import netrc
import os
import re
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spacer.files import write_text
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


def _run_id(folder: Path) -> str | None:
    """The same for every start of a run in the same folder, so that a resumed run goes on with its curves.

    It is drawn at the first one and kept in `wandb_id`: folders of sweeps are called alike on every machine, and W&B
    would take their runs for one. None in all processes but the first, which alone logs.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # which Lightning sets
        return None
    file = folder / "wandb_id"
    if not file.exists():
        name = re.sub(r"[^\w.=-]+", "-", folder.resolve().name, flags=re.ASCII)[:48]
        write_text(file, [f"{name}-{secrets.token_hex(4)}\n"])
    return file.read_text(encoding="utf-8").strip()


def mark_preempting(loggers: list[Logger]) -> None:
    """Has W&B show the run as one that will go on, once it has ended."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.mark_preempting()


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
