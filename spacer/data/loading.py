"""The loader: which samples come when, decoded by workers, the same after a restart as without one."""

from __future__ import annotations

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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, use: Use) -> Prompt | Fault:
        return self._prepare(use, MediaReader(self.settings.video))

    def __getitems__(self, uses: Sequence[Use]) -> list[Prompt | Fault]:
        """A batch, in which each file is decoded once. A `DataLoader` asks for this where it is there."""
        reader = MediaReader(self.settings.video)
        return [self._prepare(use, reader) for use in uses]

    def _prepare(self, use: Use, reader: MediaReader) -> Prompt | Fault:
        sample = self.samples[use.index]
        rng = np.random.default_rng([self.seed, 1, use.position])
        return prepare(
            sample,
            self.processor,
            self.settings,
            rule=self.rule,
            reader=reader,
            target=None if self.target is None else self.target(sample, use.position, rng),
            shuffle=rng if self.shuffle_frames else None,
        )


class TrainLoader:
    """Batches of shuffled samples, an epoch an iteration; Lightning saves and restores where it stands.

    Each epoch has an order of its own, drawn from (seed, epoch): questions about one video or picture stand together,
    at most `together` of them, and these bunches are shuffled. Rank r takes every `world`-th batch; what does not fill
    a batch on every rank is left for another epoch.

    Raises:
        ValueError: there are fewer samples than one batch on every rank takes.
    """

    def __init__(
        self,
        dataset: PromptDataset,
        *,
        batch_size: int,
        seed: int,
        together: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._together = together
        self._rank = rank
        self._world = world
        self._per_epoch = len(dataset) // (batch_size * world)
        if self._per_epoch == 0:
            raise ValueError(
                f"{len(dataset)} samples do not fill a batch of {batch_size} on each of {world} ranks: take a smaller "
                "objective.prompts_per_rollout (stage.batch_size in sft) or more data"
            )
        self._epoch = 0
        self._given = 0

    def __len__(self) -> int:
        return self._per_epoch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and the batches of it that were given out."""
        return {"epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a saved state."""
        self._epoch, self._given = state["epoch"], state["given"]

    def __iter__(self) -> Iterator[PromptBatch]:
        if self._given >= len(self):  # the last epoch was taken by its length, as Lightning does, not to its end
            self._epoch, self._given = self._epoch + 1, 0
        order = epoch_order(self._dataset.samples, self._together, np.random.default_rng([self._seed, 0, self._epoch]))
        for batch in _loader(self._dataset, [self._uses(order, i) for i in range(self._given, self._per_epoch)]):
            self._given += 1
            yield batch
        self._epoch, self._given = self._epoch + 1, 0

    def _uses(self, order: np.ndarray, batch: int) -> list[Use]:
        start = (batch * self._world + self._rank) * self._batch_size
        before = self._epoch * self._per_epoch * self._world * self._batch_size
        return [Use(before + start + i, int(order[start + i])) for i in range(self._batch_size)]


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


class OrderedLoader:
    """Batches of the samples at `indices`, in that order, each once.

    Not a `DataLoader`: Lightning would take that apart to make it predict-safe, and it is so already.
    """

    def __init__(self, dataset: PromptDataset, batch_size: int, indices: Sequence[int]) -> None:
        uses = [Use(index, index) for index in indices]
        self._batches = [uses[i : i + batch_size] for i in range(0, len(uses), batch_size)]
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter(_loader(self._dataset, self._batches))


def _loader(dataset: PromptDataset, batches: list[list[Use]]) -> DataLoader[Any]:
    with warnings.catch_warnings():
        # torch advises as many workers as cores however light their work
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=dataset.settings.workers,
            collate_fn=collate,
            prefetch_factor=2 if dataset.settings.workers else None,
        )
