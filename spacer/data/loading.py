"""The data loader: shuffled batches, decoded by workers, with the same order after a restart as without one."""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch.utils.data import Dataset

from spacer.config.choices import Control
from spacer.config.settings import DatasetSettings
from spacer.data.controls import with_other_media
from spacer.data.decode import MediaReader
from spacer.data.plain import PlainBatch, PlainPrompt, collate_plain, prepare_plain
from spacer.data.processing import Prompt, PromptBatch, collate, prepare
from spacer.data.samples import Fault, Sample
from spacer.data.workers import made_by_workers
from spacer.errors import UserError
from spacer.tree.mrope import PositionRule

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

# (sample, position of its draw, random generator of that draw) → the completion to imitate in supervised training
Target = Callable[[Sample, int, np.random.Generator], str]
Item = Prompt | PlainPrompt | Fault
Batch = PromptBatch | PlainBatch


@dataclass(frozen=True)
class SampleDraw:
    """The `position`-th draw since training began, which seeds its random numbers, and the `index` of its sample."""

    position: int
    index: int


class PromptDataset(Dataset[Item]):
    """Samples, decoded and processed on access: for prefix trees by the model's `rule` of positions, and without one
    for the plain computation."""

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Qwen2_5_VLProcessor,
        settings: DatasetSettings,
        *,
        rule: PositionRule | None,
        seed: int = 0,
        target: Target | None = None,
        shuffle_frames: bool = False,
        control: Control | None = None,
        section: str = "dataset",
    ) -> None:
        self.samples = with_other_media(samples) if control == Control.other_video else samples
        self.control = control
        self.section = section
        self.processor = processor
        self.settings = settings
        self.rule = rule
        self.seed = seed
        self.target = target
        self.shuffle_frames = shuffle_frames
        self.workers = settings.workers
        self._reader = MediaReader()  # one copy per worker

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, use: SampleDraw) -> Item:
        sample = self.samples[use.index]
        rng = np.random.default_rng([self.seed, 1, use.position])
        target = None if self.target is None else self.target(sample, use.position, rng)
        if self.rule is None:
            return prepare_plain(
                sample,
                self.processor,
                self.settings,
                reader=self._reader,
                target=target,
                control=self.control,
                section=self.section,
            )
        return prepare(
            sample,
            self.processor,
            self.settings,
            rule=self.rule,
            reader=self._reader,
            target=target,
            shuffle=rng if self.shuffle_frames else None,
            control=self.control,
            section=self.section,
        )

    def collate(self, items: Sequence[Item], parts: int = 1) -> Batch:
        """Merges items into a batch of so many parts."""
        if self.rule is None:
            return collate_plain(cast(Any, items), parts)
        return collate(cast(Any, items), parts)


class MixedDataset(Dataset[Item]):
    """A concatenation of data sets, each decoded and prompted by its own settings."""

    def __init__(self, parts: Sequence[PromptDataset]) -> None:
        self.parts = parts
        self.samples = [sample for part in parts for sample in part.samples]
        self.workers = parts[0].workers  # the configuration requires that all parts have the same
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return len(self.samples)

    def collate(self, items: Sequence[Item], parts: int = 1) -> Batch:
        """Merges items into a batch of so many parts."""
        return self.parts[0].collate(items, parts)

    def __getitem__(self, use: SampleDraw) -> Item:
        part = bisect.bisect_right(self._ends, use.index)
        start = self._ends[part] - len(self.parts[part])
        return self.parts[part][SampleDraw(use.position, use.index - start)]


Prompts = PromptDataset | MixedDataset


class TrainLoader:
    """Batches of shuffled samples, one epoch per iteration. Lightning saves and restores its state.

    Each epoch's order is drawn from (seed, epoch): up to `together` questions about one video or picture form a bunch,
    and bunches are shuffled. The n-th batches of all ranks, concatenated in rank order, equal the n-th batch of one
    rank with `world` times the batch size, so a run does not depend on the number of ranks. A bunch larger than a
    rank's batch is therefore split, and each of its ranks decodes the file. Samples that do not fill a batch on every
    rank are left for another epoch. If a bunch fills several batches of all ranks, one worker makes all of them, so
    that it decodes the file once.

    With several `parts`, a batch is as many smaller ones, one after the other, each spread over the ranks as said.

    `weights` belong to a `MixedDataset`: its parts' shares of an epoch, which is as long as all parts together.

    `waited` is the time in seconds that the caller has waited for batches, `lasted` the time since the first request.

    Raises:
        UserError: there are too few samples for one batch on every rank.
    """

    def __init__(
        self,
        dataset: Prompts,
        *,
        batch_size: int,
        seed: int,
        parts: int = 1,
        together: int = 1,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._dataset = dataset
        self.batch_size = batch_size
        self._parts = parts
        self._seed = seed
        self._together = together
        self._weights = weights
        self._rank = rank
        self._world = world
        self.waited = 0.0
        self._started: float | None = None
        self._everyones = batch_size * world  # samples of a batch of all ranks
        self._unit = max(1, together // self._everyones)  # consecutive batches made by one worker
        self._per_epoch = len(dataset) // (self._everyones * self._unit) * self._unit
        if self._per_epoch == 0:
            self._unit = 1
            self._per_epoch = len(dataset) // self._everyones
        if self._per_epoch == 0:
            raise UserError(
                f"{len(dataset)} samples do not fill a batch of {batch_size} on each of {world} ranks: lower "
                "objective.prompts_per_rollout (stage.batch_size in sft) or use more data"
            )
        self._epoch = 0
        self._given = 0

    def __len__(self) -> int:
        return self._per_epoch

    def state_dict(self) -> dict[str, int]:
        """The loader's position: the epoch, the number of its batches delivered so far, and the samples of one batch
        over all ranks."""
        return {"epoch": self._epoch, "given": self._given, "samples": self._everyones}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes from a saved state, possibly on a different number of ranks.

        Raises:
            UserError: the global batch size has changed.
        """
        if state["samples"] != self._everyones:
            each, rest = divmod(state["samples"], self._world)
            remedy = (
                f"a number of devices that divides {state['samples']} (cluster.devices, cluster.num_nodes)"
                if rest
                else f"objective.prompts_per_rollout={each} (stage.batch_size={each} in sft)"
            )
            raise UserError(
                f"the checkpoint has {state['samples']} samples in a batch of all devices together, and this run "
                f"{self._everyones}, {self.batch_size} on each of {self._world}: to resume from it, use {remedy}"
            )
        self._epoch, self._given = state["epoch"], state["given"]

    @property
    def lasted(self) -> float:
        """Seconds since the first batch was requested."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def __iter__(self) -> Iterator[Batch]:
        if self._given >= len(self):  # Lightning stops after len(self) batches without exhausting the iterator
            self._epoch, self._given = self._epoch + 1, 0
        order = self._order()
        left = [self._uses(order, batch) for batch in range(self._given, self._per_epoch)]
        first = -self._given % self._unit  # remaining batches of a unit that a restart has split
        cuts = [0, *range(first, len(left), self._unit), len(left)]
        units = [left[start:end] for start, end in itertools.pairwise(cuts) if start < end]
        batches = self._timed(_loader(self._dataset, units, self._parts))
        for batch in batches:
            self._given += 1
            yield batch
        self._epoch, self._given = self._epoch + 1, 0

    def _timed(self, units: Iterator[list[Batch]]) -> Iterator[Batch]:
        asked = time.monotonic()
        self._started = asked if self._started is None else self._started
        for unit in units:
            self.waited += time.monotonic() - asked
            yield from unit
            asked = time.monotonic()

    def _order(self) -> np.ndarray:
        if isinstance(self._dataset, MixedDataset):
            assert self._weights is not None
            parts = [part.samples for part in self._dataset.parts]
            return mixed_order(parts, self._weights, self._together, self._seed, self._epoch)
        rng = np.random.default_rng([self._seed, 0, self._epoch])
        return epoch_order(self._dataset.samples, self._together, rng)

    def _uses(self, order: np.ndarray, batch: int) -> list[SampleDraw]:
        each = self.batch_size // self._parts
        starts = ((batch * self._parts + n) * each * self._world + self._rank * each for n in range(self._parts))
        before = self._epoch * self._per_epoch * self._everyones
        return [SampleDraw(before + i, int(order[i])) for start in starts for i in range(start, start + each)]


def mixed_order(
    parts: Sequence[Sequence[Sample]], weights: Sequence[float], together: int, seed: int, epoch: int
) -> np.ndarray:
    """The order of an epoch over several data sets, as long as all of them: indices into their concatenation.

    Each part contributes its share by `weights` and goes through all of its samples before it starts over, across
    epochs; a part larger than its share takes several epochs. Bunches cut short by the end of such a pass or of an
    epoch come last, so that they do not shift the others.
    """
    total = sum(len(part) for part in parts)
    ends = [round(total * sum(weights[: i + 1]) / sum(weights)) for i in range(len(parts))]
    bunches: list[tuple[int, list[int]]] = []  # each with the index of its part
    start = 0
    for number, (part, count) in enumerate(zip(parts, np.diff([0, *ends]).tolist(), strict=True)):
        size = len(part)
        first, end = epoch * count, (epoch + 1) * count  # within the concatenated passes over the part
        for turn in range(first // size, -(-end // size)):
            order = start + epoch_order(part, together, np.random.default_rng([seed, 0, turn, number]))
            low, high = max(0, first - turn * size), min(size, end - turn * size)
            cuts = ((max(i, low), min(i + together, high)) for i in range(0, size, together))
            bunches += [(number, order[i:j].tolist()) for i, j in cuts if i < j]
        start += size

    def is_short(entry: tuple[int, list[int]]) -> bool:
        return len(entry[1]) < together

    # shuffle the sequence of parts; each part still gives its bunches in order, so that its passes do not mix
    waiting = [iter([found for owner, found in sorted(bunches, key=is_short) if owner == n]) for n in range(len(parts))]
    rng = np.random.default_rng([seed, 2, epoch])
    turns = sorted((bunches[i] for i in rng.permutation(len(bunches)).tolist()), key=is_short)
    return np.array([index for owner, _ in turns for index in next(waiting[owner])])


def epoch_order(samples: Sequence[Sample], together: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of the samples in which bunches of up to `together` questions about one file are adjacent.

    Which questions form a bunch is random too. The remainders of files, fewer than `together` questions each, are put
    into bunches of their own, so that no other bunch straddles two batches if `together` divides the batch size.
    """
    order = rng.permutation(len(samples))
    if together == 1:
        return order
    by_file: dict[Path, list[int]] = {}
    for index in order.tolist():
        by_file.setdefault(samples[index].path, []).append(index)
    full = [
        found[i : i + together] for found in by_file.values() for i in range(0, len(found) - together + 1, together)
    ]
    left = [index for found in by_file.values() for index in found[len(found) // together * together :]]
    bunches = full + [left[i : i + together] for i in range(0, len(left), together)]
    # the only short one goes last, so that it does not shift the others
    last = bunches.pop() if len(bunches[-1]) < together else []
    mixed = [index for bunch in rng.permutation(len(bunches)).tolist() for index in bunches[bunch]]
    return np.array(mixed + last)


def _loader(dataset: Prompts, units: list[list[list[SampleDraw]]], parts: int) -> Iterator[list[Batch]]:
    """Yields units: lists of consecutive batches that one worker makes."""
    return made_by_workers(_UnitBatches(dataset, parts), units, dataset.workers)


class _UnitBatches:
    """A worker's item: the batches of a unit."""

    def __init__(self, dataset: Prompts, parts: int) -> None:
        self._dataset = dataset
        self._parts = parts

    def __getitem__(self, unit: list[list[SampleDraw]]) -> list[Batch]:
        return [self._dataset.collate([self._dataset[use] for use in batch], self._parts) for batch in unit]
