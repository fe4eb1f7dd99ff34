"""Batches of questions within a token budget, with the questions about one video kept together.

A worker builds the prompts about one medium, so that its patches are stored once; the main process merges them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import attrs
import torch

from spacer.data.loading import Batch, Item, Prompts, SampleDraw
from spacer.data.plain import PlainBatch, join_plain
from spacer.data.processing import PromptBatch, VisionInputs, cat_given
from spacer.data.samples import Fault
from spacer.data.workers import made_by_workers
from spacer.tree.forest import Forest, Segment

_TOGETHER = 64  # questions about one medium per work item


@dataclass(frozen=True)
class Bounds:
    """Limits of a batch: tokens, and questions that are each answered `samples` times.

    Tokens are counted as in the tree: a shared video once, plus `answer` tokens for each completion.
    """

    tokens: int
    questions: int
    answer: int
    samples: int = 1


class QuestionLoader:
    """Batches of the samples at `indices`, in that order, each once.

    Not a torch `DataLoader`: Lightning would rebuild that one to make it safe for predict, which this already is.
    """

    def __init__(self, dataset: Prompts, indices: Sequence[int], bounds: Bounds) -> None:
        self._dataset = dataset
        self._bounds = bounds
        self._units = [
            uses[i : i + _TOGETHER]
            for _, group in groupby((SampleDraw(n, n) for n in indices), lambda use: dataset.samples[use.index].path)
            for uses in [list(group)]
            for i in range(0, len(uses), _TOGETHER)
        ]

    def __iter__(self) -> Iterator[Batch]:
        held: list[Batch] = []
        made = made_by_workers(_MediumBatches(self._dataset, self._bounds), self._units, self._dataset.workers)
        for batch in (batch for unit in made for batch in unit):
            whole = [*held, batch]
            questions = sum(len(one.samples) for one in whole)
            if held and (questions > self._bounds.questions or _cost(whole, self._bounds) > self._bounds.tokens):
                yield join(held)
                held = []
            held.append(batch)
        if held:
            yield join(held)


class _MediumBatches:
    """A worker's item: the questions about one medium, in as few batches as the bounds allow."""

    def __init__(self, dataset: Prompts, bounds: Bounds) -> None:
        self._dataset = dataset
        self._bounds = bounds

    def __getitem__(self, uses: Sequence[SampleDraw]) -> list[Batch]:
        items = [self._dataset[use] for use in uses]
        prompts = [item for item in items if not isinstance(item, Fault)]
        faults = [item for item in items if isinstance(item, Fault)]
        batches = list(self._within_bounds(prompts))
        return [*batches, self._dataset.collate(faults)] if faults else batches

    def _within_bounds(self, prompts: Sequence[Item]) -> Iterator[Batch]:
        if not prompts:
            return
        batch = self._dataset.collate(prompts)
        too_much = len(prompts) > self._bounds.questions or _cost([batch], self._bounds) > self._bounds.tokens
        if len(prompts) == 1 or not too_much:
            yield batch
            return
        half = len(prompts) // 2
        yield from self._within_bounds(prompts[:half])
        yield from self._within_bounds(prompts[half:])


def _cost(batches: Sequence[Batch], bounds: Bounds) -> int:
    answers = sum(len(batch.samples) for batch in batches) * bounds.samples * bounds.answer
    return answers + sum(prompt_tokens(batch, bounds.samples) for batch in batches)


def prompt_tokens(batch: Batch, samples: int = 1) -> int:
    """The tokens of a batch's prompts that are computed for so many completions of each."""
    if isinstance(batch, PlainBatch):
        return sum(batch.lengths) * samples
    return sum(len(segment) for segment in batch.forest.segments)


def join(batches: Sequence[Batch]) -> Batch:
    """Concatenates batches of one kind. Media that occur in two of them are stored twice."""
    if len(batches) == 1:
        return batches[0]
    trees = [batch for batch in batches if isinstance(batch, PromptBatch)]
    return _join_trees(trees) if trees else join_plain([b for b in batches if isinstance(b, PlainBatch)])


def _join_trees(batches: Sequence[PromptBatch]) -> PromptBatch:
    images = [_rows(batch, image=True) for batch in batches]
    videos = [_rows(batch, image=False) for batch in batches]
    segments: list[Segment] = []
    ends: list[int] = []
    for number, batch in enumerate(batches):
        first = len(segments)
        # feature rows of all images come first, then those of all videos
        to_image = sum(images[:number])
        to_video = sum(images) + sum(videos[:number]) - images[number]
        for segment in batch.forest.segments:
            rows_L = segment.vision_L
            moved_L = torch.where(rows_L < images[number], rows_L + to_image, rows_L + to_video)
            parent = None if segment.parent is None else segment.parent + first
            segments.append(replace(segment, vision_L=torch.where(rows_L < 0, rows_L, moved_L), parent=parent))
        ends += [first + end for end in batch.forest.ends]
    fields = ("image_pixels", "image_grids", "video_pixels", "video_grids")
    return attrs.evolve(
        batches[0],
        samples=tuple(sample for batch in batches for sample in batch.samples),
        strips=tuple(strip for batch in batches for strip in batch.strips),
        forest=Forest(tuple(segments), tuple(ends)),
        pictures=VisionInputs(
            **{name: cat_given([getattr(batch.pictures, name) for batch in batches]) for name in fields}
        ),
        faults=tuple(fault for batch in batches for fault in batch.faults),
    )


def _rows(batch: PromptBatch, image: bool) -> int:
    """The number of feature rows of the batch's images, or of its videos."""
    grids = batch.pictures.image_grids if image else batch.pictures.video_grids
    other = batch.pictures.video_grids if image else batch.pictures.image_grids
    if grids is None:
        return 0
    rows = max(int(segment.vision_L.max()) + 1 for segment in batch.forest.segments)
    if other is None:
        return rows
    patches, others = int(grids.prod(1).sum()), int(other.prod(1).sum())
    return rows * patches // (patches + others)  # every row covers the same number of patches
