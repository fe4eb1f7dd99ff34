"""Weights as decoding wants them: under autocast in its dtype, and in float32 with adapters merged.

A token of a rollout is a handful of rows through each layer, so it takes as long as its weights are read and its
kernels are launched. Autocast, whose cache Lightning turns off, casts every matrix anew for every token. An adapter
beside a layer launches some six kernels more; but merged in 16 bits, most of what the first steps add to a weight would
be rounded away, and rollouts would lag behind the policy: there, adapters stay beside their layers.
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

    Nothing is copied without autocast, unless adapters are merged, nor of a sharded model, which is gathered whole for
    a rollout and would not fit twice. The copies take the memory of those layers' weights in the dtype of products.
    """
    if is_lent(model):
        yield
        return
    base = unwrap(model)
    device = base.lm_head.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    wide = (dtype or base.lm_head.weight.dtype) in (torch.float32, torch.float64)
    merged = [part for part in base.modules() if wide and hasattr(part, "get_base_layer")]  # peft's layers
    layers = [part for part in (*text_model(base).modules(), base.lm_head) if isinstance(part, Linear)]
    cast = [layer for layer in layers if dtype is not None and layer.weight.dtype != dtype]
    exchanged = {*(part.get_base_layer() for part in merged), *cast}
    own = [(layer, name, getattr(layer, name)) for layer in exchanged for name in ("weight", "bias")]
    try:
        for part in merged:
            _exchange(part.get_base_layer())
            part.merge()
        for layer in cast:
            _exchange(layer, dtype)
        yield
    finally:
        for part in merged:
            part.merged_adapters.clear()  # not `unmerge`, which computes what is thrown away, and may run out of memory
        for layer, name, parameter in own:
            setattr(layer, name, parameter)


def _exchange(layer: Linear, dtype: torch.dtype | None = None) -> None:
    for name in ("weight", "bias"):
        if (own := getattr(layer, name)) is not None:
            copy = own.detach().to(dtype or own.dtype, copy=True)
            setattr(layer, name, Parameter(copy, requires_grad=False))
