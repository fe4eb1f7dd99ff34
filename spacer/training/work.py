"""What training computes of a batch, in prefix trees or plainly: completions, log-probabilities and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import attrs
import torch
from torch import Tensor

from spacer.cpu.lanes import side_by_side
from spacer.data.loading import Batch
from spacer.data.parts import part_of
from spacer.data.plain import PlainBatch, part_of_plain
from spacer.data.processing import PromptBatch
from spacer.models.forward import RowContext
from spacer.models.logps import row_logps
from spacer.models.plain import PlainOptions, PlainRow, completion_logps, plain_rows
from spacer.models.selfcheck import FirstBatchCheck
from spacer.models.unwrap import trains_vision, unwrap
from spacer.models.vision import VisionFeatures, encode_vision
from spacer.rollout.asked import Asked, AskedInTrees, AskedPlainly, ask
from spacer.rollout.completion import Vocabulary
from spacer.training.row_trainer import Passes, RowLoss, RowTrainer, VisionGradient
from spacer.tree.forest import Completion
from spacer.tree.packing import PackedRow, pack


class Row(Protocol):
    """Completions that are computed in one pass; `completions` are their numbers among all of the batch."""

    @property
    def completions(self) -> tuple[int, ...]:
        """The completions' numbers."""

    def unpack(self, values_N: Tensor) -> Tensor:
        """Values of the predicted tokens as (row's completions, C), zero after a completion's end."""


R = TypeVar("R", bound=Row)
Losses = Callable[[Row, Tensor], RowLoss]  # of a row, given the log-probabilities of its predicted tokens


class Work(Protocol):
    """A batch in training; its log-probabilities are under logits / a temperature."""

    @property
    def batch(self) -> Batch:
        """The batch."""

    def part(self, number: int) -> Work:
        """A part of the batch, which is to be renewed before its backward pass."""

    def renew(self) -> None:
        """Computes anew what all rows share, after the weights have changed."""

    def asked(self, policy: Any, vocabulary: Vocabulary) -> Asked:
        """The batch's prompts before the policy, which may be the gathered copy of a sharded one."""

    def asked_shuffled(self, policy: Any, vocabulary: Vocabulary) -> Asked | None:
        """The same with the frames of videos in random order, where the batch has them."""

    def check(self, policy: Any, check: FirstBatchCheck, completions: Sequence[Completion]) -> None:
        """Holds the log-probabilities of given completions to another computation, once in a run."""

    def rows(self, completions: Sequence[Completion], counted: Sequence[int]) -> tuple[Row, ...]:
        """The rows of the completions with the numbers `counted`."""

    def logps(self, model: Any, rows: Sequence[Row]) -> Iterator[Tensor]:
        """Log-probabilities of each row's tokens under a frozen model, unpacked."""

    def backward(self, rows: Sequence[Row], loss_of: Losses) -> list[Mapping[str, Tensor]]:
        """Accumulates the gradient of the sum of the rows' losses; returns the scalars to log of each row."""


def begin(passes: Passes, batch: Batch, temperature: float = 1.0) -> Work:
    """The batch in training; what all of its rows share is computed here."""
    if isinstance(passes.compute, PlainOptions):
        assert isinstance(batch, PlainBatch)
        return PlainWork(passes, batch, temperature)
    assert isinstance(batch, PromptBatch)
    return TreeWork(passes, batch, temperature)


class TreeWork:
    """`Work` in prefix trees, whose rows share the features of pictures."""

    def __init__(
        self, passes: Passes, batch: PromptBatch, temperature: float, seen: VisionFeatures | None = None
    ) -> None:
        self.batch, self._passes, self._compute = batch, passes, passes.in_trees
        self._tower = VisionGradient(passes, batch.pictures)
        self._context = RowContext(self._tower.encode() if seen is None else seen, self._compute, temperature)

    def part(self, number: int) -> TreeWork:
        """As of `Work`."""
        merge = unwrap(self._passes.policy).config.vision_config.spatial_merge_size
        batch, features_M = part_of(self.batch, number, merge)
        context = self._context
        return TreeWork(self._passes, batch, context.temperature, context.vision.take(features_M))

    def renew(self) -> None:
        """As of `Work`: the features of pictures, unless the vision tower is as it was."""
        if trains_vision(self._passes.policy):
            self._context = replace(self._context, vision=self._tower.encode())

    def asked(self, policy: Any, vocabulary: Vocabulary) -> Asked:
        """As of `Work`."""
        return AskedInTrees(policy, vocabulary, self._compute, self.batch, self._context.vision.detach())

    @torch.no_grad()
    def asked_shuffled(self, policy: Any, vocabulary: Vocabulary) -> Asked | None:
        """As of `Work`."""
        if self.batch.shuffled_video_pixels is None:
            return None
        mixed = attrs.evolve(self.batch, pictures=self.batch.shuffled())
        return ask(policy, vocabulary, self._compute, mixed)

    def check(self, policy: Any, check: FirstBatchCheck, completions: Sequence[Completion]) -> None:
        """As of `Work`."""
        check(policy, self.batch, completions, replace(self._context, vision=self._context.vision.detach()))

    def rows(self, completions: Sequence[Completion], counted: Sequence[int]) -> tuple[Row, ...]:
        """As of `Work`."""
        rows = pack(self.batch.forest, [completions[i] for i in counted], self._compute.row_tokens)
        return tuple(replace(row, completions=tuple(counted[i] for i in row.completions)) for row in rows)

    @torch.no_grad()
    def logps(self, model: Any, rows: Sequence[Row]) -> Iterator[Tensor]:
        """As of `Work`. A model whose vision tower is the policy's, untrained, sees what it does."""
        alike, lanes = not trains_vision(self._passes.policy), self._compute.lanes
        own = self._context.vision.detach() if alike else encode_vision(model, self.batch.pictures, lanes)
        context = replace(self._context, vision=own)

        def logps(row: PackedRow) -> Tensor:
            return row.unpack(row_logps(model, row, context))

        yield from side_by_side(logps, _of(PackedRow, rows), lanes)

    def backward(self, rows: Sequence[Row], loss_of: Losses) -> list[Mapping[str, Tensor]]:
        """As of `Work`, the vision tower's gradient included."""
        return RowTrainer(self._passes, self._context).backward(_of(PackedRow, rows), loss_of, self._tower)


class PlainWork:
    """`Work` without trees: rows share nothing."""

    def __init__(self, passes: Passes, batch: PlainBatch, temperature: float) -> None:
        assert isinstance(passes.compute, PlainOptions)
        self.batch, self._passes, self._temperature = batch, passes, temperature
        self._row_tokens = passes.compute.row_tokens

    def part(self, number: int) -> PlainWork:
        """As of `Work`."""
        return PlainWork(self._passes, part_of_plain(self.batch, number), self._temperature)

    def renew(self) -> None:
        """As of `Work`: there is nothing to renew."""

    def asked(self, policy: Any, vocabulary: Vocabulary) -> Asked:
        """As of `Work`."""
        return AskedPlainly(policy, vocabulary, self.batch)

    def asked_shuffled(self, policy: Any, vocabulary: Vocabulary) -> Asked | None:
        """As of `Work`: a rule of the configuration refuses rewards that ask so."""
        return None

    def check(self, policy: Any, check: FirstBatchCheck, completions: Sequence[Completion]) -> None:
        """As of `Work`: this is the other computation."""
        check.due = False

    def rows(self, completions: Sequence[Completion], counted: Sequence[int]) -> tuple[Row, ...]:
        """As of `Work`."""
        return tuple(plain_rows(self.batch.lengths, completions, counted, self._row_tokens))

    @torch.no_grad()
    def logps(self, model: Any, rows: Sequence[Row]) -> Iterator[Tensor]:
        """As of `Work`."""
        for row in _of(PlainRow, rows):
            yield row.unpack(self._logps(model, row))

    def backward(self, rows: Sequence[Row], loss_of: Losses) -> list[Mapping[str, Tensor]]:
        """As of `Work`."""
        found = []
        for row in _of(PlainRow, rows):
            loss, logged = loss_of(row, self._logps(self._passes.policy, row))
            self._passes.backward(loss)
            found.append(logged)
        return found

    def _logps(self, model: Any, row: PlainRow) -> Tensor:
        return completion_logps(model, self.batch.inputs[row.prompt], row.ids, self._temperature)


def _of(kind: type[R], rows: Sequence[Row]) -> list[R]:
    """The rows, which are all of this kind: those that the work itself has made."""
    found = [row for row in rows if isinstance(row, kind)]
    assert len(found) == len(rows)
    return found
