"""How workers are fed: a file is decoded once, by one of them, and a stopped run resumes where it was."""

from __future__ import annotations

import itertools
import os
import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.config.settings import VideoSettings
from spacer.data import loading
from spacer.data.decode import MediaReader
from spacer.data.loading import MixedDataset, SampleDraw, TrainLoader
from spacer.data.processing import Prompt, PromptBatch, collate
from spacer.data.video import Video
from spacer.errors import MediaError
from tests.unit.data.making import Numbered

SETTINGS = VideoSettings()
Seen = tuple[tuple[str, ...], tuple[int, ...]]  # the samples of a batch, the positions of their use


def seen(batch: PromptBatch) -> Seen:
    positions = (int(batch.forest.prompt(n).ids_L[0]) for n in range(len(batch.samples)))
    return tuple(item.id for item in batch.samples), tuple(positions)


def epoch(train: TrainLoader) -> list[Seen]:
    return [seen(batch) for batch in train]


def loader(count: int, workers: int = 0, *, parts: int = 1, each: int = 4, **options: Any) -> TrainLoader:
    """A loader of `count` questions, of which `parts` sets have a share each."""
    sizes = [count // parts] * (parts - 1) + [count - count // parts * (parts - 1)]
    made: Any = [Numbered(size, workers, each) for size in sizes]
    weights = [1.0 + number for number in range(parts)]
    dataset = made[0] if parts == 1 else MixedDataset(made)
    return TrainLoader(dataset, **{"batch_size": 2, "seed": 0, "weights": weights, **options})


# ---- a file is decoded once


class Reading(Numbered):
    """Reads each question's video, too."""

    def __init__(self, count: int, workers: int, each: int = 4) -> None:
        super().__init__(count, workers, each)
        self._reader = MediaReader(0)  # remembers the last file alone

    def collate(self, items: Any, parts: int = 1) -> PromptBatch:
        return collate(items, parts)

    def __getitem__(self, use: SampleDraw) -> Prompt:
        self._reader.video(self.samples[use.index].path, SETTINGS)
        return super().__getitem__(use)


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each decoding, in whatever process: the file's name and the process."""

    def read(path: Path, settings: VideoSettings) -> Video:
        with open(tmp_path / "decoded", "a") as out:
            out.write(f"{path.stem} {os.getpid()}\n")
        return Video(np.zeros((2, 1, 1, 3), np.uint8), (0.0, 1.0), 1.0, 2.0)

    monkeypatch.setattr("spacer.data.decode.read_video", read)
    (tmp_path / "decoded").touch()
    return tmp_path / "decoded"


def reading(count: int, workers: int, **options: Any) -> TrainLoader:
    dataset: Any = Reading(count, workers)
    return TrainLoader(dataset, **{"seed": 0, "together": 4, **options})


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_bunch_of_several_batches_is_one_workers(workers: int, batch_size: int, decoded: Path) -> None:
    train = reading(32, workers, batch_size=batch_size)
    batches = list(train)
    assert [len(batch.samples) for batch in batches] == [batch_size] * (32 // batch_size)
    lines = [line.split() for line in decoded.read_text().splitlines()]
    assert Counter(name for name, _ in lines) == {str(file): 1 for file in range(8)}
    assert len({process for _, process in lines}) == max(1, min(workers, 8))
    assert (str(os.getpid()) in {process for _, process in lines}) == (workers == 0)


def test_without_bunches_files_are_decoded_again(decoded: Path) -> None:
    """What the bunches are for; and so the count above is no accident of the reader's memory."""
    list(reading(32, 0, batch_size=1, together=1))
    assert len(decoded.read_text().splitlines()) > 16


@pytest.mark.parametrize(("batch_size", "files"), [(1, 8), (2, 8), (4, 4), (8, 4)])
def test_a_bunch_is_one_ranks_where_it_fits_its_batch(batch_size: int, files: int, decoded: Path) -> None:
    taken: dict[int, set[Path]] = defaultdict(set)
    for rank in range(2):
        for batch in reading(32, 1, batch_size=batch_size, rank=rank, world=2):
            taken[rank] |= {item.path for item in batch.samples}
    assert [len(taken[rank]) for rank in range(2)] == [files, files]
    assert len(decoded.read_text().splitlines()) == 2 * files  # once by each rank that asks about it


def test_a_bunch_cut_by_a_restart_is_decoded_once_more(decoded: Path) -> None:
    train = reading(32, 0, batch_size=1)
    list(itertools.islice(train, 6))  # two into the second bunch
    before = len(decoded.read_text().splitlines())
    resumed = reading(32, 2, batch_size=1)
    resumed.load_state_dict(train.state_dict())
    assert len(list(resumed)) == 26
    assert before == 2 and len(decoded.read_text().splitlines()) == 2 + 7


@pytest.mark.parametrize(("count", "expected"), [(32, 32), (35, 32), (39, 36), (3, 3)])
def test_an_epoch_is_whole_bunches_where_there_are_any(count: int, expected: int) -> None:
    train = loader(count, batch_size=1, together=4)
    assert len(train) == len(epoch(train)) == expected


def test_too_few_for_a_bunch_a_rank_still_fill_batches() -> None:
    ranks = [loader(6, batch_size=1, together=8, rank=rank, world=2) for rank in range(2)]
    taken = [name for rank in ranks for ids, _ in epoch(rank) for name in ids]
    assert len(ranks[0]) == len(ranks[1]) == 3 and sorted(taken) == list("012345")


# ---- restarts


def check_restart(stop: int, workers: tuple[int, int], whole: list[Seen], count: int, options: dict[str, Any]) -> None:
    """Stops after `stop` batches of two epochs and resumes in a new loader."""
    stopped = loader(count, workers[0], **options)
    length = len(stopped)
    before = epoch(stopped) if stop >= length else []
    before += [seen(batch) for batch in itertools.islice(stopped, stop - len(before))] if stop % length else []
    resumed = loader(count, workers[1], **options)
    resumed.load_state_dict(stopped.state_dict())
    after = epoch(resumed)
    if stop < length:
        after += epoch(resumed)
    assert before + after == whole


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("together", [1, 3, 4])
def test_a_restart_at_any_batch_gives_the_rest(together: int, batch_size: int, parts: int) -> None:
    options = {"together": together, "batch_size": batch_size, "parts": parts}
    train = loader(17, **options)
    whole = epoch(train) + epoch(train)
    assert len({position for _, used in whole for position in used}) == len(whole) * batch_size
    for stop in range(2 * len(train)):
        check_restart(stop, (0, 0), whole, 17, options)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("together", "batch_size"), [(4, 1), (4, 2), (3, 2)])
def test_a_restart_may_have_another_number_of_workers(together: int, batch_size: int, parts: int) -> None:
    options = {"together": together, "batch_size": batch_size, "parts": parts}
    train = loader(9, **options)
    whole = epoch(train) + epoch(train)
    changes = itertools.cycle([(0, 1), (1, 2), (2, 0)])
    for stop in range(0, 2 * len(train), 1 if batch_size > 1 else 3):
        check_restart(stop, next(changes), whole, 9, options)


@hypothesis_settings(deadline=None, max_examples=80)
@given(
    count=st.integers(8, 40),
    each=st.integers(1, 6),
    together=st.integers(1, 8),
    batch_size=st.integers(1, 4),
    parts=st.integers(1, 3),
    world=st.integers(1, 2),
    data=st.data(),
)
def test_restarts_of_every_plan(
    count: int, each: int, together: int, batch_size: int, parts: int, world: int, data: st.DataObject
) -> None:
    options = {"each": each, "together": together, "batch_size": batch_size, "parts": parts, "world": world}
    options["rank"] = data.draw(st.integers(0, world - 1))
    train = loader(count, **options)
    whole = epoch(train) + epoch(train)
    assert len(whole) == 2 * len(train)
    check_restart(data.draw(st.integers(0, len(whole) - 1)), (0, 0), whole, count, options)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    count=st.integers(8, 40),
    together=st.integers(1, 8),
    batch_size=st.integers(1, 4),
    world=st.integers(1, 3),
    parts=st.integers(1, 2),
)
def test_ranks_take_different_questions_at_different_positions(
    count: int, together: int, batch_size: int, world: int, parts: int
) -> None:
    if count < batch_size * world:
        return
    options = {"together": together, "batch_size": batch_size, "world": world, "parts": parts}
    ranks = [epoch(loader(count, rank=rank, **options)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    positions = [position for batches in ranks for _, used in batches for position in used]
    assert sorted(positions) == list(range(len(positions)))
    if parts == 1:
        names = [name for batches in ranks for ids, _ in batches for name in ids]
        assert len(set(names)) == len(names)


# ---- what a reader holds


class Sized:
    """Stands in for `read_video`: as many bytes as the file's name says; remembers what is still alive."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.alive: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()

    def __call__(self, path: Path, settings: VideoSettings) -> Video:
        self.read.append(path.stem)
        if path.stem.startswith("broken"):
            raise MediaError(f"{path}: broken")
        frames = np.zeros((1, int(path.stem.partition("-")[0]), 1, 1), np.uint8)
        self.alive[len(self.read)] = frames
        return Video(frames, (0.0, 0.0), 0.5, 1.0)

    def held(self) -> int:
        return sum(frames.nbytes for frames in self.alive.values())


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sized]:
    found = Sized()
    monkeypatch.setattr("spacer.data.decode.read_video", found)
    yield found


files = st.sampled_from(["10-a", "10-b", "20-c", "35-d", "50-e", "90-f", "broken"])


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(files, max_size=14), most=st.sampled_from([0, 20, 50, 100]))
def test_a_reader_holds_the_last_files_within_its_bytes(asked: list[str], most: int, sized: Sized) -> None:
    sized.read.clear()
    sized.alive.clear()
    reader = MediaReader(most)
    model: OrderedDict[str, int] = OrderedDict()  # name → bytes, the one that was asked for longest ago first
    expected = []
    for name in asked:
        size = 0 if name == "broken" else int(name[:2])
        if name not in model:
            expected.append(name)
        model[name] = size
        model.move_to_end(name)
        while sum(model.values()) > most and len(model) > 1:
            model.popitem(last=False)
        if name == "broken":
            with pytest.raises(MediaError, match="broken"):
                reader.video(Path("/broken.mp4"), SETTINGS)
        else:
            assert reader.video(Path(f"/{name}.mp4"), SETTINGS).frames_THWC.nbytes == size
        assert sized.read == expected
        assert sized.held() <= max(most, size)


def test_what_was_asked_for_longest_ago_goes_first(sized: Sized) -> None:
    reader = MediaReader(50)
    for name in ("10-a", "20-c", "10-a", "30-d", "10-a", "20-c"):  # room for d is made by c, which was not asked again
        reader.video(Path(f"/{name}.mp4"), SETTINGS)
    assert sized.read == ["10-a", "20-c", "30-d", "20-c"]


def test_other_settings_are_another_reading(sized: Sized) -> None:
    reader = MediaReader(100)
    for frames in (4, 8, 4, 8):
        reader.video(Path("/10.mp4"), VideoSettings(max_frames=frames))
    assert sized.read == ["10", "10"]


def test_whatever_is_held_counts(sized: Sized) -> None:
    """What is made of a file is held beside its frames, in the same bytes."""
    made: list[str] = []
    reader = MediaReader(100)

    def make(name: str) -> np.ndarray:
        def read() -> np.ndarray:
            made.append(name)
            return np.concatenate([reader.video(Path("/10.mp4"), SETTINGS).frames_THWC.flatten(), np.zeros(80, "u1")])

        return reader.once(name, read)

    for _ in range(2):
        assert make("a").nbytes == 90
        reader.video(Path("/10.mp4"), SETTINGS)
    assert (made, sized.read) == (["a"], ["10"])
    make("b")  # a goes, the video stays
    reader.video(Path("/10.mp4"), SETTINGS)
    make("a")
    assert (made, sized.read) == (["a", "b", "a"], ["10"])


def test_what_could_not_be_made_is_not_tried_again() -> None:
    tries: list[int] = []

    def fail() -> np.ndarray:
        tries.append(1)
        raise MediaError("it is short")

    reader = MediaReader(100)
    for _ in range(2):
        with pytest.raises(MediaError, match="it is short"):
            reader.once("x", fail)
    assert len(tries) == 1


# ---- waiting


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class Slow(Numbered):
    """Takes a second for each question."""

    def __init__(self, count: int, clock: Clock) -> None:
        super().__init__(count, workers=0)
        self._clock = clock

    def collate(self, items: Any, parts: int = 1) -> PromptBatch:
        return collate(items, parts)

    def __getitem__(self, use: SampleDraw) -> Prompt:
        self._clock.now += 1
        return super().__getitem__(use)


@pytest.mark.parametrize("together", [1, 4])
def test_waiting_is_the_callers_standing_still(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(loading, "time", clock)
    slow: Any = Slow(8, clock)
    train = TrainLoader(slow, batch_size=2, seed=0, together=together)
    clock.now += 100  # before the first batch is asked for
    assert (train.waited, train.lasted) == (0, 0)
    for number, _ in enumerate(itertools.chain(train, train), 1):
        made = -(-number * 2 // together) * together if together > 1 else number * 2  # questions, in whole units
        assert train.waited == made
        assert train.lasted == made + 10 * (number - 1)
        clock.now += 10  # the caller's own work
    assert (train.waited, train.lasted) == (16, 16 + 10 * 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_waiting_goes_on_over_epochs_and_is_part_of_the_time(workers: int) -> None:
    train = loader(8, workers)
    assert train.waited == train.lasted == 0
    last = (0.0, 0.0)
    for _ in itertools.chain(train, train):
        now = (train.waited, train.lasted)
        assert 0 <= last[0] <= now[0] <= now[1] and last[1] <= now[1]
        last = now
