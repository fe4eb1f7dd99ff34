"""Several data sets in one epoch: each gives its share, and all of itself before it begins again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from spacer.benchmarks.guard import guarded_videos
from spacer.config.choices import OnBad
from spacer.config.load import ConfigError, load_settings
from spacer.config.settings import JsonlSettings, MixSettings, RoomsSettings
from spacer.data.loading import MixedDataset, SampleDraw, TrainLoader, mixed_order
from spacer.data.samples import Sample
from spacer.data.sources import load_splits
from tests.unit.configs import PROMPTS, load, plain, valid
from tests.unit.data.making import Numbered, sample
from tests.unit.data.written import jsonl, row, write


def part(name: str, size: int, each: int = 4) -> list[Sample]:
    """`size` questions, `each` of them about one file."""
    return [sample(f"{name}{number}", path=Path(f"/{name}{number // each}.mp4")) for number in range(size)]


def parts_of(*sizes: int, each: int = 4) -> list[list[Sample]]:
    return [part("abcdef"[number], size, each) for number, size in enumerate(sizes)]


def order_of(parts: Sequence[Sequence[Sample]], weights: Sequence[float], epoch: int = 0, **options: int) -> list[int]:
    values = {"together": 1, "seed": 0, **options}
    return mixed_order(parts, weights, values["together"], values["seed"], epoch).tolist()


def shares(parts: Sequence[Sequence[Sample]], order: Sequence[int]) -> list[int]:
    """How many of an order's indices are of each part."""
    ends = [0, *itertools.accumulate(map(len, parts))]
    return [sum(low <= index < high for index in order) for low, high in itertools.pairwise(ends)]


# ---- the order


@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [
        ((10, 10), (1, 1), [10, 10]),
        ((90, 10), (0.9, 0.1), [90, 10]),
        ((90, 10), (0.5, 0.5), [50, 50]),
        ((30, 10, 60), (1, 3, 6), [10, 30, 60]),
        ((5, 5), (2, 1), [7, 3]),  # 6.67 and 3.33
        ((1, 99), (99, 1), [99, 1]),  # one question, over and over
        ((3, 3, 3), (0.1, 0.1, 0.1), [3, 3, 3]),
        ((10, 90), (1e-6, 1), [0, 100]),  # a share of less than one question
    ],
)
@pytest.mark.parametrize("together", [1, 3])
def test_each_part_gives_its_share(
    together: int, sizes: tuple[int, ...], weights: tuple[float, ...], expected: list[int]
) -> None:
    parts = parts_of(*sizes)
    for epoch in range(3):
        assert shares(parts, order_of(parts, weights, epoch, together=together)) == expected


mixes = st.lists(st.tuples(st.integers(1, 12), st.floats(0.05, 10)), min_size=1, max_size=4)


@hypothesis_settings(deadline=None)
@given(mix=mixes, together=st.integers(1, 5), seed=st.integers(0, 2**31 - 1), epochs=st.integers(1, 5))
def test_a_part_is_met_whole_before_any_of_it_comes_again(
    mix: list[tuple[int, float]], together: int, seed: int, epochs: int
) -> None:
    parts, weights = parts_of(*(size for size, _ in mix), each=3), [weight for _, weight in mix]
    total = sum(map(len, parts))
    used: Counter[int] = Counter()
    given_so_far = [0] * len(parts)
    for epoch in range(epochs):
        order = order_of(parts, weights, epoch, together=together, seed=seed)
        assert len(order) == total
        used.update(order)
        counts = shares(parts, order)
        for number, (count, weight) in enumerate(zip(counts, weights, strict=True)):
            assert abs(count - total * weight / sum(weights)) <= 1
            given_so_far[number] += count
        # after any epoch, no question of a part has been used twice oftener than another
        start = 0
        for size, count in zip(map(len, parts), given_so_far, strict=True):
            times = [used[index] for index in range(start, start + size)]
            assert sum(times) == count and max(times) - min(times) <= 1
            start += size


@hypothesis_settings(deadline=None)
@given(mix=mixes, together=st.integers(2, 5), epoch=st.integers(0, 4))
def test_whole_bunches_stand_first_where_nothing_shifts_them(
    mix: list[tuple[int, float]], together: int, epoch: int
) -> None:
    """Every group of `together` is one part's, until the first that is not: the short ones are last."""
    parts, weights = parts_of(*(size for size, _ in mix), each=3), [weight for _, weight in mix]
    names = [item.id[0] for items in parts for item in items]
    order = order_of(parts, weights, epoch, together=together)
    whole = 0
    for items, count in zip(parts, shares(parts, order), strict=True):
        # the part's uses are numbered over all epochs: a round is as long as the part, and bunches begin with it
        uses = [divmod(use, len(items)) for use in range(epoch * count, (epoch + 1) * count)]
        bunches = Counter((turn, place // together) for turn, place in uses)
        whole += sum(found == together for found in bunches.values())
    for start in range(0, whole * together, together):
        assert len({names[index] for index in order[start : start + together]}) == 1


def test_bunches_of_a_file_stay_together_and_fill_batches() -> None:
    """Files of six, bunches of three and shares that divide: every batch of three is about one file."""
    parts = parts_of(18, 36, each=6)
    paths = [item.path for items in parts for item in items]
    seen = set()
    for epoch in range(6):
        order = order_of(parts, (1, 1), epoch, together=3)
        batches = [order[i : i + 3] for i in range(0, len(order), 3)]
        assert all(len({paths[index] for index in batch}) == 1 for batch in batches)
        kinds = [paths[batch[0]].stem[0] for batch in batches]
        assert Counter(kinds) == {"a": 9, "b": 9}
        seen.add(tuple(kinds))
    assert len(seen) == 6  # the parts are mixed, not one after the other


def test_the_order_is_that_of_seed_and_epoch() -> None:
    parts = parts_of(12, 8)
    for together in (1, 2):
        orders = {
            (seed, epoch): tuple(order_of(parts, (1, 2), epoch, seed=seed, together=together))
            for seed in range(3)
            for epoch in range(4)
        }
        assert len(set(orders.values())) == 12
        for (seed, epoch), order in orders.items():
            assert tuple(order_of(parts, (1, 2), epoch, seed=seed, together=together)) == order


def test_parts_of_one_size_are_not_shuffled_alike() -> None:
    parts = parts_of(20, 20)
    order = order_of(parts, (1, 1))
    assert [index for index in order if index < 20] != [index - 20 for index in order if index >= 20]


@hypothesis_settings(deadline=None)
@given(mix=mixes, seed=st.integers(0, 99), epochs=st.integers(1, 4))
def test_within_an_epoch_too_no_question_comes_twice_before_each_has_come(
    mix: list[tuple[int, float]], seed: int, epochs: int
) -> None:
    parts, weights = parts_of(*(size for size, _ in mix)), [weight for _, weight in mix]
    flow = [index for epoch in range(epochs) for index in order_of(parts, weights, epoch, seed=seed)]
    start = 0
    for items in parts:
        own = [index for index in flow if start <= index < start + len(items)]
        for turn in range(0, len(own), len(items)):
            met = own[turn : turn + len(items)]
            assert len(set(met)) == len(met)
        start += len(items)


# ---- the data set


class Named(Numbered):
    """As `Numbered`, with the part's name before the ids."""

    def __init__(self, name: str, count: int, workers: int = 0) -> None:
        super().__init__(count, workers)
        self.samples = part(name, count)


def mixed(*sizes: int, workers: int = 0) -> MixedDataset:
    made: Any = [Named("abcdef"[number], size, workers) for number, size in enumerate(sizes)]
    return MixedDataset(made)


def test_an_index_leads_to_its_part() -> None:
    dataset = mixed(3, 1, 4)
    assert len(dataset) == 8
    found: list[Any] = [dataset[SampleDraw(100 + index, index)] for index in range(8)]
    assert [item.sample.id for item in found] == ["a0", "a1", "a2", "b0", "c0", "c1", "c2", "c3"]
    assert [item.sample for item in found] == dataset.samples
    assert [int(item.ids_L[0]) for item in found] == list(range(100, 108))  # the use keeps its position


def test_the_loader_takes_shares_of_a_mix() -> None:
    train = TrainLoader(mixed(40, 10), batch_size=5, seed=3, weights=[1, 1])
    assert len(train) == 10
    for epoch in range(3):
        names = [item.id for batch in train for item in batch.samples]
        assert Counter(name[0] for name in names) == {"a": 25, "b": 25}
        assert [name for name in names if name[0] == "b"].count("b0") in (2, 3)
        order = mixed_order([part("a", 40), part("b", 10)], [1, 1], 1, 3, epoch)
        assert names == [[*part("a", 40), *part("b", 10)][index].id for index in order]


def test_ranks_share_a_mix_out() -> None:
    alone = TrainLoader(mixed(24, 16), batch_size=4, seed=0, weights=[1, 2], together=2)
    ranks = [
        TrainLoader(mixed(24, 16), batch_size=2, seed=0, weights=[1, 2], together=2, rank=rank, world=2)
        for rank in range(2)
    ]
    for _ in range(2):
        whole = [[item.id for item in batch.samples] for batch in alone]
        halves = [[[item.id for item in batch.samples] for batch in rank] for rank in ranks]
        assert [a + b for a, b in zip(*halves, strict=True)] == whole


# ---- through a run's data


def test_ids_and_faults_name_their_part(root: Path) -> None:
    write(root / "i.jsonl", row(1), row(2, path="none.mp4"))
    write(root / "j.jsonl", row(1, path="videos/b.mp4"))
    parts: dict[str, Any] = {"one": jsonl(root, on_bad=OnBad.skip), "two": jsonl(root, index="j.jsonl")}
    settings = load()
    object.__setattr__(settings, "dataset", MixSettings(parts=parts, weights={"one": 1.0, "two": 1.0}))
    pieces = load_splits(settings, True, guarded_videos)
    assert [item.id for piece in pieces for item in piece.train.samples] == ["one/1", "two/1"]
    assert [fault.where for piece in pieces for fault in piece.train.faults] == ["one, line 2"]


# ---- the configuration


def mix_of(root: Path, **changes: Any) -> dict[str, Any]:
    """A valid configuration of a mix of files and rooms; names of changes have __ for the dots."""
    (root / "index.jsonl").touch()
    common = {"prompts": PROMPTS, "workers": 2}
    parts = {"own": JsonlSettings(root=str(root), **common), "rooms": RoomsSettings(root="data", **common)}
    cfg = OmegaConf.create(valid())
    cfg.dataset = {
        "kind": "mix",
        "parts": {name: plain(made) for name, made in parts.items()},
        "weights": {"own": 0.9, "rooms": 0.1},
        "workers": 2,
    }
    for path, value in changes.items():
        OmegaConf.update(cfg, f"dataset.{path.replace('__', '.')}", value, merge=False, force_add=True)
    return cfg


def test_a_mix_is_read(tmp_path: Path) -> None:
    dataset = load_settings(mix_of(tmp_path)).dataset
    assert isinstance(dataset, MixSettings)
    assert isinstance(dataset.parts["own"], JsonlSettings) and isinstance(dataset.parts["rooms"], RoomsSettings)
    assert dataset.weights == {"own": 0.9, "rooms": 0.1}


def problems_of(root: Path, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(mix_of(root, **changes))
    return caught.value.problems


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {"own": 1.0}}, "dataset.parts and dataset.weights must name the same data sets"),
        ({"weights": {"own": 1.0, "rooms": 1.0, "x": 1.0}}, "dataset.parts and dataset.weights must name the same"),
        ({"weights__rooms": 0.0}, "dataset.weights.rooms: is 0.0, must be a number (greater than 0)"),
        ({"weights__rooms": -1}, "dataset.weights.rooms: is -1, must be a number (greater than 0)"),
        ({"weights__rooms": float("inf")}, "dataset.weights.rooms: is inf, must be finite"),
        ({"weights__rooms": "half"}, "dataset.weights.rooms: is 'half', must be a number"),
        ({"parts__own__workers": 3}, "workers and questions_per_video are those of the whole mix"),
        ({"parts__rooms__questions_per_video": 2}, "workers and questions_per_video are those of the whole mix"),
        ({"workers": 0}, "dataset.workers: is 0, must be an integer (at least 1: videos are never decoded"),
        (
            {"parts__own__video__max_frames": 1},
            "dataset.parts.own.video.max_frames: is 1, must be an integer (at least",
        ),
        ({"parts__own__index": "none.jsonl"}, "dataset.parts.own.index=none.jsonl is not a file in dataset.parts.own"),
        ({"parts__own__root": "/none"}, "dataset.parts.own.root=/none is not an existing folder"),
        ({"parts__own__zzz": 1}, "dataset.parts.own.zzz: unknown key"),
        ({"parts__own__kind": "mix"}, "dataset.parts.own.kind: is 'mix', must be one of jsonl, archive, scans, rooms"),
        ({"parts__own": 3}, "dataset.parts.own: is 3, must be a section with the key kind"),
        ({"parts__rooms__min_objects": 7}, "dataset.parts.rooms.min_objects=7 exceeds dataset.parts.rooms.max_objects"),
        ({"parts__rooms__prompts__map": "x"}, "dataset.parts.rooms.prompts: 'map' does not hold $question"),
        ({"parts__own__data_sources": "SR_dataset"}, "dataset.parts.own.data_sources: is 'SR_dataset', must be a list"),
        ({"parts__own__exclude": ["/none"]}, "dataset.parts.own.exclude=('/none',) names a file that is not there"),
        ({"parts__own__exclude": [3]}, "dataset.parts.own.exclude[0]: is 3, must be a text"),
        ({"parts": {}, "weights": {}}, "the same data sets, at least one"),
    ],
    ids=str,
)
def test_each_mistake_in_a_mix_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    found = problems_of(tmp_path, **changes)
    assert sum(words in problem for problem in found) == 1, found
    assert len(found) == (2 if changes == {"workers": 0} else 1), found


def test_mistakes_of_several_parts_come_at_once(tmp_path: Path) -> None:
    found = problems_of(tmp_path, parts__own__index="none.jsonl", parts__rooms__max_objects=9, weights__own=0)
    assert len(found) == 3
    assert np.all(["dataset." in problem for problem in found])
