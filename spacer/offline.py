"""W&B without an account: whether there is one, and the offline runs of a run folder, made whole after a kill.

W&B writes offline runs in blocks of 32 KiB. A kill leaves a file that ends within a record, or that holds nothing yet,
and `wandb sync` then refuses it together with all that came after it. W&B has no public reader of these files; their
form is that of LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md) with a header of seven
bytes and the CRC-32 of zip files, and the records are `wandb.proto`'s.
"""

from __future__ import annotations

import logging
import netrc
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

log = logging.getLogger(__name__)
_HEADER = b":W&B"
_HEADER_LENGTH = 7
_BLOCK = 32 * 1024
_PIECE = struct.Struct("<IHB")  # of a record: checksum, length, and whether it is whole, its first part, inner or last
_WHOLE, _FIRST, _LAST = 1, 2, 4


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


def offline_runs(folder: Path, run_id: str) -> list[Path]:
    """The files of a run's offline parts, in the order of their starts."""
    return sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))


def mend(folder: Path, run_id: str) -> int:
    """Makes the offline parts of a run, which has ended, whole again; returns the first step that none of them holds.

    What stands behind the last whole record is cut off, and a part without a run is removed. Parts of before that are
    whole, or were synced, are left as they are.
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
    """The whole records of a `.wandb` file, each with the place where it ends; stops at one that is cut off."""
    content = path.read_bytes()
    place, parts = _HEADER_LENGTH, b""
    if not content.startswith(_HEADER):
        return
    while place + _PIECE.size <= len(content):
        room = _BLOCK - place % _BLOCK
        if room < _PIECE.size:  # too little for a piece: zeros up to the next block
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
