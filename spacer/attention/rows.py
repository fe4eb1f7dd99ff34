"""Which attention a packed row is computed with, and how transformers' layers come to call it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spacer.attention.blocks import BlockAttention
from spacer.attention.flex import FlexAttention
from spacer.attention.interface import TREE, WINDOWS, Attention
from spacer.attention.masked import MaskedAttention
from spacer.tree.packing import PackedRow

# for as long as the tower's tensor with the ends of its windows lives
_RUNS: MutableMapping[Tensor, list[tuple[int, int]]] = WeakTensorKeyDictionary()


def register() -> None:
    """Makes `TREE` an attention implementation of transformers; without `tree` it is ordinary causal attention."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(  # type: ignore[no-untyped-def]
        module, query, key, value, attention_mask, scaling, dropout=0.0, tree: Attention | None = None, **kwargs
    ):
        if tree is None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
            )
        # under autocast, rotation leaves queries and keys in float32; PyTorch's own attention would cast them too
        query, key = query.to(value.dtype), key.to(value.dtype)
        return tree(module.layer_idx, query, key, value, scaling).transpose(1, 2).contiguous(), None

    AttentionInterface.register(TREE, attend)
    AttentionInterface.register(WINDOWS, _attend_in_windows)


def _attend_in_windows(  # type: ignore[no-untyped-def]
    module, query, key, value, attention_mask, scaling, cu_seq_lens_q, dropout=0.0, **kwargs
):
    """The vision tower's attention without a kernel for windows: neighbours of one length together, not one by one."""
    alike = _runs_of_windows(cu_seq_lens_q)
    sizes = [length * count for length, count in alike]
    parts = []
    for (length, _), *tokens in zip(alike, *(x.squeeze(0).split(sizes, 1) for x in (query, key, value)), strict=True):
        windows = (x.unflatten(1, (-1, length)).transpose(0, 1) for x in tokens)
        parts.append(F.scaled_dot_product_attention(*windows, dropout_p=dropout, scale=scaling))
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])[None], None


def _runs_of_windows(ends: Tensor) -> list[tuple[int, int]]:
    """Neighbouring windows of one length: (length, count), read from the device once for all layers of a pass."""
    found = _RUNS.get(ends)
    if found is None:
        found = [(length, len(list(run))) for length, run in groupby(ends.diff().tolist())]
        _RUNS[ends] = found
    return found


def row_attention(row: PackedRow, kind: str, device: torch.device) -> Attention:
    """The attention over `row` by its name: blocks, flex or masked."""
    makers: dict[str, Callable[[], Attention]] = {
        "blocks": lambda: BlockAttention(row),
        "flex": lambda: FlexAttention(row, device),
        "masked": lambda: MaskedAttention(row, device),
    }
    return makers[kind]()


class Prefill:
    """Attends as `inner` does and hands on what a rollout keeps of each layer: keys and values K x L x D."""

    def __init__(self, inner: Attention, keep: Callable[[int, Tensor, Tensor], None]) -> None:
        self._inner = inner
        self._keep = keep

    def __call__(self, layer: int, q_1HLD: Tensor, k_1KLD: Tensor, v_1KLD: Tensor, scale: float) -> Tensor:
        self._keep(layer, k_1KLD[0], v_1KLD[0])
        return self._inner(layer, q_1HLD, k_1KLD, v_1KLD, scale)
