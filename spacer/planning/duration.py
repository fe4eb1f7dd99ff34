"""Duration of a step and of a pass over the data, at the speeds in `stage.plan`, ignoring communication."""

from __future__ import annotations

from collections.abc import Mapping

from spacer.config.settings import PlanSettings
from spacer.planning.setup import Setup
from spacer.planning.sizes import Sizes
from spacer.planning.work import Work

_DAY = 86_400
# of a decoding step in 16 bits, views left out, in a layer and outside of all, as tests/parity/test_static.py counts
LAYER_OPERATORS = 74
OTHER_OPERATORS = 51
ADAPTER_OPERATORS = 42  # of adapters that are not merged, in a layer


def seconds_of_step(
    flops: Mapping[str, int], sizes: Sizes, work: Work, setup: Setup, speeds: PlanSettings
) -> dict[str, float]:
    """Seconds of an optimiser step: of decoding, and of everything else.

    Each decoding step reads the weights and the KV cache once, whatever the number of rows, with shared prompts
    counted once, and launches its operators one after the other unless a CUDA graph does. The longest of operations,
    reading and launching determines the duration.
    """
    text, steps = sizes.text, work.length - 1
    each = setup.product_bytes  # cast once a rollout, unless sharded (`spacer.rollout.sampling_copy`)
    if setup.turned and setup.sharded:  # read, written in 16 bits, and read again
        each = setup.seen_bytes + 2 * setup.product_bytes
    weights = (text.matrices + text.vocabulary * text.width) * each
    keys = 2 * text.layers * text.keys * setup.product_bytes
    read = steps * weights + keys * (steps * work.prompt_tokens + work.completions * steps * (steps + 1) // 2)
    if setup.shuffled:
        read += steps * (weights + keys * work.prompt_tokens) + keys * work.completions // 2 * steps * (steps + 1) // 2
    rollouts = setup.accumulate / setup.steps_per_rollout
    reading = read * rollouts / (speeds.bytes_per_s * speeds.utilisation)
    launched = text.layers * LAYER_OPERATORS + OTHER_OPERATORS
    if setup.rank is not None and (setup.sharded or setup.product_bytes < 4):  # else merged
        launched += text.layers * ADAPTER_OPERATORS
    launching = steps * (2 if setup.shuffled else 1) * launched * speeds.operator_s * rollouts
    if setup.captured or not setup.on_gpu:
        launching = 0.0
    speed = speeds.flops_per_s * speeds.utilisation
    rest = sum(flops.values()) - flops["rollout_decode"]
    return {"decode": max(flops["rollout_decode"] / speed, reading, launching), "all_else": rest / speed}


def days_of(questions: int, seconds: float, work: Work, setup: Setup) -> float:
    """Days of one pass over all questions, on all GPUs."""
    batches = questions / (work.prompts * setup.ranks)
    return batches * setup.steps_per_rollout / setup.accumulate * seconds / _DAY
