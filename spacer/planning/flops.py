"""FLOPs of a step on one rank, by part: with prefix trees, and in a trainer without them.

A product with n weights takes 2 n operations per token forward and twice that backward: for the gradients of its input
and of its weights. Attention takes 4 D operations per head and pair of tokens forward, and 10 D backward, where the
scores are recomputed (FlashAttention, arXiv 2205.14135); only pairs that the mask allows count. Everything
else is ignored, as in torch's flop counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from spacer.config.choices import Checkpointing
from spacer.models.logps import logits_at_once
from spacer.planning.setup import Setup
from spacer.planning.sizes import Sizes, VisionSizes
from spacer.planning.work import Picture, RowSize, Work

_BACK = 2.5  # attention: backward over forward


def tree_flops(sizes: Sizes, work: Work, setup: Setup) -> dict[str, int]:
    """FLOPs of an optimiser step on prefix trees: part → count."""
    adapters = setup.adapters(sizes)
    prefill, decode = _rollout(sizes, work, work.group, setup, adapters)
    # a frozen tower's features serve all updates; those of parts that train it are not the rollout's
    encodings = setup.updates + (setup.parts > 1) if setup.vision_trained else 1
    if setup.shuffled:
        encodings += 1
        more = _rollout(sizes, work, work.group // 2, setup, adapters)
        prefill, decode = prefill + more[0], decode + more[1]
    if _reference_sees(setup):
        encodings += 1
    forward, again, back = _trained(sizes, work, setup)
    seen = _vision(sizes, work.pictures)
    seen_again, seen_back = _vision_backward(sizes, work.pictures, setup)
    batch = {
        "vision": seen * encodings,
        "rollout_prefill": prefill,
        "rollout_decode": decode,
        "reference": _rows(sizes, work.rows) if setup.reference else 0,
        "policy_forward": forward * setup.updates,
        "policy_again": again * setup.updates,
        "policy_backward": back * setup.updates,
        "vision_again": seen_again * setup.updates,
        "vision_backward": seen_back * setup.updates,
    }
    # several steps per batch, or several batches per step
    return {part: round(value * setup.accumulate / setup.steps_per_rollout) for part, value in batch.items()}


def plain_flops(sizes: Sizes, work: Work, setup: Setup) -> dict[str, int]:
    """FLOPs of the same step if each completion has its own row, with the whole prompt and its pixels.

    SpaceR's released trainer and TRL compute sampling, policy and reference in this way.
    """
    alone = replace(work, pictures=work.pictures[:1], questions=1, group=1)
    found = tree_flops(sizes, alone, replace(setup, shuffled=False))
    batches = setup.accumulate / setup.steps_per_rollout
    seen = _vision(sizes, alone.pictures) * batches
    found["vision"] += round(seen)  # once for sampling, once for training
    if setup.reference and not _reference_sees(setup):
        found["vision"] += round(seen)
    found = {part: value * work.completions for part, value in found.items()}
    if setup.shuffled:
        answers = work.prompts * (work.group // 2) * batches
        prefill, decode = _rollout(sizes, alone, 1, setup, setup.adapters(sizes))
        found["vision"] += round(_vision(sizes, alone.pictures) * answers)
        found["rollout_prefill"] += round(prefill * answers)
        found["rollout_decode"] += round(decode * answers)
    return found


def _reference_sees(setup: Setup) -> bool:
    """Whether the reference has its own vision tower, different from the policy's, and encodes separately."""
    return setup.reference and setup.vision_trained


def _attention(channels: int, layers: int, pairs: int) -> int:
    return 4 * channels * layers * pairs


def _text_attention(sizes: Sizes, rows: Iterable[RowSize]) -> int:
    return sum(_attention(sizes.text.queries, sizes.text.layers, row.pairs) for row in rows)


def _layers(sizes: Sizes, rows: Sequence[RowSize], adapters: int = 0) -> int:
    """Attention and matrix products in all layers, with the two adapter matrices beside each of the model's."""
    products = sum(2 * (sizes.text.matrices + adapters) * row.tokens for row in rows)
    return products + _text_attention(sizes, rows)


def _head(sizes: Sizes, tokens: int) -> int:
    return 2 * sizes.text.vocabulary * sizes.text.width * tokens


def _rows(sizes: Sizes, rows: Sequence[RowSize], adapters: int = 0) -> int:
    return _layers(sizes, rows, adapters) + _head(sizes, sum(row.predicted for row in rows))


def _rollout(sizes: Sizes, work: Work, group: int, setup: Setup, adapters: int) -> tuple[int, int]:
    """Prefill of the prompts and decoding, in which each token attends to its prompt and to earlier tokens."""
    text, steps = sizes.text, work.length - 1
    pairs = steps * (work.pictures[0].tokens + work.text) + steps * (steps + 1) // 2
    token = 2 * (text.matrices + adapters) + _head(sizes, 1)
    decode = work.prompts * group * (steps * token + _attention(text.queries, text.layers, pairs))
    return _layers(sizes, work.prefill, adapters) + _head(sizes, work.prompts), decode


def _trained(sizes: Sizes, work: Work, setup: Setup) -> tuple[float, float, float]:
    """FLOPs of the forward pass, recomputation, and the backward pass."""
    text, adapters = sizes.text, setup.adapters(sizes)
    forward = _rows(sizes, work.rows, adapters)
    again = 0
    if setup.checkpointing == Checkpointing.all:
        # without each layer's last product, whose result nothing needs; the last layer's is added back
        left = 2 * text.last_matrices * (text.layers - 1) // text.layers * sum(row.tokens for row in work.rows)
        again += _layers(sizes, work.rows, adapters) - left
    at_once = logits_at_once(setup.on_gpu) // text.vocabulary
    again += sum(_head(sizes, row.predicted) for row in work.rows if row.predicted > at_once)
    attention = _text_attention(sizes, work.rows)
    own = 2 * adapters * sum(row.tokens for row in work.rows)
    products = forward - attention - own
    # frozen weights need only the gradient of their input
    back = products * (2 if setup.rank is None else 1) + 2 * own + _BACK * attention
    return forward, again, back


def _vision(sizes: Sizes, pictures: Iterable[Picture]) -> int:
    vision = sizes.vision
    total = 0
    for picture in pictures:
        patches = picture.tokens * vision.patches_a_token
        total += 2 * patches * (vision.matrices + vision.patch_values * vision.width)
        total += 2 * picture.tokens * (vision.merging + vision.deeper_merging) + _vision_attention(vision, picture)
    return total


def _vision_attention(vision: VisionSizes, picture: Picture) -> int:
    """Attention of each patch to those of its frame, or of its window."""
    whole = picture.height * picture.width
    unit = vision.patches_a_token**2
    found = _attention(vision.width, vision.full_blocks, picture.frames * whole**2 * unit)
    if vision.window is not None:
        pairs = _squares(picture.height, vision.window) * _squares(picture.width, vision.window)
        found += _attention(vision.width, vision.blocks - vision.full_blocks, picture.frames * pairs * unit)
    return found


def _squares(length: int, window: int) -> int:
    """Σ of the squares of the pieces into which windows cut a length.

    >>> _squares(10, 4)
    36
    """
    return length // window * window**2 + (length % window) ** 2


def _vision_backward(sizes: Sizes, pictures: Iterable[Picture], setup: Setup) -> tuple[float, float]:
    """FLOPs of recomputation and the backward pass. The first layer's input is pixels, which need no gradient."""
    if not setup.vision_trained:
        return 0, 0
    vision, pictures = sizes.vision, tuple(pictures)
    forward = _vision(sizes, pictures)
    attention = sum(_vision_attention(vision, picture) for picture in pictures)
    patches = sum(picture.tokens for picture in pictures) * vision.patches_a_token
    first = 2 * patches * vision.patch_values * vision.width
    back = 2 * (forward - attention) - first + _BACK * attention
    if setup.checkpointing == Checkpointing.none:
        return 0, back
    if setup.checkpointing == Checkpointing.vision:
        return forward, back
    ends = first + 2 * patches // vision.patches_a_token * (vision.merging + vision.deeper_merging)
    return forward - ends - 2 * patches * vision.last_matrices, back
