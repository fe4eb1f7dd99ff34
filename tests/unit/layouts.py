"""Layouts of text, images and videos, for tests of positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from spacer.tree.mrope import IMAGE, TEXT, VIDEO

Grid = tuple[int, int, int]
Block = tuple[int, Grid]  # its type, and time, height and width in patches

even = st.integers(1, 6).map(lambda half: 2 * half)
images = st.tuples(st.just(IMAGE), st.tuples(st.just(1), even, even))
videos = st.tuples(st.just(VIDEO), st.tuples(st.integers(1, 6), even, even))


def types(*runs: tuple[int, int]) -> Tensor:
    """Token types from runs of (type, length)."""
    return torch.tensor([kind for kind, length in runs for _ in range(length)])


def laid_out(blocks: Sequence[Block], texts: Sequence[int]) -> Tensor:
    """Token types of blocks with `texts[i]` text tokens before block i, and the last of `texts` after all."""
    runs: list[tuple[int, int]] = []
    for (kind, (t, h, w)), before in zip(blocks, texts, strict=False):
        runs += [(TEXT, before), (kind, t * h * w // 4)]
    return types(*runs, (TEXT, texts[len(blocks)]))
