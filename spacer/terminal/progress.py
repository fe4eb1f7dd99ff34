"""Progress bars on a terminal, and plain lines in a log file, where a bar would write control codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from spacer.terminal.printable import one_line

EVERY = 30.0  # seconds between lines


class _Lines:
    """A file wrapper that writes each state of a bar as a separate line."""

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
    """`tqdm` with its options. If standard error is not a terminal, it writes a line every `EVERY` seconds instead."""
    if "desc" in options:
        options["desc"] = one_line(options["desc"])  # may contain a file name
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    lines: Any = _Lines(sys.stderr)
    told = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed}"
    return tqdm(iterable, **{"unit": "", **options, "mininterval": EVERY, "bar_format": told, "file": lines})
