"""Bytes that a forward pass leaves for the backward pass, by token and by patch.

Each line follows what autograd saves in the layers of transformers' Qwen2.5-VL and Qwen3-VL. A tensor that two
operations save is one tensor, but where autocast turns an input to 16 bits, each matrix product keeps its own.
"""

from __future__ import annotations

from spacer.planning.setup import Setup
from spacer.planning.sizes import TextSizes, VisionSizes

_FLOAT = 4  # norms are taken in float32 whatever the model is in, and so are sums of exponentials
_ADAPTED = 7  # matrices of a layer that have adapters


def text_layer(text: TextSizes, setup: Setup) -> int:
    """Bytes a token of one layer of the language model, its input among them."""
    product, trained = setup.product_bytes, setup.rank is None
    norms = _norm(text.width, setup.seen_bytes, setup, trained, readers=3)
    norms += _norm(text.width, setup.seen_bytes, setup, trained, readers=2)
    if text.normed_heads:  # what these give goes on to be rotated, which keeps nothing
        norms += _norm(text.queries + text.keys, product, setup, trained, readers=0)
    # queries, keys, values, output; but for FlexAttention, keys and values are repeated for all query heads
    keys = text.keys if setup.attention == "flex" else text.queries
    attention = product * (2 * text.queries + 2 * keys) + _FLOAT * text.heads
    adapters = 0
    if setup.rank is not None:
        adapters = product * _ADAPTED * setup.rank
        if setup.adapters_turned:  # their inputs are turned by themselves
            adapters += product * text.queries
    return norms + attention + text_mlp(text, setup) + adapters


def text_mlp(text: TextSizes, setup: Setup) -> int:
    """Of these, what the MLP makes: gate, its activation, up, their product."""
    return setup.product_bytes * 4 * text.mlp


def norm_alone(width: int, setup: Setup) -> int:
    """Bytes a token of the norm that the language model ends with, of whose output a few tokens' is kept."""
    return _norm(width, setup.seen_bytes, setup, setup.rank is None, readers=0)


def vision_block(vision: VisionSizes, setup: Setup) -> int:
    """Bytes a patch of one block of the vision tower, its input among them."""
    product, width = setup.product_bytes, vision.width
    stream = vision_stream(vision, setup)
    # rotated queries and keys, the one product that all three come from, the output before and after it is joined
    attention = product * 7 * width + _FLOAT * vision.heads
    if vision.gated:
        norms = sum(_norm(width, stream, setup, True, readers) for readers in (1, 2))
        return norms + attention + product * 4 * vision.mlp
    layer_norms = 2 * width * (stream + product)  # input and output
    return layer_norms + attention + product * 2 * vision.mlp


def vision_ends(vision: VisionSizes, setup: Setup) -> int:
    """Bytes a patch of what stands before and after the blocks: numbers that are turned, norms, merging."""
    product = setup.product_bytes
    turned = product * vision.patch_values if setup.turned else 0
    norm = (3 if vision.gated else 2) * vision.width * product
    return turned + (norm + 2 * product * vision.width) * (1 + vision.deeper)


def vision_stream(vision: VisionSizes, setup: Setup) -> int:
    """Bytes of a number between two blocks: positions that are learned stay as wide as the weights."""
    return setup.product_bytes if vision.gated else setup.seen_bytes


def _norm(width: int, stream: int, setup: Setup, trained: bool, readers: int) -> int:
    """Bytes of an RMS norm of `width` channels: its input, what its weight meets, and the output if `readers` keep it.

    The input is kept in float32. Where weights are frozen, what meets them is not kept.
    """
    product, wide = setup.product_bytes, max(_FLOAT, stream)
    met = stream if trained else 0
    turned = setup.turned or setup.adapters_turned
    return width * (wide + met + product * (readers if turned else min(1, readers)))
