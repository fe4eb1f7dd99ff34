"""Stops training that has diverged (NaN or infinity) or has learned nothing, with the cause and a remedy.

Log-probabilities and losses are checked before the backward pass, gradients before a step, and weights before they are
saved, so the last checkpoint is always valid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spacer.data.samples import Fault
from spacer.distributed import collectives
from spacer.errors import UserError

PATIENCE = 128  # samples that may be faulty in a row, from the first, before a run gives up

_REMEDY = (
    "lower stage.optimizer.learning_rate or trainer.gradient_clip_val, or use a higher trainer.precision, "
    "and start again or resume from the last checkpoint, which is not affected"
)


def check_finite(what: str, step: int, device: torch.device, *values: Tensor) -> None:
    """Checks that values are finite in all processes, which must call this together.

    Raises:
        UserError: a value is NaN or infinite in some process; `what` and `step` describe it in the message.
    """
    bad = not all(bool(value.isfinite().all()) for value in values)
    if any(collectives.gather(int(bad), device)):
        raise UserError(
            f"training has failed after step {step}: {what} are NaN or infinite. The weights were not updated with "
            f"them: {_REMEDY}"
        )


def nothing_to_learn_from(tried: int, fault: Fault | None) -> UserError:
    """The error for a run without a usable sample."""
    example = "" if fault is None else f": {fault.where}: {fault.kind}: {fault.detail}"
    return UserError(
        f"nothing was learned: none of {tried} samples could be used{example}. All faults are in faults.jsonl; fix the "
        "data, or adjust the limits (dataset.max_prompt_length, dataset.video)"
    )


def no_step(batches: int, accumulate: int, max_time: str | None) -> UserError:
    """The error for a run that ended before its first step."""
    limit = "" if max_time is None else f" within trainer.max_time={max_time}"
    return UserError(
        f"nothing was learned: no optimizer step was made{limit}: there were {batches} batches, and a step needs "
        f"trainer.accumulate_grad_batches={accumulate}. Let the run last longer, or accumulate fewer batches per step"
    )
