"""FlexAttention over packed rows: the mask's rule, and how often it is compiled, without a GPU."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn.attention import flex_attention as library

from spacer.attention import flex
from spacer.attention.flex import FlexAttention, compiled
from spacer.tree.forest import Completion, Forest, Segment
from spacer.tree.packing import PackedRow, pack

HEADS, KEY_HEADS, CHANNELS = 28, 4, 128  # of the 7B


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lengths at which a row's attention is compiled, by a backend that computes nothing of it."""
    found: list[int] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        found.append(len(found))
        queries = next(x for x in graph.graph.nodes if x.op == "placeholder" and "query" in x.name)
        place = [x for x in graph.graph.nodes if x.op == "placeholder"].index(queries)
        return lambda *given: (torch.empty_like(given[place]),)

    # refuses gradients on a CPU, where nothing here is computed
    monkeypatch.setattr(library, "_validate_device", lambda *_: None)
    torch.compiler.reset()
    monkeypatch.setattr(flex, "attention_on", lambda _: compiled(backend))
    with torch._dynamo.config.patch(recompile_limit=8):  # which is put back
        yield found
    torch.compiler.reset()


def rows(rng: random.Random, questions: list[int], group: int, budget: int) -> list[PackedRow]:
    """Rows of completions for so many questions about each of several videos."""
    segments: list[Segment] = []

    def add(length: int, parent: int | None) -> int:
        ids = torch.zeros(length, dtype=torch.long)
        segments.append(Segment(ids, ids.expand(3, -1), ids - 1, parent))
        return len(segments) - 1

    ends = []
    for asked in questions:
        video = add(rng.randint(300, 1200), None)
        ends += [video] if asked == 1 else [add(rng.randint(3, 90), video) for _ in range(asked)]
    written = [Completion(n, torch.zeros(rng.randint(1, 700))) for n in range(len(ends)) for _ in range(group)]
    return pack(Forest(tuple(segments), tuple(ends)), written, budget)


def attend(row: PackedRow, dtype: torch.dtype, trained: bool) -> None:
    q, k, v = (
        torch.empty(1, heads, len(row), CHANNELS, dtype=dtype, requires_grad=trained)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    with torch.set_grad_enabled(trained):
        FlexAttention(row, torch.device("cpu"))(0, q, k, v, 0.1)


def test_a_run_compiles_no_more_than_pytorch_would_without_a_word(count: list[int]) -> None:
    rng = random.Random(1)
    for questions in ([1], [3, 1], [2, 1, 1], [4], [1, 1]):
        for budget in (500, 3000, 6000):
            for row in rows(rng, questions, 3, budget):
                for trained in (False, True):
                    attend(row, torch.bfloat16, trained)
    assert 2 <= len(count) <= 8


def test_what_is_compiled_too_often_is_an_error(count: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "RECOMPILATIONS", 2)
    (row,) = rows(random.Random(2), [1], 2, 10_000)
    attend(row, torch.bfloat16, True)
    attend(row, torch.float16, True)
    with pytest.raises(FailOnRecompileLimitHit):
        attend(row, torch.float32, True)
    assert len(count) == 2
