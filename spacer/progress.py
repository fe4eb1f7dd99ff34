"""Bars on a terminal, lines in a log file: what a bar writes there would be control codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines


class _Lines:
    """A file to which each state of a bar goes as a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._file.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        self._file.flush()


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """`tqdm`, with its options, on a terminal. Where standard error is none, it tells a line every half minute."""
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    lines: Any = _Lines(sys.stderr)
    told = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed}"
    return tqdm(iterable, **{"unit": "", **options, "mininterval": EVERY, "bar_format": told, "file": lines})
