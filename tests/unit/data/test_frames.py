"""Which frames of a video are taken: by rate and bounds, evenly in time, and as the published protocols have it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spacer.config.choices import Sampling
from spacer.config.settings import VideoSettings
from spacer.data.frames import Timeline, sample


def frame_indices(total: int, fps: float | Fraction, settings: VideoSettings) -> tuple[int, ...]:
    """Those of a film of `total` frames at `fps`."""
    return sample(Timeline(range(total), total, 1 / Fraction(fps)), settings).indices


totals = st.integers(1, 5_000)
rates = st.floats(0.1, 240)
video_settings = st.builds(VideoSettings, st.integers(2, 64), st.floats(0.05, 60))


@given(totals, rates, video_settings)
def test_indices_are_frames_in_order_and_even_in_number(total: int, fps: float, settings: VideoSettings) -> None:
    indices = frame_indices(total, fps, settings)
    assert all(isinstance(index, int) and 0 <= index < total for index in indices)
    assert list(indices) == sorted(indices)
    assert len(indices) % 2 == 0
    assert 2 <= len(indices) <= settings.max_frames


@given(totals, rates, video_settings)
def test_indices_are_evenly_spaced(total: int, fps: float, settings: VideoSettings) -> None:
    """Each is less than one frame before its place i · total / n, exactly."""
    indices = frame_indices(total, fps, settings)
    assert indices[0] == 0
    for number, index in enumerate(indices):
        assert 0 <= Fraction(number * total, len(indices)) - index < 1
    if total >= len(indices):
        assert len(set(indices)) == len(indices)


@given(totals, st.fractions(1, 120, max_denominator=1001), st.integers(2, 64), st.integers(1, 30))
def test_as_many_as_rate_bound_and_film_allow(total: int, fps: Fraction, max_frames: int, wanted_fps: int) -> None:
    """The largest even number that none of the three forbids; one frame serves twice where it must."""
    allowed = min(total / fps * wanted_fps, Fraction(max_frames), Fraction(total))
    assume(allowed % 2 < 2 - Fraction(1, 10**9))  # not where floats round to the next number
    assume(allowed % 2 > Fraction(1, 10**9) or allowed in (max_frames, total))
    indices = frame_indices(total, fps, VideoSettings(max_frames=max_frames, fps=float(wanted_fps)))
    assert len(indices) == max(2, int(allowed) // 2 * 2)


@pytest.mark.parametrize(
    ("total", "fps", "max_frames", "rate", "indices"),
    [
        (24, 8.0, 16, 2.0, (0, 4, 8, 12, 16, 20)),  # 3 s at 2 a second
        (24, 8.0, 4, 2.0, (0, 6, 12, 18)),
        (24, 8.0, 5, 2.0, (0, 6, 12, 18)),  # an odd bound is met from below
        (28, 8.0, 16, 2.0, (0, 4, 9, 14, 18, 23)),  # 3.5 s: 7 would fit, 6 are even
        (5, 30.0, 16, 2.0, (0, 2)),  # a sixth of a second: two at least
        (1, 30.0, 16, 2.0, (0, 0)),  # one picture, twice
        (3, 1.0, 16, 2.0, (0, 1)),  # slower than asked: no frame twice
        (3600, 30.0, 16, 2.0, tuple(range(0, 3600, 225))),  # two minutes
        (50, 25.0, 16, 2.0, (0, 12, 25, 37)),
    ],
)
def test_indices_by_hand(total: int, fps: float, max_frames: int, rate: float, indices: tuple[int, ...]) -> None:
    assert frame_indices(total, fps, VideoSettings(max_frames=max_frames, fps=rate)) == indices


# ---- at uneven times


@given(st.lists(st.integers(0, 200), min_size=1, max_size=80), st.integers(1, 200), video_settings)
def test_what_is_taken_is_what_is_shown_at_even_times(gaps: list[int], last: int, settings: VideoSettings) -> None:
    starts = np.cumsum(gaps).tolist()
    timeline = Timeline(starts, starts[-1] + last, Fraction(1, 90))
    found = sample(timeline, settings)
    assert found.step * len(found.indices) == timeline.seconds
    for number, index in enumerate(found.indices):
        time = starts[0] + number * found.step * 90
        assert starts[index] <= time  # it has appeared by then, and no later one has
        assert index + 1 == len(starts) or starts[index + 1] > time


def test_a_still_of_five_seconds_is_shown_for_five_seconds() -> None:
    """Ten frames in the first second, five seconds without a new one, ten in the last second."""
    starts = [*range(10), *range(60, 70)]
    found = sample(Timeline(starts, 70, Fraction(1, 10)), VideoSettings(max_frames=14, fps=2.0))
    assert found.step == Fraction(1, 2)
    assert [starts[index] for index in found.indices] == [0, 5, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 60, 65]


# ---- as published


def spacer_evaluation(total: int, fps: float, most: int = 32) -> list[int]:
    """A frame for each whole second, at most 32, from the first to the last; an odd number repeats the last."""
    count = max(1, min(most, int(total / fps)))
    indices = np.linspace(0, total - 1, count, dtype=int).tolist()
    return indices + indices[-1:] * (count % 2)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0])
def test_endpoints_are_those_of_the_release(fps: float) -> None:
    """From four seconds on, for the release's loader of training data takes at least four."""
    settings = VideoSettings(32, 1.0, sampling=Sampling.endpoints, min_frames=4)
    for total in range(int(4 * fps), 2_000, 7):
        found, released = frame_indices(total, fps, settings), spacer_evaluation(total, fps)
        spans = max(4, min(32, int(total / fps))) - 1
        # where a place is a whole number, the release's floats may fall short of it and take the frame before
        whole = [i * (total - 1) % spans == 0 for i in range(len(found))]
        assert all(a == b or (exact and a == b + 1) for a, b, exact in zip(found, released, whole, strict=True)), total


def test_endpoints_of_1500_frames() -> None:
    found = frame_indices(1500, 30.0, VideoSettings(32, 1.0, sampling=Sampling.endpoints, min_frames=4))
    assert found == tuple(i * 1499 // 31 for i in range(32))
    assert (found[1], found[-2], found[-1]) == (48, 1450, 1499)
    # and ours of the same film
    assert frame_indices(1500, 30.0, VideoSettings(32, 1.0))[-1] == 1453


@pytest.mark.parametrize(
    ("total", "indices"),
    [
        (150, (0, 37, 74, 111, 149, 149)),  # five seconds: an odd number, so the last is taken twice
        (60, (0, 19, 39, 59)),  # two seconds: at least four
        (2, (0, 0, 0, 1)),
        (1, (0, 0, 0, 0)),
    ],
)
def test_endpoints_by_hand(total: int, indices: tuple[int, ...]) -> None:
    settings = VideoSettings(32, 1.0, sampling=Sampling.endpoints, min_frames=4)
    assert frame_indices(total, 30.0, settings) == indices


def qwen_vl_utils(total: int, fps: float, rate: float, least: int = 4, most: int = 16) -> list[int]:
    """Its documented rule: a count within the bounds, made even from above, from the first to the last, rounded."""
    count = int(min(max(total / fps * rate, least), most, total)) // 2 * 2
    found: list[int] = torch.linspace(0, total - 1, count).round().long().tolist()
    return found


@pytest.mark.parametrize("fps", [10.0, 25.0, 30.0])
def test_nearest_is_what_qwen_vl_utils_takes(fps: float) -> None:
    settings = VideoSettings(16, 2.0, sampling=Sampling.nearest, min_frames=4)
    for total in range(2, 900, 5):
        found, wanted = frame_indices(total, fps, settings), qwen_vl_utils(total, fps, 2.0)
        # float32 may put what lies in the middle of two frames on either side
        middle = [(i * (total - 1)) % max(1, len(wanted) - 1) * 2 == len(wanted) - 1 for i in range(len(wanted))]
        assert all(a == b or (tie and abs(a - b) == 1) for a, b, tie in zip(found, wanted, middle, strict=True)), total


@pytest.mark.parametrize("sampling", Sampling)
@given(total=totals, fps=rates, most=st.integers(2, 40), least=st.integers(2, 40))
def test_every_rule_keeps_the_bounds(sampling: Sampling, total: int, fps: float, most: int, least: int) -> None:
    settings = VideoSettings(most, 1.0, sampling=sampling, min_frames=least)
    found = sample(Timeline(range(total), total, 1 / Fraction(fps)), settings)
    assert len(found.indices) % 2 == 0 and 2 <= len(found.indices) <= most + most % 2
    assert list(found.indices) == sorted(found.indices) and found.indices[0] == 0
    assert found.step > 0
    if sampling != Sampling.interval and len(found.indices) > 2:
        assert found.indices[-1] == total - 1
