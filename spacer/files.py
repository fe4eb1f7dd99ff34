"""Files that outlive a crash."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def drop_torn_line(path: Path) -> None:
    """Cuts off a last line that a crash left without its end, so that what is appended next starts on its own line."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Appends JSON lines; no rows, no file."""
    if not rows:
        return
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines in place of what is there; the file is whole, the old one or the new."""
    write_text(path, (json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Writes text in place of what is there; the file is whole, the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # beside it: a rename is atomic in one file system
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `folder` once it is whole, unless another process was quicker."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield work
        mask = os.umask(0)
        os.umask(mask)
        work.chmod(0o777 & ~mask)  # mkdtemp makes it for this user alone; a cache may be shared
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file whose every line is whole; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
