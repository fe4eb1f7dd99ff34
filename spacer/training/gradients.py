"""Gradient accumulation over batches, such that a step equals that of one large batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spacer.distributed.sharding import in_zero


@dataclass
class Gathered:
    """The state of gradient accumulation for the next step.

    The total number of tokens (or completions) in a step is known only with its last batch. So each batch's summed loss
    is divided by the count of the first batch, which keeps gradients at their usual scale, and before the step the
    gradients are multiplied by `factor` to correct for that; it is 1 for a single batch.
    """

    passes: int = 0  # backward passes over batches with samples
    total: float = 0.0  # tokens, or completions, of all batches and processes
    divisor: float = 0.0  # those of the first batch that has any
    loss: float = 0.0  # the sum of the losses after division

    def divide_by(self, count: float) -> float:
        """Registers a backward pass over `count` tokens, or completions; returns the divisor for its summed loss."""
        self.passes += 1
        self.total += count
        self.divisor = self.divisor or count
        return self.divisor or 1.0  # without tokens so far, the sum is 0

    @property
    def factor(self) -> float:
        """The correction that turns the step's accumulated gradients and loss into means over the whole step."""
        return self.divisor / self.total if self.total else 1.0


def scale_gradients(parameters: Sequence[torch.nn.Parameter], factor: float) -> None:
    """Multiplies the gradients, or this process's shards of them, by `factor`, in place."""
    if parameters and in_zero(parameters[0]):
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        for parameter in parameters:
            safe_set_local_grad(parameter, safe_get_local_grad(parameter) * factor)
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
