"""Attention by PyTorch's FlexAttention: one kernel, compiled from the mask's rule, that skips empty blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from spacer.tree.packing import PackedRow, sees

# A run compiles with gradients and without, and anew where rows have one block, or as many as the model has heads.
# PyTorch's own limit is 8, past which it computes with an L x L tensor and only warns; here it is an error
RECOMPILATIONS = 64


class FlexAttention:
    """PyTorch's FlexAttention, compiled for all rows, with a block mask made for each."""

    def __init__(self, row: PackedRow, device: torch.device) -> None:
        below_L = row.below_L.to(device)

        def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return sees(below_L, query, key)

        self._attend = attention_on(device)
        self._mask = create_block_mask(seen, None, None, len(row), len(row), device=str(device))

    def __call__(self, layer: int, q_1HLD: Tensor, k_1KLD: Tensor, v_1KLD: Tensor, scale: float) -> Tensor:
        output: Tensor = self._attend(
            q_1HLD, k_1KLD, v_1KLD, block_mask=self._mask, scale=scale, enable_gqa=q_1HLD.shape[1] != k_1KLD.shape[1]
        )
        return output


def attention_on(device: torch.device) -> Any:
    """What is called: compiled where there is a kernel to compile to; elsewhere the plain computation, for tests."""
    return compiled() if device.type == "cuda" else flex_attention


@cache
def compiled(backend: str | Callable[..., Any] = "inductor") -> Any:
    """`flex_attention` as one graph for rows of any length.

    What cannot be one graph, or is compiled more than `RECOMPILATIONS` times, is an error of PyTorch's.
    """
    # private: torch.compile has an argument for it since 2.14 only
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    return torch.compile(flex_attention, fullgraph=True, dynamic=True, backend=backend)
