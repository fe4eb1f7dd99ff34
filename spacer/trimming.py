"""The last decoder layer, for the tokens that are read alone.

Nothing attends to what the last layer makes of a token, and of a packed row's tokens few are looked at after it: those
that predict one. Of all others, which are a prompt's as a rule, the layer needs keys and values; queries, attention,
output projection and MLP are left out. Which tokens are read a forward pass says by its `tree` (`spacer.attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def trim(decoder: Any) -> None:
    """Makes the last layer of a text model skip what is not read. The states of tokens that are not mean nothing.

    Call it when the layer has its adapters, if any: they are then inside of what is skipped.
    """
    layer, reads = decoder.layers[-1], _Reads()
    layer.register_forward_pre_hook(reads.begin, with_kwargs=True)
    for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp):
        part.register_forward_pre_hook(reads.take)
        part.register_forward_hook(reads.put_back)


class _Reads:
    """The hooks of a layer, and what they have in common from its begin to its end.

    A layer that is computed again in the backward pass begins again. It holds no module, so that a copy of a model has
    a copy of this.
    """

    def __init__(self) -> None:
        self._places_R: Tensor | None = None
        self._length = 0

    def begin(self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Before the layer."""
        tree = kwargs.get("tree")
        self._places_R = None if tree is None else tree.reads_R

    def take(self, part: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Before a part of it: 1LH → 1RH."""
        if self._places_R is None:
            return None
        (states_1LH,) = args
        self._length = states_1LH.shape[1]
        return (states_1LH.index_select(1, self._places_R),)

    def put_back(self, part: nn.Module, args: tuple[Tensor, ...], states_1RH: Tensor) -> Tensor | None:
        """After it: 1RH → 1LH, zero where nothing is read."""
        if self._places_R is None:
            return None
        states_1LH = states_1RH.new_zeros(1, self._length, states_1RH.shape[2])
        return states_1LH.index_copy_(1, self._places_R, states_1RH)
