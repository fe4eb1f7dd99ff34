"""Runs file decoding that may crash in a separate process, so that a crash costs one file only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from spacer.process import pool
from spacer.terminal.progress import progress_bar

T = TypeVar("T")
R = TypeVar("R")


def aside(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R | None]:
    """Yields `function(item)` for each item, in order; None where its process crashed. `what` labels the bar."""
    return pool.aside(function, progress_bar(items, desc=what))
