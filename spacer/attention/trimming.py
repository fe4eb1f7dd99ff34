"""The last decoder layer, for the tokens that are read alone.

Nothing attends to what the last layer makes of a token, and of a packed row's tokens few are looked at after it: those
that predict one. Of all others, which are a prompt's as a rule, the layer needs keys and values; queries, attention,
output projection and MLP are left out. Which tokens are read a forward pass says by its `tree` (`spacer.attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

# the tokens that the layer at work is to compute, of so many; None for all. A thread has its own
_reads: ContextVar[tuple[Tensor, int] | None] = ContextVar("reads", default=None)


def trim(decoder: Any) -> None:
    """Makes the last layer of a text model skip what is not read. The states of tokens that are not mean nothing.

    Call it when the layer has its adapters, if any: they are then inside of what is skipped.
    """
    layer = decoder.layers[-1]
    layer.register_forward_pre_hook(_begin, with_kwargs=True)
    for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp):
        part.register_forward_pre_hook(_take)
        part.register_forward_hook(_put_back)


def _begin(layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> None:
    """Before the layer, also where it is computed again in the backward pass."""
    tree = kwargs.get("tree")
    places_R = None if tree is None else tree.output_tokens_R
    _reads.set(None if places_R is None else (places_R, args[0].shape[1]))


def _take(part: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Before a part of it: 1LH → 1RH."""
    reads = _reads.get()
    if reads is None:
        return None
    (states_1LH,) = args
    return (states_1LH.index_select(1, reads[0]),)


def _put_back(part: nn.Module, args: tuple[Tensor, ...], states_1RH: Tensor) -> Tensor | None:
    """After it: 1RH → 1LH, zero where nothing is read."""
    reads = _reads.get()
    if reads is None:
        return None
    places_R, length = reads
    states_1LH = states_1RH.new_zeros(1, length, states_1RH.shape[2])
    return states_1LH.index_copy_(1, places_R, states_1RH)
