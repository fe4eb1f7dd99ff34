"""Attention by PyTorch's scaled dot product with the dense mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spacer.attention.interface import per_query_head
from spacer.tree.packing import PackedRow


class MaskedAttention:
    """`F.scaled_dot_product_attention` with the dense mask."""

    def __init__(self, row: PackedRow, device: torch.device) -> None:
        self._mask = row.mask()[None, None].to(device)

    def __call__(self, layer: int, q_1HLD: Tensor, k_1KLD: Tensor, v_1KLD: Tensor, scale: float) -> Tensor:
        k, v = per_query_head(q_1HLD, k_1KLD, v_1KLD)
        return F.scaled_dot_product_attention(q_1HLD, k, v, attn_mask=self._mask, scale=scale)
