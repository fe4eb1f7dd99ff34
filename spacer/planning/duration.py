"""Duration of a step and of a pass over the data, at the speeds in `stage.plan`, ignoring communication."""

from __future__ import annotations

from collections.abc import Mapping

from spacer.config.settings import PlanSettings
from spacer.planning.setup import Setup
from spacer.planning.sizes import Sizes
from spacer.planning.work import Work

_DAY = 86_400


def seconds_of_step(
    flops: Mapping[str, int], sizes: Sizes, work: Work, setup: Setup, speeds: PlanSettings
) -> dict[str, float]:
    """Seconds of an optimiser step: of decoding, and of everything else.

    Each decoding step reads the weights and the KV cache once, whatever the number of rows, with shared prompts
    counted once; if that takes longer than the operations, it determines the duration.
    """
    text, steps = sizes.text, work.length - 1
    each = setup.product_bytes
    if setup.turned:  # read, written in 16 bits, and read again
        each = setup.seen_bytes + 2 * setup.product_bytes
    weights = (text.matrices + text.vocabulary * text.width) * each
    keys = 2 * text.layers * text.keys * setup.product_bytes
    read = steps * weights + keys * (steps * work.prompt_tokens + work.completions * steps * (steps + 1) // 2)
    if setup.shuffled:
        read += steps * (weights + keys * work.prompt_tokens) + keys * work.completions // 2 * steps * (steps + 1) // 2
    reading = read * setup.accumulate / setup.updates / (speeds.bytes_per_s * speeds.utilisation)
    speed = speeds.flops_per_s * speeds.utilisation
    rest = sum(flops.values()) - flops["rollout_decode"]
    return {"decode": max(flops["rollout_decode"] / speed, reading), "all_else": rest / speed}


def days_of(questions: int, seconds: float, work: Work, setup: Setup) -> float:
    """Days of one pass over all questions, on all GPUs."""
    batches = questions / (work.prompts * setup.ranks)
    return batches * setup.updates / setup.accumulate * seconds / _DAY
