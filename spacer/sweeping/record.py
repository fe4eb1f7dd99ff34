"""What a run's folder says of it: `run.json`, with how it stands and the settings that it runs with."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.evaluation.conditions import differences
from spacer.files import append_rows, drop_torn_line, read_rows, write_text
from spacer.settings import Settings
from spacer.sweeping.naming import is_free

FILE = "run.json"
FAILURES = "failures.jsonl"  # of processes other than the first
_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "SLURM_PROCID",
)  # of torchrun, Lightning and srun; Lightning looks at them in this order


class Status(StrEnum):
    """How a run stands."""

    queued = "queued"  # handed to a launcher
    running = "running"  # also where it was killed and nobody has looked since
    done = "done"
    failed = "failed"  # by an error of its own
    killed = "killed"  # from outside: it goes on from its last checkpoint


@dataclass(frozen=True)
class Record:
    """`run.json`. `score` is what the stage returns, if a number; `seconds` are those of the last start."""

    status: Status
    settings: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    reason: str | None = None
    started: str | None = None
    seconds: float | None = None


def recorded(settings: Settings, run: Callable[[Settings], float]) -> float:
    """Runs, and leaves word of it in the run's folder, whichever way it ends.

    Of a run's several processes the first one writes, and where the run fails, it has the others' errors, too: these
    end up in `failures.jsonl`. Raises what `run` raises.
    """
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    if rank != "0":
        try:
            return run(settings)
        except Exception as error:
            append_rows(folder / FAILURES, [{"time": time.time(), "process": int(rank), "reason": told(error)}])
            raise
    drop_torn_line(folder / FAILURES)
    start, started = time.monotonic(), datetime.now().astimezone()
    record = Record(Status.running, plain(settings), started=f"{started:%Y-%m-%dT%H:%M:%S%z}")
    write(folder, record)

    def ended(**how: Any) -> None:
        write(folder, replace(record, seconds=round(time.monotonic() - start, 1), **how))

    def broke(status: Status, error: BaseException) -> None:
        ended(status=status, reason="; ".join([told(error), *_others(folder, started.timestamp())]))

    try:
        score = run(settings)
    except Exception as error:
        broke(Status.failed, error)
        raise
    except BaseException as error:  # Ctrl-C, or the end that a signal's handler asks for
        broke(Status.killed, error)
        raise
    ended(status=Status.done, score=float(score) if math.isfinite(score) else None)
    return score


def _others(folder: Path, since: float) -> list[str]:
    """Why other processes of the run have failed since a time, in seconds of the epoch."""
    drop_torn_line(folder / FAILURES)  # one may be killed while it tells
    failures = [row for row in read_rows(folder / FAILURES) if row["time"] >= since]
    return [f"process {row['process']}: {row['reason']}" for row in failures]


def write(folder: Path, record: Record) -> None:
    """Writes `run.json`; the file is whole, the old one or the new."""
    write_text(folder / FILE, [json.dumps(asdict(record), indent=2, ensure_ascii=False), "\n"])


def read(folder: Path) -> Record | None:
    """What `run.json` says; None where there is none."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Record(**values | {"status": Status(values["status"])})


def says_nothing(folder: Path) -> bool:
    """Whether no run has left word in the folder of how it ended."""
    record = read(folder)
    return record is None or record.status in (Status.queued, Status.running)


def told(error: BaseException) -> str:
    """An error in words, a user's mistake by its message alone."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".removesuffix(": ")


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON holds them."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How two runs' settings differ, in words, but for what changes no figure."""
    return [change for change in differences("", before, now) if not is_free(change.partition(":")[0])]


def resumable(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (folder / "checkpoints" / "last.ckpt").exists()
