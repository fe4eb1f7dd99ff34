"""Questions in batches that fit: all of them, in order, a video's together, within bounds."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as sometimes
from hypothesis import strategies as st

from spacer.data.asking import Bounds, QuestionLoader, _cost, join
from spacer.data.loading import SampleDraw
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.samples import Fault
from tests.unit.data.making import about, words
from tests.unit.data.test_collate import MIXED, assert_gives_back

FREE = Bounds(tokens=10**6, questions=10**6, answer=1)


class Made:
    """Stands in for `PromptDataset`: prompts and faults made by hand."""

    def __init__(self, items: list[Prompt | Fault], workers: int = 0) -> None:
        self.items = items
        self.samples = [item.sample if isinstance(item, Prompt) else words([0]).sample for item in items]
        self.workers = workers

    def collate(self, items: Any, parts: int = 1) -> PromptBatch:
        return collate(items, parts)

    def __getitem__(self, use: SampleDraw) -> Prompt | Fault:
        return self.items[use.index]


def asked(items: list[Prompt | Fault], bounds: Bounds, workers: int = 0, indices: Any = None) -> list[PromptBatch]:
    dataset: Any = Made(items, workers)
    return list(QuestionLoader(dataset, indices if indices is not None else range(len(items)), bounds))


def ids(batches: list[PromptBatch]) -> list[str]:
    return [sample.id for batch in batches for sample in batch.samples]


def film(video: int, question: int, wide: int = 3) -> Prompt:
    prompt = about(f"/{video}.mp4", [10 * video + question], mark=100.0 * video, wide=wide)
    return dataclasses.replace(prompt, sample=dataclasses.replace(prompt.sample, id=f"{video}.{question}"))


@sometimes(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(MIXED)), max_size=4),
    order=st.permutations(range(len(MIXED))),
)
def test_joined_batches_give_every_prompt_back(cuts: list[int], order: list[int]) -> None:
    items = [MIXED[i] for i in order]
    edges = sorted({0, len(items), *cuts})
    batches = [collate(items[a:b]) for a, b in itertools.pairwise(edges)]
    assert_gives_back(join(batches), items)


@sometimes(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    tokens=st.integers(1, 80),
    questions=st.integers(1, 8),
    answer=st.integers(1, 6),
    samples=st.integers(1, 3),
)
def test_every_question_once_in_order_and_within_the_bounds(
    counts: list[int], tokens: int, questions: int, answer: int, samples: int
) -> None:
    items = [film(video, n) for video, count in enumerate(counts) for n in range(count)]
    bounds = Bounds(tokens, questions, answer, samples)
    batches = asked([*items], bounds)
    assert ids(batches) == [item.sample.id for item in items]
    for batch in batches:
        assert len(batch.samples) <= questions
        held = sum(len(segment) for segment in batch.forest.segments) + len(batch.samples) * answer * samples
        assert held == _cost([batch], bounds)
        assert held <= tokens or len(batch.samples) == 1


def test_a_videos_questions_share_its_patches() -> None:
    (batch,) = asked([film(video, n) for video in range(2) for n in range(18)], FREE)
    assert batch.pictures.video_grids is not None and len(batch.pictures.video_grids) == 2
    assert sum(len(segment) for segment in batch.forest.segments) == 2 * (1 + 3) + 36


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_asked_ones_alone_with_any_number_of_workers(workers: int) -> None:
    items: list[Prompt | Fault] = [film(video, n) for video in range(3) for n in range(3)]
    assert ids(asked(items, Bounds(10**6, 2, 1), workers, [5, 0, 8, 3, 4])) == ["1.2", "0.0", "2.2", "1.0", "1.1"]
    assert asked(items, FREE, workers, []) == []


def test_faults_come_through() -> None:
    broken = Fault("x", "unreadable media", "why")
    batches = asked([film(0, 0), broken, film(1, 0), broken], FREE)
    assert ids(batches) == ["0.0", "1.0"]
    assert [fault for batch in batches for fault in batch.faults] == [broken, broken]
    (alone,) = asked([broken], FREE)
    assert alone.faults == (broken,) and not alone.samples


def test_some_of_a_forest_are_what_they_were() -> None:
    forest = collate([film(video, n) for video in range(2) for n in range(3)]).forest
    some = forest.only([4, 1, 5])
    assert len(some.segments) == 5  # two roots and three questions
    for place, n in enumerate([4, 1, 5]):
        for name in ("ids_L", "positions_3L", "vision_L"):
            assert torch.equal(getattr(some.prompt(place), name), getattr(forest.prompt(n), name))
