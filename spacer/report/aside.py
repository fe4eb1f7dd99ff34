"""Work on files that may bring a decoder down, in a process of its own: what dies with it is one file alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from spacer.progress import progress_bar

T = TypeVar("T")
R = TypeVar("R")


def aside(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R | None]:
    """What the function gives for each item, in order; None where its process died of it. `what` names the bar."""
    workers: ProcessPoolExecutor | None = None
    try:
        for item in progress_bar(items, desc=what):
            workers = workers or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            try:
                yield workers.submit(function, item).result()
            except BrokenProcessPool:
                workers.shutdown()
                workers = None
                yield None
    finally:
        if workers is not None:
            workers.shutdown()
