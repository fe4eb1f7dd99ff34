"""W&B without an account: whether it is logged in, and repair of a run folder's offline runs after a kill.

W&B writes offline runs in blocks of 32 KiB. A kill may leave a file that ends within a record or holds none yet, and
`wandb sync` then refuses it together with everything after it. W&B has no public reader of these files; their
format is that of LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md) with a header of seven
bytes and the CRC-32 of zip files, and the records are `wandb.proto`'s.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

from spacer.errors import UserError

log = logging.getLogger(__name__)
_HEADER = b":W&B"
_HEADER_LENGTH = 7
_BLOCK = 32 * 1024
_PIECE = struct.Struct("<IHB")  # checksum, length, and kind: a whole record, or its first, inner or last part
_WHOLE, _FIRST, _LAST = 1, 2, 4


def wandb_mode() -> str:
    """`WANDB_MODE` where it is set; else online if W&B is logged in, and offline if not.

    W&B would otherwise prompt on the terminal and wait. If this returns offline, everything in the process is offline.

    Raises:
        UserError: the credentials that it would log in with are malformed.
    """
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    settings = wandb.setup().settings
    silent, settings.silent = settings.silent, True  # else login asks the server for a user name, and waits for it
    try:
        mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        raise UserError(
            f"W&B cannot log in ({str(error).rstrip('.')}): run `wandb login --relogin`, or set WANDB_MODE=offline, or "
            "logger=csv"
        ) from error
    finally:
        settings.silent = silent
    if mode == "offline":
        os.environ["WANDB_MODE"] = "offline"  # for child processes
        wandb.setup(wandb.Settings(mode="offline"))  # W&B has already read the environment
    return mode


def offline_runs(folder: Path, run_id: str) -> list[Path]:
    """The files of a run's offline parts, in the order in which they started."""
    return sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))


def repair(folder: Path, run_id: str) -> int:
    """Repairs the offline parts of a run that has ended; returns the first step that none of them holds.

    Anything after the last whole record is cut off, and a part without a run is removed. Earlier parts that are
    whole or synced are left as they are.
    """
    held = 0
    for path in offline_runs(folder, run_id):
        begun, whole = False, _HEADER_LENGTH
        for record, end in read_records(path):
            begun, whole = begun or record.HasField("run"), end
            if record.HasField("history"):
                held = max(held, record.history.step.num + 1)
        if not begun:
            shutil.rmtree(path.parent)
        elif whole < path.stat().st_size:
            log.info("%s ends within a record, where a kill cut it off: the rest of it is removed", path)
            with open(path, "rb+") as file:
                file.truncate(whole)
    return held


def read_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yields the whole records of a `.wandb` file, each with its end offset; stops at a truncated one."""
    content = path.read_bytes()
    place, parts = _HEADER_LENGTH, b""
    if not content.startswith(_HEADER):
        return
    while place + _PIECE.size <= len(content):
        room = _BLOCK - place % _BLOCK
        if room < _PIECE.size:  # too little for a header: zeros up to the next block
            place += room
            continue
        checksum, length, kind = _PIECE.unpack_from(content, place)
        body = content[place + _PIECE.size : place + _PIECE.size + length]
        if len(body) < length or checksum != zlib.crc32(bytes([kind]) + body):
            return
        place += _PIECE.size + length
        parts = body if kind in (_WHOLE, _FIRST) else parts + body
        if kind in (_WHOLE, _LAST):
            yield Record.FromString(parts), place
