"""Crash-safe files: atomic writes, append-only JSONL, and guarded reads."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from spacer.errors import UserError, refused

LONGEST_YAML = 1 << 20  # characters
DEEPEST_YAML = 50


def drop_torn_line(path: Path) -> None:
    """Removes an incomplete last line, left by a crash, so that the next append starts on a new line."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Appends rows as JSON lines; without rows, does not create the file."""
    if not rows:
        return
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Atomically replaces the file with JSON lines."""
    write_text(path, (json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Atomically replaces the file with the concatenation of `pieces`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, since a rename is atomic only within a file system
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Yields a temporary folder, which is renamed to `folder` on success, unless another process was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield work
        mask = os.umask(0)
        os.umask(mask)
        work.chmod(0o777 & ~mask)  # mkdtemp allows only this user; a cache may be shared
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_ordinary(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read, or is not a regular file: opening a pipe would wait for a writer, and some devices
            never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file, but a pipe, a device or a folder", str(path))
        return file.read()


def check_readable(path: Path) -> None:
    """Reads a file after a decoder has failed on it, since decoders do not distinguish damage from denied access.

    Raises:
        UserError: the operating system fails to open or read it, so the file itself is not at fault.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        if (known := refused(error, path)) is not None:
            raise known from error


def refuse_bombs(text: str) -> None:
    """Raises ValueError for invalid YAML, and for YAML that could expand to far more than its own length.

    An alias repeats its anchor's value: ten lines of ten aliases each expand to billions of values.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text):,} characters, but the limit is {LONGEST_YAML:,}")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):  # a lazy generator
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases (*name), which are not supported: write out what they repeat")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_YAML:
                raise ValueError(f"it is nested more than {DEEPEST_YAML} levels deep")
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def parse_yaml(text: str) -> Any:
    """Parses YAML without aliases.

    Raises:
        ValueError: it is invalid, has aliases, is nested too deeply, or has numbers with too many digits.
    """
    refuse_bombs(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; empty if there is no file.

    Raises:
        UserError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # also for invalid UTF-8
            raise _damaged(path, number, str(error)) from error
        if not isinstance(row, dict):
            raise _damaged(path, number, "not an object")
        rows.append(row)
    return rows


def _damaged(path: Path, number: int, why: str) -> UserError:
    return UserError(
        f"{path}, line {number}, is damaged ({why}): remove the line, or move the file away to have it recreated"
    )
