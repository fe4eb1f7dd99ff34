"""The loader: which samples come when, decoded by workers, the same after a restart as without one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from torch.utils.data import DataLoader, Dataset

from spacer.data.processing import Prompt, PromptBatch, collate, prepare
from spacer.data.samples import Fault, Sample
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
        tokens_per_second: float,
        seed: int = 0,
        target: Target | None = None,
        shuffle_frames: bool = False,
    ) -> None:
        self.samples = samples
        self.processor = processor
        self.settings = settings
        self.tokens_per_second = tokens_per_second
        self.seed = seed
        self.target = target
        self.shuffle_frames = shuffle_frames

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, use: Use) -> Prompt | Fault:
        sample = self.samples[use.index]
        rng = np.random.default_rng([self.seed, 1, use.position])
        return prepare(
            sample,
            self.processor,
            self.settings,
            tokens_per_second=self.tokens_per_second,
            target=None if self.target is None else self.target(sample, use.position, rng),
            shuffle=rng if self.shuffle_frames else None,
        )

    @property
    def pad_id(self) -> int:
        """The token that fills rows up."""
        pad = self.processor.tokenizer.pad_token_id
        return int(pad if pad is not None else self.processor.tokenizer.eos_token_id)


class TrainLoader:
    """Batches of shuffled samples, an epoch an iteration; Lightning saves and restores where it stands.

    Each epoch is a permutation drawn from (seed, epoch). Rank r takes every `world`-th batch; what does not fill a
    batch on every rank is left for another epoch. Groups of `chunk` batches come `repeat` times running, marked by
    `PromptBatch.reuse`, so that several updates can be made from one rollout.

    Raises:
        ValueError: there are fewer samples than one batch on every rank takes.
    """

    def __init__(
        self,
        dataset: PromptDataset,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        repeat: int = 1,
        chunk: int = 1,
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world = world
        self._repeat = repeat
        self._chunk = chunk
        self._per_epoch = len(dataset) // (batch_size * world) // chunk * chunk
        if self._per_epoch == 0:
            raise ValueError(
                f"{len(dataset)} samples do not fill {chunk} batches of {batch_size} on each of {world} ranks: take a "
                "smaller objective.prompts_per_batch (stage.batch_size in sft) or more data"
            )
        self._epoch = 0
        self._given = 0

    def __len__(self) -> int:
        return self._per_epoch * self._repeat

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and the batches of it that were given out."""
        return {"epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a saved state."""
        self._epoch, self._given = state["epoch"], state["given"]

    def __iter__(self) -> Iterator[PromptBatch]:
        if self._given >= len(self):  # the last epoch was taken by its length, as Lightning does, not to its end
            self._epoch, self._given = self._epoch + 1, 0
        order = np.random.default_rng([self._seed, 0, self._epoch]).permutation(len(self._dataset))
        first = self._given // self._repeat // self._chunk * self._chunk
        skip = self._given - first * self._repeat
        loader = _loader(self._dataset, [self._uses(order, i) for i in range(first, self._per_epoch)])
        for batch in self._repeated(loader):
            if skip:
                skip -= 1
                continue
            self._given += 1
            yield batch
        self._epoch, self._given = self._epoch + 1, 0

    def _uses(self, order: np.ndarray, batch: int) -> list[Use]:
        start = (batch * self._world + self._rank) * self._batch_size
        before = self._epoch * self._per_epoch * self._world * self._batch_size
        return [Use(before + start + i, int(order[start + i])) for i in range(self._batch_size)]

    def _repeated(self, loader: Iterable[PromptBatch]) -> Iterator[PromptBatch]:
        chunk: list[PromptBatch] = []
        for batch in loader:
            chunk.append(batch)
            if len(chunk) == self._chunk:
                for reuse in range(self._repeat):
                    yield from (attrs.evolve(held, reuse=reuse) for held in chunk)
                chunk = []


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
            collate_fn=partial(collate, pad_id=dataset.pad_id),
            prefetch_factor=2 if dataset.settings.workers else None,
        )
