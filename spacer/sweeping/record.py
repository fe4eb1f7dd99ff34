"""The record of a run in its folder, `run.json`: its status and settings."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from spacer.config.settings import Settings
from spacer.errors import UserError, of_the_machine
from spacer.evaluation.conditions import differences
from spacer.files import append_rows, drop_torn_line, read_rows, write_text
from spacer.process import ending
from spacer.sweeping.claim import await_claim, claimed
from spacer.sweeping.naming import is_free
from spacer.sweeping.reuse import Earlier, settle
from spacer.terminal.masking import masked, masked_values

FILE = "run.json"
FAILURES = "failures.jsonl"  # of ranks other than 0
_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "SLURM_PROCID",
)  # set by torchrun, Lightning and srun, in the order in which Lightning looks at them


class Status(StrEnum):
    """The status of a run."""

    queued = "queued"  # submitted to a launcher
    running = "running"  # also if it was killed and nobody has checked since
    done = "done"
    failed = "failed"  # by its own error
    killed = "killed"  # from outside: it resumes from its last checkpoint


@dataclass(frozen=True)
class Record:
    """`run.json`. `score` is the stage's return value, if a number; `seconds` is the duration of the last start."""

    status: Status
    settings: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    reason: str | None = None
    started: str | None = None
    seconds: float | None = None


def recorded(settings: Settings, run: Callable[[Settings], float]) -> float:
    """Runs, and records the outcome in the run's folder, however it ends.

    Rank 0 writes the record, and if the run fails, includes the errors of other ranks, which those write to
    `failures.jsonl`. No two runs use a folder at once, and none takes another's results for its own.

    Raises:
        UserError: the folder is in use, or holds something that this run must not mix with; nothing was written to it.
        Exception: whatever `run` raises.
    """
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    if rank != "0":
        await_claim(folder)
        try:
            with ending.endable(lambda _: None):
                return run(settings)
        except Exception as error:
            append_rows(folder / FAILURES, [{"time": time.time(), "process": int(rank), "reason": told(error)}])
            raise
    with claimed(folder, partial(_settle, settings, folder)):
        return _recorded(settings, folder, run)


def _settle(settings: Settings, folder: Path) -> None:
    """Checks what an earlier run left in the folder; a job that SLURM requeues continues from it."""
    record = read(folder)
    if record is None or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
        return
    # if a sweep submitted the job, the record is the sweep's, which has compared the settings
    stage = "" if record.status == Status.queued else str(dict(record.settings.get("stage", {})).get("name"))
    settle(settings, folder, Earlier(stage, record.status == Status.done, changes(record.settings, plain(settings))))


def _recorded(settings: Settings, folder: Path, run: Callable[[Settings], float]) -> float:
    drop_torn_line(folder / FAILURES)
    start, started = time.monotonic(), datetime.now().astimezone()
    record = Record(Status.running, plain(settings), started=f"{started:%Y-%m-%dT%H:%M:%S%z}")
    write(folder, record)

    def ended(**how: Any) -> None:
        write(folder, replace(record, seconds=round(time.monotonic() - start, 1), **how))

    def broke(status: Status, error: BaseException) -> None:
        ended(status=status, reason="; ".join([told(error, str(folder)), *_others(folder, started.timestamp())]))

    try:
        with ending.endable(lambda signum: ended(status=Status.killed, reason=f"{signum.name}, heard of too late")):
            score = run(settings)
    except Exception as error:
        broke(Status.failed, error)
        raise
    except BaseException as error:  # Ctrl-C, or the exit that a signal handler asks for
        broke(Status.killed, error)
        raise
    ended(status=Status.done, score=float(score) if math.isfinite(score) else None)
    return score


def _others(folder: Path, since: float) -> list[str]:
    """Errors of the run's other ranks since a time, in seconds of the epoch."""
    drop_torn_line(folder / FAILURES)  # a rank may be killed while it writes
    failures = [row for row in read_rows(folder / FAILURES) if row["time"] >= since]
    return [f"process {row['process']}: {row['reason']}" for row in failures]


def write(folder: Path, record: Record) -> None:
    """Writes `run.json` atomically.

    On a full disk, the outcome is written over the existing file in no more space: the settings stay, and the status is
    no longer running.
    """
    values = asdict(record)
    try:
        write_text(folder / FILE, [json.dumps(values, indent=2, ensure_ascii=False), "\n"])
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not (folder / FILE).is_file():
            raise
        with open(folder / FILE, "r+b") as file:
            room = len(file.read())
            text = json.dumps(values, ensure_ascii=False).encode()  # shorter, without the indentation
            if len(text) > room:
                text = json.dumps(asdict(Record(record.status, record.settings))).encode()
            if len(text) <= room:
                file.seek(0)
                file.write(text + b" " * (room - len(text)))


def read(folder: Path) -> Record | None:
    """The contents of `run.json`; None if there is none. Raises UserError if it is malformed."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Record(**values | {"status": Status(values["status"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / FILE} is damaged ({error!r}): move it away, or choose another folder, hydra.run.dir=…"
        ) from error


def says_nothing(folder: Path) -> bool:
    """Whether no run has recorded in the folder how it ended."""
    record = read(folder)
    return record is None or record.status in (Status.queued, Status.running)


def told(error: BaseException, folder: str | None = None) -> str:
    """Formats an error; a user's mistake or a machine limit by its message alone. `folder` is the run's."""
    known = error if isinstance(error, UserError) else of_the_machine(error, folder)
    if known is not None:
        return masked(str(known))
    return ending.name_of(error) or masked(f"{type(error).__name__}: {error}".removesuffix(": "))


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON types, without secrets."""
    values: dict[str, Any] = masked_values(json.loads(json.dumps(asdict(settings))))
    return values


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describes how two runs' settings differ, ignoring settings that change no result."""
    return [change for change in differences("", before, now) if not is_free(change.partition(":")[0])]


def resumable(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return (folder / "checkpoints" / "last.ckpt").exists()
