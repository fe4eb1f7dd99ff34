"""Gradients on prefix trees: one backward pass per packed row, and further ones for the vision tower, whose features
all rows share.

Shape suffixes: M vision tokens of a batch, N those of a row, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spacer.cpu.lanes import train_side_by_side
from spacer.data.processing import VisionInputs
from spacer.distributed import collectives
from spacer.distributed.sharding import as_forward, in_zero, is_sharded
from spacer.models.forward import ComputeOptions, RowContext
from spacer.models.logps import row_logps
from spacer.models.unwrap import has_dropout, trains_vision
from spacer.models.vision import Portion, VisionFeatures, count_passes, encode_vision, portions
from spacer.rollout.asked import Compute
from spacer.tree.forest import Completion, Forest, Segment
from spacer.tree.packing import PackedRow, pack

RowLoss = tuple[Tensor, Mapping[str, Tensor]]  # a scalar to differentiate, and detached scalars to log


@dataclass(frozen=True)
class Passes:
    """How a policy's forward and backward passes run on this process's `device`; `backward` is `manual_backward`."""

    policy: Any
    compute: Compute
    device: torch.device
    backward: Callable[[Tensor], None]

    @property
    def lanes(self) -> int:
        """The number of rows, or portions of pictures, that are trained in parallel. 1 if passes synchronize with other
        processes, or if dropout draws from the global random generator."""
        return 1 if is_sharded(self.policy) or has_dropout(self.policy) else self.in_trees.lanes

    @property
    def in_trees(self) -> ComputeOptions:
        """How trees are computed, where they are."""
        assert isinstance(self.compute, ComputeOptions)
        return self.compute

    def backward_in(self, lanes: int) -> Callable[[Tensor], None]:
        """Lightning's backward, whose hooks are not thread-safe, for one lane; else torch's own."""
        return self.backward if lanes == 1 else torch.Tensor.backward

    def at_most(self, count: int) -> int:
        """The maximum of `count` over processes if the policy is sharded, so that all make equally many passes."""
        return max(collectives.gather(count, self.device)) if is_sharded(self.policy) else count


class VisionGradient:
    """Computes the vision features of a batch's pictures, and the vision tower's gradient from theirs."""

    def __init__(self, passes: Passes, pictures: VisionInputs) -> None:
        self._passes = passes
        self._pictures = pictures
        self._portions = passes.at_most(count_passes(pictures))

    def encode(self) -> VisionFeatures:
        """The features; detached from the tower if its forward pass is recomputed for the backward pass."""
        policy, again = self._passes.policy, self._passes.in_trees.vision_again

        def encode() -> tuple[Tensor, ...]:  # plain tensors, whose backward DeepSpeed hooks to gather parameters
            return encode_vision(policy, self._pictures, self._passes.lanes, self._portions).tensors

        with torch.set_grad_enabled(torch.is_grad_enabled() and not again):
            found = as_forward(policy, encode)
        if again and trains_vision(policy):
            found = tuple(x.requires_grad_() for x in found)
        return VisionFeatures.of(found)

    def backward(self, features: VisionFeatures, gradients: Sequence[Tensor]) -> None:
        """Accumulates the tower's gradient, given those of the features' tensors."""
        if not self._passes.in_trees.vision_again:
            self._passes.backward(_with_gradients(features.tensors, gradients))
            return
        policy, lanes = self._passes.policy, self._passes.lanes
        found = portions(policy, self._pictures, self._portions)
        counts = [portion.tokens(policy) for portion in found]
        parts = list(zip(found, zip(*(whole.split(counts) for whole in gradients), strict=True), strict=True))
        backward = self._passes.backward_in(lanes)

        def train(policy: Any, part: tuple[Portion, Sequence[Tensor]]) -> None:
            portion, mine = part
            backward(_with_gradients(as_forward(policy, partial(portion.encode, policy)), mine))

        train_side_by_side(train, policy, parts, lanes)


class RowTrainer:
    """Computes gradients of losses on the log-probabilities of packed rows' predicted tokens."""

    def __init__(self, passes: Passes, context: RowContext) -> None:
        self._passes = passes
        self._context = context

    def backward(
        self, rows: Sequence[PackedRow], loss_of: Callable[[PackedRow, Tensor], RowLoss], tower: VisionGradient
    ) -> list[Mapping[str, Tensor]]:
        """Accumulates the gradient of Σ loss_of(row, log-probabilities of its predicted tokens), including the vision
        tower's. Returns the scalars to log of each row.

        The loss is this process's share; gradients are summed over processes later. `loss_of` may be called by several
        threads at once.
        """
        policy, vision, lanes = self._passes.policy, self._context.vision, self._passes.lanes
        sharded = is_sharded(policy)
        scale = collectives.world() if sharded else 1  # FSDP and DeepSpeed average over the processes
        most = self._passes.at_most(len(rows))
        if in_zero(next(policy.parameters())):
            most = max(most, 1)  # DeepSpeed's step takes gradients, of zero if no process has a row
        idle = most - len(rows)
        backward = self._passes.backward_in(lanes)

        def train(policy: Any, row: PackedRow) -> tuple[Mapping[str, Tensor], Tensor, list[Tensor | None]]:
            # a gradient for all features would be as large as the features, and mostly 0
            alone, features_N = row.alone()
            mine = vision.take(features_N)
            loss, logged = loss_of(row, _logps(policy, alone, replace(self._context, vision=mine)))
            backward(loss * scale)
            return logged, features_N, [x.grad for x in mine.tensors]

        trained = train_side_by_side(train, policy, rows, lanes)
        for _ in range(idle):
            nothing = replace(self._context, vision=VisionFeatures())
            backward(_logps(policy, _FILLER, nothing).sum() * 0)
        if vision.trained and (sharded or rows):
            gradients = [torch.zeros_like(x) for x in vision.tensors]
            for _, features_N, parts in trained:
                for whole, part in zip(gradients, parts, strict=True):
                    if part is not None:
                        whole.index_add_(0, features_N.to(whole.device), part)
            tower.backward(vision, gradients)
        return [logged for logged, _, _ in trained]


def _logps(policy: Any, row: PackedRow, context: RowContext) -> Tensor:
    return as_forward(policy, partial(row_logps, policy, row, context))


def _with_gradients(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar whose gradients with respect to `features` are `gradients`."""
    return torch.stack([(x * gradient).sum() for x, gradient in zip(features, gradients, strict=True)]).sum()


def _text_row() -> PackedRow:
    tokens = torch.zeros(2, dtype=torch.long)
    prompt = Segment(tokens, torch.arange(2).expand(3, 2), torch.full_like(tokens, -1))
    (row,) = pack(Forest((prompt,), (0,)), [Completion(0, tokens)], budget=4)
    return row


_FILLER = _text_row()  # computed with weight 0 while other processes still have rows
