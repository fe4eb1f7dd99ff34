"""Bytes on a rank's GPU, by part and by phase of a step.

A step has five phases: the rollout; the reference's log-probabilities; the policy's, up to the start of the backward
pass of the largest row; the rest of the backward pass, ending with the vision tower's; and the optimiser step.
Everything in a phase is in GPU memory at the same time, so the largest of the five sums must fit.

Assumptions about strategies: with ddp everything is on each GPU. With fsdp and deepspeed_zero3, weights, gradients,
optimiser and reference are sharded over all ranks. Rollouts gather the whole policy on each GPU, and the reference's
log-probabilities the whole reference; training gathers two layers, embedding and head, with unsharded gradients.
Gathered weights are in autocast's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spacer.attention.kv_cache import GROWTH
from spacer.config.choices import Checkpointing
from spacer.models.logps import logits_at_once
from spacer.models.token_logps import CHUNK
from spacer.models.vision import PATCHES
from spacer.planning import activations
from spacer.planning.setup import Setup
from spacer.planning.sizes import Sizes
from spacer.planning.work import Work

_FLOAT = 4
_SCALES = 4 / 256  # bytes of an 8-bit optimiser's scales, per element (arXiv 2110.02861: blocks of 256 to 2,048)
PHASES = ("rollout", "reference", "policy", "backward", "optimizer")


@dataclass(frozen=True)
class Memory:
    """Bytes of each part in each phase: part → phase → bytes, omitting zeros."""

    parts: Mapping[str, Mapping[str, int]]

    @property
    def by_part(self) -> dict[str, int]:
        """The maximum of each part over phases."""
        return {part: max(held.values(), default=0) for part, held in self.parts.items()}

    @property
    def by_phase(self) -> dict[str, int]:
        """The sum of all parts in each phase."""
        return {phase: sum(held.get(phase, 0) for held in self.parts.values()) for phase in PHASES}

    @property
    def peak(self) -> int:
        """The largest sum of a phase."""
        return max(self.by_phase.values())


def memory_of(sizes: Sizes, work: Work, setup: Setup) -> Memory:
    """The memory of a rank in a step after the first, when the optimiser has its state."""
    cut = setup.ranks if setup.sharded else 1
    base = sizes.total * setup.weight_bytes
    trainable = setup.trainable(sizes) * (setup.weight_bytes if setup.rank is None else setup.adapter_bytes)
    gradients = trainable // cut
    # gradients are freed after each step; with a single row per step, they grow as its activations are freed
    gathered_before = setup.accumulate > 1
    row_after_row = gathered_before or len(work.rows) > 1
    parts = {
        "weights": dict.fromkeys(PHASES, (base + setup.adapters(sizes) * setup.adapter_bytes) // cut),
        "weights_in_16_bits": _casts(sizes, setup),
        "weights_gathered": _gathered(sizes, setup),
        "gradients": {
            "rollout": gradients if gathered_before else 0,
            "reference": gradients if gathered_before else 0,
            "policy": gradients if row_after_row else 0,
            "backward": gradients,
            "optimizer": gradients,
        },
        "optimizer": dict.fromkeys(PHASES, _states(sizes, setup) // cut),
        "reference": dict.fromkeys(PHASES, base // cut if setup.reference and setup.rank is None else 0),
        "vision": _vision(sizes, work, setup),
        "kv_cache": {"rollout": kv_cache(sizes, work, setup)},
        "activations": {"policy": activations_of_row(sizes, work, setup)},
        "logits": _logits(sizes, work, setup),
        "working": _working(sizes, work, setup),
    }
    return Memory(parts)


def kv_cache(sizes: Sizes, work: Work, setup: Setup) -> int:
    """Keys and values of a rollout: those of prompts, and of completions with their spare capacity.

    A completion's buffer doubles as it grows, and its last token has no keys.
    """
    room = GROWTH
    while room < work.length - 1:
        room *= 2
    tokens = work.prompt_tokens + work.completions * (room if work.length > 1 else 0)
    return tokens * _keys(sizes, setup)


def _keys(sizes: Sizes, setup: Setup) -> int:
    """Bytes of the keys and values of a token."""
    return 2 * sizes.text.layers * sizes.text.keys * setup.product_bytes


def activations_of_row(sizes: Sizes, work: Work, setup: Setup) -> int:
    """Activations that the largest packed row's forward pass saves for the backward pass, without logits."""
    text = sizes.text
    tokens = max(row.tokens for row in work.rows)
    if setup.checkpointing == Checkpointing.all:
        kept = text.layers * text.width * setup.seen_bytes * tokens
    else:
        kept = text.layers * activations.text_layer(text, setup) * tokens
    predicted = max(row.predicted for row in work.rows)
    mask = _mask(tokens, setup, layers=1 if setup.checkpointing == Checkpointing.all else text.layers)
    last = activations.norm_alone(text.width, setup) * tokens + predicted * text.width * setup.product_bytes
    rotation = 2 * text.channels * setup.seen_bytes * tokens
    return kept + last + rotation + mask


def _mask(tokens: int, setup: Setup, layers: int) -> int:
    """The dense mask of a row, if there is one: as booleans, and as numbers in each layer that saves it."""
    return tokens**2 * (1 + layers * setup.product_bytes) if setup.attention == "masked" else 0


def kept_logits(sizes: Sizes, work: Work, setup: Setup) -> int:
    """Logits of the largest row, or of the largest chunk computed at once."""
    vocabulary = sizes.text.vocabulary
    held = min(max(row.predicted for row in work.rows), max(1, logits_at_once(setup.on_gpu) // vocabulary))
    return vocabulary * held * setup.product_bytes


def _logits(sizes: Sizes, work: Work, setup: Setup) -> dict[str, int]:
    """Logits and tensors derived from them. In sampling, for one token of each completion: raw, over the temperature,
    log-probabilities, and sorted; in training: their gradient, and the probabilities of a chunk in float32."""
    vocabulary, product = sizes.text.vocabulary, setup.product_bytes
    kept = kept_logits(sizes, work, setup)
    few = min(kept // product, CHUNK * vocabulary)
    probabilities = few * (max(_FLOAT, product) if product >= _FLOAT else 2 * _FLOAT)  # 16-bit ones are copied as well
    drawn = work.completions * vocabulary * (product + 4 * _FLOAT)
    return {"rollout": drawn, "reference": kept + probabilities, "policy": 2 * kept + probabilities}


def _casts(sizes: Sizes, setup: Setup) -> dict[str, int]:
    """16-bit copies of matrices, whole on each GPU: those that decoding uses (`spacer.rollout.sampling_copy`, which
    merges adapters in float32), and those that autocast keeps for the backward pass.

    Lightning disables autocast's weight cache, so each product makes its own copy, kept if a gradient needs it.
    Recomputed layers need one layer's copies at a time.
    """
    text, vision = sizes.text, sizes.vision
    narrow = setup.product_bytes
    needed = text.matrices if setup.turned else 0
    if setup.adapters_turned:
        needed += setup.adapters(sizes)
    head = text.vocabulary * text.width if setup.turned else 0
    of_text = head + (needed // text.layers if setup.checkpointing == Checkpointing.all else needed)
    kept = again = 0
    if setup.turned and setup.vision_trained:
        ends = vision.merging + vision.deeper_merging
        if setup.checkpointing == Checkpointing.none:
            kept = vision.matrices + ends
        elif setup.checkpointing == Checkpointing.vision:
            again = vision.matrices + ends
        else:
            kept, again = ends, vision.matrices // vision.blocks
    held = kept * narrow
    merged = setup.rank is not None and setup.product_bytes >= _FLOAT
    sampling = text.matrices + head if (setup.turned or merged) and not setup.sharded else 0
    return {
        "rollout": held + sampling * narrow,
        "reference": held,
        "policy": held + of_text * narrow,
        "backward": held + again * narrow,
    }


def _gathered(sizes: Sizes, setup: Setup) -> dict[str, int]:
    if not setup.sharded:
        return {}
    parameters, seen = sizes.parameters, setup.seen_bytes
    outside = parameters["embedding"] + parameters["head"]
    layer = parameters["language"] // sizes.text.layers
    whole = sizes.total * seen + setup.adapters(sizes) * setup.product_bytes
    held = (outside + 2 * layer) * seen
    uncut = outside + layer if setup.rank is None else 0
    return {
        "rollout": whole,
        "reference": whole if setup.reference else 0,
        "policy": held + uncut * seen,
        "backward": held + uncut * (seen + _FLOAT),  # and gradients communicated in float32
    }


def _states(sizes: Sizes, setup: Setup) -> int:
    """AdamW's two moments."""
    own = setup.weight_bytes if setup.rank is None else setup.adapter_bytes
    return int(setup.trainable(sizes) * 2 * (1 + _SCALES if setup.eight_bit else own))


def _vision(sizes: Sizes, work: Work, setup: Setup) -> dict[str, int]:
    """Pixels, features, and activations for the vision tower's backward pass, the last of a step."""
    vision, tokens = sizes.vision, work.vision_tokens
    patches = tokens * vision.patches_a_token
    pixels = patches * vision.patch_values * _FLOAT * (2 if setup.shuffled else 1)
    features = tokens * (1 + vision.deeper) * sizes.text.width * setup.product_bytes
    if not setup.vision_trained:
        return dict.fromkeys(PHASES, pixels + features)
    block = activations.vision_block(vision, setup)
    ends = activations.vision_ends(vision, setup)
    again = 0
    # a frame is never split, and several go through the tower together up to PATCHES
    largest = max(picture.height * picture.width for picture in work.pictures) * vision.patches_a_token
    at_once = min(patches, max(largest, PATCHES))
    if setup.checkpointing == Checkpointing.none:
        kept = patches * (vision.blocks * block + ends)
    elif setup.checkpointing == Checkpointing.vision:
        kept, again = 0, at_once * (vision.blocks * block + ends)
    else:
        kept = patches * (vision.blocks * vision.width * activations.vision_stream(vision, setup) + ends)
        again = at_once * block
    if setup.checkpointing != Checkpointing.none:
        again += at_once * 2 * vision.mlp * setup.product_bytes
    held = pixels + features + kept
    return {**dict.fromkeys(PHASES, held), "backward": held + features + again, "optimizer": pixels}


def _working(sizes: Sizes, work: Work, setup: Setup) -> dict[str, int]:
    """Temporary tensors of layers, as far as they exceed what is held before or after them."""
    text, product = sizes.text, setup.product_bytes
    stream = setup.seen_bytes
    # per token: stream and norm; gate, up and their product, or queries, keys, values and attention's outputs
    passing = 3 * text.width * stream + product * max(3 * text.mlp, 8 * text.queries)
    turned = product * sizes.largest if setup.turned else 0  # a cast matrix, which autocast does not cache
    first, largest = (max(row.tokens for row in rows) for rows in (work.prefill, work.rows))
    prefill = first * passing + _mask(first, setup, layers=1)
    forward = largest * passing + _mask(largest, setup, layers=1)
    back = largest * (2 * text.width * stream + product * 2 * text.mlp)
    if setup.checkpointing == Checkpointing.all:
        back += largest * activations.text_layer(text, setup)
    matrix = sizes.largest * setup.seen_bytes if setup.rank is None else 0  # a gradient before accumulation
    trainable = setup.trainable(sizes) // (setup.ranks if setup.sharded else 1)
    # prefill precedes the completions' keys; logits follow the layers, and are freed before the layers' backward pass
    logits = _logits(sizes, work, setup)
    later = kv_cache(sizes, work, setup) - work.prompt_tokens * _keys(sizes, setup) + logits["rollout"]
    return {
        "rollout": max(0, prefill - later) + turned,
        "reference": max(0, forward - logits["reference"]) + turned,
        "policy": max(matrix, back - logits["policy"]),
        "backward": matrix,
        # AdamW's denominators: for all weights at once on a GPU, else one matrix at a time
        "optimizer": trainable * _FLOAT if setup.on_gpu and not setup.eight_bit else 2 * matrix,
    }
