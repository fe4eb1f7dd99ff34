"""Bytes of activations that a forward pass saves for the backward pass, per token and per patch.

Each line follows what autograd saves in the layers of transformers' Qwen2.5-VL and Qwen3-VL. A tensor saved by two
operations counts once, but if autocast casts an input to 16 bits, each matrix product keeps its own copy.
"""

from __future__ import annotations

from spacer.planning.setup import Setup
from spacer.planning.sizes import TextSizes, VisionSizes

_FLOAT = 4  # norms are computed in float32 whatever the model's dtype, and so are sums of exponentials
_ADAPTED = 7  # matrices per layer that have adapters


def text_layer(text: TextSizes, setup: Setup) -> int:
    """Bytes per token of one layer of the language model, including its input."""
    product, trained = setup.product_bytes, setup.rank is None
    norms = _norm(text.width, setup.seen_bytes, setup, trained, readers=3)
    norms += _norm(text.width, setup.seen_bytes, setup, trained, readers=2)
    if text.normed_heads:  # their outputs are rotated, which saves nothing
        norms += _norm(text.queries + text.keys, product, setup, trained, readers=0)
    # queries, keys, values, output; except with FlexAttention, keys and values are repeated for all query heads
    keys = text.keys if setup.attention == "flex" else text.queries
    attention = product * (2 * text.queries + 2 * keys) + _FLOAT * text.heads
    adapters = 0
    if setup.rank is not None:
        adapters = product * _ADAPTED * setup.rank
        if setup.adapters_turned:  # their inputs are cast separately
            adapters += product * text.queries
    mlp = product * 4 * text.mlp  # gate, its activation, up, their product
    return norms + attention + mlp + adapters


def norm_alone(width: int, setup: Setup) -> int:
    """Bytes per token of the language model's final norm, of whose output only a few tokens are kept."""
    return _norm(width, setup.seen_bytes, setup, setup.rank is None, readers=0)


def vision_block(vision: VisionSizes, setup: Setup) -> int:
    """Bytes per patch of one block of the vision tower, including its input."""
    product, width = setup.product_bytes, vision.width
    stream = vision_stream(vision, setup)
    # rotated queries and keys, the fused QKV product, the output before and after heads are joined
    attention = product * 7 * width + _FLOAT * vision.heads
    if vision.gated:
        norms = sum(_norm(width, stream, setup, True, readers) for readers in (1, 2))
        return norms + attention + product * 4 * vision.mlp
    layer_norms = 2 * width * (stream + product)  # input and output
    return layer_norms + attention + product * 2 * vision.mlp


def vision_ends(vision: VisionSizes, setup: Setup) -> int:
    """Bytes per patch of what precedes and follows the blocks: cast inputs, norms, the merger."""
    product = setup.product_bytes
    turned = product * vision.patch_values if setup.turned else 0
    norm = (3 if vision.gated else 2) * vision.width * product
    return turned + (norm + 2 * product * vision.width) * (1 + vision.deeper)


def vision_stream(vision: VisionSizes, setup: Setup) -> int:
    """Bytes per element between two blocks: learned position embeddings keep the weights' precision."""
    return setup.product_bytes if vision.gated else setup.seen_bytes


def _norm(width: int, stream: int, setup: Setup, trained: bool, readers: int) -> int:
    """Bytes of an RMS norm of `width` channels: its input, its weight's input, and the output if `readers` save it.

    The input is saved in float32. With frozen weights, their input is not saved.
    """
    product, wide = setup.product_bytes, max(_FLOAT, stream)
    met = stream if trained else 0
    turned = setup.turned or setup.adapters_turned
    return width * (wide + met + product * (readers if turned else min(1, readers)))
