"""Weights as decoding wants them: adapters merged into the layers they adapt, and under autocast in its dtype.

A token of a rollout is a handful of rows through each layer, so it takes as long as its weights are read and its
kernels are launched. An adapter beside a layer launches some six kernels more for each, and autocast, whose cache
Lightning turns off, casts every matrix anew for every token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import Linear, Parameter

from spacer.models.unwrap import is_lent, text_model, unwrap


@contextlib.contextmanager
def sampling_weights(model: Any) -> Iterator[None]:
    """Exchanges the weights of the language model's layers and head for copies while it lasts; exact on return.

    Without adapters and autocast nothing is copied, nor of a sharded model, which is gathered whole for a rollout and
    would not fit twice. The copies take the memory of those layers' weights in the dtype of products.
    """
    if is_lent(model):
        yield
        return
    base = unwrap(model)
    adapted = [part for part in base.modules() if hasattr(part, "get_base_layer")]  # peft's layers
    device = base.lm_head.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    cast = [part for part in (*text_model(base).modules(), base.lm_head) if isinstance(part, Linear) and dtype]
    exchanged = {*(part.get_base_layer() for part in adapted), *cast}
    own = [(layer, name, getattr(layer, name)) for layer in exchanged for name in ("weight", "bias")]
    try:
        for part in adapted:
            _exchange(part.get_base_layer())
            part.merge()
            if dtype is not None:  # at once, so that one layer at a time is copied in full width
                _exchange(part.get_base_layer(), dtype)
        for layer in cast:
            if layer.weight.dtype != dtype:
                _exchange(layer, dtype)
        yield
    finally:
        for part in adapted:
            if part.merged:
                part.unmerge()
        for layer, name, parameter in own:
            setattr(layer, name, parameter)


def _exchange(layer: Linear, dtype: torch.dtype | None = None) -> None:
    for name in ("weight", "bias"):
        if (own := getattr(layer, name)) is not None:
            copy = own.detach().to(dtype or own.dtype, copy=True)
            setattr(layer, name, Parameter(copy, requires_grad=False))
