"""Independent parts of a computation beside each other on a CPU, each with a share of its cores.

Threads that divide up each operation wait for each other after each, and while Python goes from one to the next. Parts
that have nothing to do with each other need not: each of them computes in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

AT_ONCE = 2  # parts that are in memory together

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once() -> int:
    """How many parts a CPU is to compute side by side: one under autocast, whose copies of weights are for all threads,
    and in what is itself a lane."""
    alone = torch.is_autocast_enabled("cpu") or getattr(_lane, "begun", False)
    return 1 if alone else min(AT_ONCE, torch.get_num_threads())


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], lanes: int) -> Iterator[Result]:
    """`function` of each item, in the order of the items, so many at a time.

    With one lane it is an ordinary map. The first error of any item, in their order, is raised.
    """
    lanes = min(lanes, len(items))
    if lanes < 2:
        yield from map(function, items)
        return
    threads, grad, inference = torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def begin() -> None:
        _lane.begun = True
        torch.set_num_threads(threads // lanes)

    def compute(item: Item) -> Result:
        # each thread has modes of its own
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(item)

    try:
        with ThreadPoolExecutor(lanes, initializer=begin) as pool:
            yield from pool.map(compute, items)
    finally:
        torch.set_num_threads(threads)  # MKL's number is one for all threads


_lane = threading.local()
