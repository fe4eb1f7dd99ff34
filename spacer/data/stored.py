"""Lazily read encoded images, from files, parquet, tab-separated files or base64 text."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, overload

from spacer.errors import MediaError


class LazyImages(Sequence[bytes]):
    """The encoded images of a question, read on access, since those of a whole benchmark take gigabytes."""

    def read(self) -> list[bytes]:
        """All images."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self.read()[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read())

    def __len__(self) -> int:
        return len(self.read())

    def __bool__(self) -> bool:
        return True  # without reading the images


@dataclass(frozen=True)
class StoredImages(LazyImages):
    """The images of a parquet row. Each of `columns` holds one, as bytes or {"bytes"}, or a list of them, or null."""

    path: Path
    row: int
    columns: tuple[str, ...]

    def read(self) -> list[bytes]:
        """The images, in the order of the columns."""
        group, offset = _place(self.path, self.row)
        cells = [_column(self.path, group, column)[offset].as_py() for column in self.columns]
        found = [image for cell in cells for image in (cell if isinstance(cell, list) else [cell]) if image is not None]
        return [image["bytes"] if isinstance(image, dict) else image for image in found]


@dataclass(frozen=True)
class FileImages(LazyImages):
    """Images in files of their own, which may be absent."""

    paths: tuple[Path, ...]

    def read(self) -> list[bytes]:
        """The images in order. Raises MediaError for a file that is missing or cannot be read."""
        try:
            return [path.read_bytes() for path in self.paths]
        except OSError as error:
            raise MediaError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class EncodedImages(LazyImages):
    """Images as base64 text."""

    texts: tuple[str, ...]

    def read(self) -> list[bytes]:
        """The images in order. Raises MediaError if a text is not base64."""
        try:
            return [base64.b64decode(text, validate=True) for text in self.texts]
        except ValueError as error:
            raise MediaError(f"an image in the annotation is not valid base64: {error}") from error

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TsvImages(LazyImages):
    """An image as base64 text in a column of a tab-separated file, in the record at byte `offset`."""

    path: Path
    offset: int
    column: int

    def read(self) -> list[bytes]:
        """The image. Raises MediaError if it is not base64 or the file cannot be read."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                record = next(tsv_records(file))[1]
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be read: {error.strerror}") from error
        return EncodedImages((record[self.column],)).read()

    def __len__(self) -> int:
        return 1


def tsv_records(file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """The records of a tab-separated file, each with its byte offset; quoted cells may contain newlines."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold an image
    begun: list[int] = []

    def lines() -> Iterator[str]:
        at = file.tell()
        for line in file:
            begun.append(at)
            at += len(line)
            yield line.decode("utf-8-sig" if at == len(line) else "utf-8")

    for record in csv.reader(lines(), delimiter="\t"):
        start = begun[0]
        begun.clear()
        if record:
            yield start, record


def _place(path: Path, row: int) -> tuple[int, int]:
    """The row group of a row, and the row's index in it."""
    for group, size in enumerate(_group_sizes(path)):
        if row < size:
            return group, row
        row -= size
    raise IndexError(f"{path} has no such row")


@lru_cache(maxsize=64)
def _group_sizes(path: Path) -> tuple[int, ...]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    return tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))


@lru_cache(maxsize=1)  # questions are asked in file order, so each row group is read once
def _column(path: Path, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=[column])[column]
