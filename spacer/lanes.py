"""Independent parts of a computation beside each other on a CPU, each with a share of its cores.

Threads that divide up each operation wait for each other after each, and while Python goes from one to the next. Parts
that have nothing to do with each other need not: each of them computes in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

AT_ONCE = 2  # parts that are in memory together

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once() -> int:
    """How many parts a CPU is to compute side by side: one under autocast, whose copies of weights threads share."""
    return 1 if torch.is_autocast_enabled("cpu") else min(AT_ONCE, torch.get_num_threads())


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], lanes: int) -> list[Result]:
    """`function` of each item, in the order of the items, computed in so many lanes.

    With one it is an ordinary map. The caller's thread is one of them, since memory that a thread lets go of is its own
    to use again. The first error of a lane ends that lane, and is raised when all have ended.
    """
    lanes = min(lanes, len(items))
    if lanes < 2:
        return [function(item) for item in items]
    threads, grad, inference = torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def compute(lane: int) -> list[Result]:
        torch.set_num_threads(threads // lanes)
        # each thread has modes of its own
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return [function(item) for item in items[lane::lanes]]

    results: list[Result] = [None] * len(items)  # type: ignore[list-item]
    try:
        with ThreadPoolExecutor(lanes - 1) as pool:
            others = [pool.submit(compute, lane) for lane in range(1, lanes)]
            results[::lanes] = compute(0)
            for lane, other in enumerate(others, 1):
                results[lane::lanes] = other.result()
    finally:
        torch.set_num_threads(threads)  # this thread's, and MKL's number, which is one for all threads
    return results
