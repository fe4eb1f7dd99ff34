"""Independent parts of a computation beside each other on a CPU, each with a share of its cores.

Threads that divide up each operation wait for each other after each, and while Python goes from one to the next. Parts
that have nothing to do with each other need not: each of them computes in a thread of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

AT_ONCE = 2  # parts that are in memory together

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once() -> int:
    """How many parts a CPU is to compute side by side: one under autocast, whose copies of weights threads share."""
    return 1 if torch.is_autocast_enabled("cpu") else min(AT_ONCE, torch.get_num_threads())


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], lanes: int) -> list[Result]:
    """`function` of each item, in the order of the items, computed in so many lanes: item n in lane n modulo `lanes`.

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


def train_side_by_side(
    function: Callable[[Any, Item], Result], model: nn.Module, items: Sequence[Item], lanes: int
) -> list[Result]:
    """`function` of the model and each item, in the order of the items; their backward passes add to its gradients.

    Every lane but the first is given a model with the same weights and gradients of its own. These are added up when
    all lanes have ended, in the order of the lanes, so that no sum depends on which of them was faster.
    """
    lanes = min(lanes, len(items))
    models = [model, *(_with_own_gradients(model) for _ in range(lanes - 1))]
    results = side_by_side(lambda n: function(models[n % lanes], items[n]), range(len(items)), lanes)
    for other in models[1:]:
        for whole, part in zip(model.parameters(), other.parameters(), strict=True):
            if part.grad is not None:
                whole.grad = part.grad if whole.grad is None else whole.grad.add_(part.grad)
    return results


def _with_own_gradients(model: nn.Module) -> nn.Module:
    """A model that shares all tensors but the gradients."""
    shared: dict[int, Any] = {id(x): nn.Parameter(x.detach(), x.requires_grad) for x in model.parameters()}
    return copy.deepcopy(model, shared | {id(x): x for x in model.buffers()})
