"""The loader: which samples come when, decoded by workers, the same after a restart as without one."""

from __future__ import annotations

import bisect
import itertools
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from spacer.data.decode import MediaReader
from spacer.data.processing import Prompt, PromptBatch, collate, prepare
from spacer.data.samples import Fault, Sample
from spacer.errors import UserError
from spacer.positions import PositionRule
from spacer.settings import DatasetSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

# what a sample is answered with in supervised training, at this use of it and with a generator that belongs to it
Target = Callable[[Sample, int, np.random.Generator], str]


@dataclass(frozen=True)
class Use:
    """The `position`-th use of a sample since training began; names the random numbers that it draws."""

    position: int
    index: int


class PromptDataset(Dataset[Prompt | Fault]):
    """Samples, decoded and processed when they are asked for."""

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Qwen2_5_VLProcessor,
        settings: DatasetSettings,
        *,
        rule: PositionRule,
        seed: int = 0,
        target: Target | None = None,
        shuffle_frames: bool = False,
    ) -> None:
        self.samples = samples
        self.processor = processor
        self.settings = settings
        self.rule = rule
        self.seed = seed
        self.target = target
        self.shuffle_frames = shuffle_frames
        self.workers = settings.workers
        self._reader = MediaReader()  # each worker has its own copy

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, use: Use) -> Prompt | Fault:
        sample = self.samples[use.index]
        rng = np.random.default_rng([self.seed, 1, use.position])
        return prepare(
            sample,
            self.processor,
            self.settings,
            rule=self.rule,
            reader=self._reader,
            target=None if self.target is None else self.target(sample, use.position, rng),
            shuffle=rng if self.shuffle_frames else None,
        )


class MixedDataset(Dataset[Prompt | Fault]):
    """Several data sets one after the other, each decoded and prompted by its own settings."""

    def __init__(self, parts: Sequence[PromptDataset]) -> None:
        self.parts = parts
        self.samples = [sample for part in parts for sample in part.samples]
        self.workers = parts[0].workers  # equal in all, by a rule of the configuration
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, use: Use) -> Prompt | Fault:
        part = bisect.bisect_right(self._ends, use.index)
        start = self._ends[part] - len(self.parts[part])
        return self.parts[part][Use(use.position, use.index - start)]


Prompts = PromptDataset | MixedDataset


class TrainLoader:
    """Batches of shuffled samples, an epoch an iteration; Lightning saves and restores where it stands.

    Each epoch has an order of its own, drawn from (seed, epoch): questions about one video or picture stand together,
    at most `together` of them, and these bunches are shuffled. The n-th batches of all ranks, side by side in the order
    of the ranks, are the n-th batch of one rank that took `world` times as many: a run does not depend on how it is
    spread. A bunch that is larger than a rank's batch is therefore shared out, and each of its ranks decodes the file.
    What does not fill a batch on every rank is left for another epoch. Where a bunch fills several whole batches of all
    ranks, one worker makes them all, so that it decodes the file once.

    `weights` are for a `MixedDataset`: its parts' shares of an epoch, which is as long as the parts together.

    `waited` is the time in seconds that the caller has stood still for want of a batch, `lasted` the time since the
    first was asked for.

    Raises:
        UserError: there are fewer samples than one batch on every rank takes.
    """

    def __init__(
        self,
        dataset: Prompts,
        *,
        batch_size: int,
        seed: int,
        together: int = 1,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._dataset = dataset
        self.batch_size = batch_size
        self._seed = seed
        self._together = together
        self._weights = weights
        self._rank = rank
        self._world = world
        self.waited = 0.0
        self._started: float | None = None
        self._everyones = batch_size * world  # samples of a batch of all ranks
        self._unit = max(1, together // self._everyones)  # batches that one worker makes in one go
        self._per_epoch = len(dataset) // (self._everyones * self._unit) * self._unit
        if self._per_epoch == 0:
            self._unit = 1
            self._per_epoch = len(dataset) // self._everyones
        if self._per_epoch == 0:
            raise UserError(
                f"{len(dataset)} samples do not fill a batch of {batch_size} on each of {world} ranks: take a smaller "
                "objective.prompts_per_rollout (stage.batch_size in sft) or more data"
            )
        self._epoch = 0
        self._given = 0

    def __len__(self) -> int:
        return self._per_epoch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, the batches of it that were given out, and of how many samples on all
        ranks together these are."""
        return {"epoch": self._epoch, "given": self._given, "samples": self._everyones}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a saved state, also on another number of ranks.

        Raises:
            UserError: the ranks' batches are not as large together as they were.
        """
        if state["samples"] != self._everyones:
            each, rest = divmod(state["samples"], self._world)
            remedy = (
                f"a number of devices that divides {state['samples']} (cluster.devices, cluster.num_nodes)"
                if rest
                else f"objective.prompts_per_rollout={each} (stage.batch_size={each} in sft)"
            )
            raise UserError(
                f"the checkpoint's batches are of {state['samples']} samples on all devices together, and this run's "
                f"of {self._everyones}, {self.batch_size} on each of {self._world}: to go on from it, take {remedy}"
            )
        self._epoch, self._given = state["epoch"], state["given"]

    @property
    def lasted(self) -> float:
        """Seconds since the first batch was asked for."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def __iter__(self) -> Iterator[PromptBatch]:
        if self._given >= len(self):  # the last epoch was taken by its length, as Lightning does, not to its end
            self._epoch, self._given = self._epoch + 1, 0
        order = self._order()
        left = [self._uses(order, batch) for batch in range(self._given, self._per_epoch)]
        first = -self._given % self._unit  # what is left of a unit that a restart has cut
        cuts = [0, *range(first, len(left), self._unit), len(left)]
        units = [left[start:end] for start, end in itertools.pairwise(cuts) if start < end]
        batches = self._timed(_loader(self._dataset, units))
        for batch in batches:
            self._given += 1
            yield batch
        self._epoch, self._given = self._epoch + 1, 0

    def _timed(self, units: DataLoader[Any]) -> Iterator[PromptBatch]:
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

    def _uses(self, order: np.ndarray, batch: int) -> list[Use]:
        start = batch * self._everyones + self._rank * self.batch_size
        before = self._epoch * self._per_epoch * self._everyones
        return [Use(before + start + i, int(order[start + i])) for i in range(self.batch_size)]


def mixed_order(
    parts: Sequence[Sequence[Sample]], weights: Sequence[float], together: int, seed: int, epoch: int
) -> np.ndarray:
    """The order of an epoch of several data sets, as long as they are together: indices into all of them in a row.

    Each part gives its share by `weights`, and goes through all of its samples before it begins again, over the ends of
    epochs; a part that is larger than its share is met whole only after several. Bunches that a round or an epoch cuts
    short come last, where they shift no other.
    """
    total = sum(len(part) for part in parts)
    ends = [round(total * sum(weights[: i + 1]) / sum(weights)) for i in range(len(parts))]
    bunches: list[tuple[int, list[int]]] = []  # each with its part's number
    start = 0
    for number, (part, count) in enumerate(zip(parts, np.diff([0, *ends]).tolist(), strict=True)):
        size = len(part)
        first, end = epoch * count, (epoch + 1) * count  # of the part's rounds, laid in a row
        for turn in range(first // size, -(-end // size)):
            order = start + epoch_order(part, together, np.random.default_rng([seed, 0, turn, number]))
            low, high = max(0, first - turn * size), min(size, end - turn * size)
            cuts = ((max(i, low), min(i + together, high)) for i in range(0, size, together))
            bunches += [(number, order[i:j].tolist()) for i, j in cuts if i < j]
        start += size

    def is_short(entry: tuple[int, list[int]]) -> bool:
        return len(entry[1]) < together

    # whose turn it is is drawn anew; the part then gives its next bunch, so that its rounds follow one another
    waiting = [iter([found for owner, found in sorted(bunches, key=is_short) if owner == n]) for n in range(len(parts))]
    rng = np.random.default_rng([seed, 2, epoch])
    turns = sorted((bunches[i] for i in rng.permutation(len(bunches)).tolist()), key=is_short)
    return np.array([index for owner, _ in turns for index in next(waiting[owner])])


def epoch_order(samples: Sequence[Sample], together: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of the samples in which bunches of up to `together` questions about one file stand side by side.

    Which questions form a bunch is drawn anew, too. What is left of files that do not divide fills bunches of its own,
    so that no other bunch straddles two batches where `together` divides the batch.
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
    last = bunches.pop() if len(bunches[-1]) < together else []  # the only short one comes where it shifts no other
    mixed = [index for bunch in rng.permutation(len(bunches)).tolist() for index in bunches[bunch]]
    return np.array(mixed + last)


def _loader(dataset: Prompts, units: list[list[list[Use]]]) -> DataLoader[Any]:
    """Batches in units of several, which a worker makes together."""
    return made_by_workers(_Units(dataset), units, dataset.workers)


def made_by_workers(units: Dataset[list[PromptBatch]], asked: Sequence[Any], workers: int) -> DataLoader[Any]:
    """What `units` has for each of `asked`, in that order, each as a whole by one worker."""
    with warnings.catch_warnings():
        # torch advises as many workers as cores however light their work
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return DataLoader(
            units,
            batch_size=None,
            sampler=asked,
            collate_fn=_as_is,
            num_workers=workers,
            worker_init_fn=_follow_the_main_process,
            prefetch_factor=2 if workers else None,
        )


def _follow_the_main_process(_: int) -> None:
    """Ctrl-C and what SLURM sends reach all processes, and the main one still needs its workers for a step.

    Where it is killed its workers end too: one with batches that nobody takes would wait for ever.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(main: multiprocessing.process.BaseProcess) -> None:
    main.join()
    os._exit(1)


def _as_is(batches: list[PromptBatch]) -> list[PromptBatch]:
    return batches


class _Units(Dataset[list[PromptBatch]]):
    """What a worker is asked for: the batches of a unit."""

    def __init__(self, dataset: Prompts) -> None:
        self._dataset = dataset

    def __getitem__(self, unit: list[list[Use]]) -> list[PromptBatch]:
        return [collate([self._dataset[use] for use in batch]) for batch in unit]
