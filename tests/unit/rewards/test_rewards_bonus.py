"""The bonuses of a group: length, and the order of frames."""

import pytest

from spacer.config.settings import LengthBonusSettings, OverlongSettings, TemporalBonusSettings
from spacer.rewards import length_bonus, overlong_penalty, temporal_bonus


@pytest.mark.parametrize(
    ("answers", "lengths", "expected"),
    [
        ([1, 1], [400, 400], [0.2, 0.2]),
        ([1, 1], [320, 512], [0.2, 0.2]),  # both ends included
        ([1, 1], [319, 513], [0, 0]),
        ([1, 1, 1], [100, 400, 900], [0, 0.2, 0]),
        ([1, 0, 1], [400, 400, 400], [0.2, 0, 0.2]),
        ([1, 0, 0], [400, 400, 400], [0, 0, 0]),  # at least two good answers
        ([1, 0.1], [400, 400], [0, 0]),  # above 0.1, not at it
        ([0.2, 0.11], [400, 400], [0.2, 0.2]),
        ([1], [400], [0]),
        ([], [], []),
    ],
)
def test_length_bonus(answers: list[float], lengths: list[int], expected: list[float]) -> None:
    assert length_bonus(answers, lengths, LengthBonusSettings()) == expected


def test_length_bonus_follows_its_settings() -> None:
    settings = LengthBonusSettings(bonus=0.5, min_tokens=10, max_tokens=20, min_answer=0.6)
    assert length_bonus([1, 0.7, 0.6], [10, 21, 15], settings) == [0.5, 0, 0]


def test_length_bonus_wants_one_length_for_each_answer() -> None:
    with pytest.raises(ValueError, match="2 answer rewards but 1 lengths"):
        length_bonus([1, 1], [400], LengthBonusSettings())


@pytest.mark.parametrize(
    ("length", "expected"),
    # the paper's own numbers: 20480 tokens at most, of which the last 4096 are the buffer
    [(1, 0), (16384, 0), (16385, -1 / 4096), (18432, -0.5), (20479, -4095 / 4096), (20480, -1), (30000, -1)],
)
def test_overlong_penalty_is_that_of_dapo(length: int, expected: float) -> None:
    settings = OverlongSettings(max_tokens=20480, buffer=0.2, penalty=1.0)
    assert overlong_penalty([length, 1], settings) == [pytest.approx(expected), 0]


@pytest.mark.parametrize(
    ("answers", "shuffled", "expected"),
    [
        ([1, 1, 0, 0], [1, 0], [0.3, 0.3, 0, 0]),  # 0.5 ≥ 0.8 · 0.5
        ([1, 0, 0, 0], [1, 0], [0, 0, 0, 0]),  # 0.25 < 0.8 · 0.5
        ([1, 1, 1, 1, 0], [1, 1], [0.3, 0.3, 0.3, 0.3, 0]),  # 0.8 ≥ 0.8 · 1
        ([0.8] * 3, [1.0] * 3, [0.3] * 3),
        ([0.7] * 3, [1.0] * 3, [0] * 3),
        ([1, 0.1, 0.2], [0], [0.3, 0, 0.3]),  # above 0.1, not at it
        ([0, 0], [0, 0], [0, 0]),
        ([], [1], []),
    ],
)
def test_temporal_bonus(answers: list[float], shuffled: list[float], expected: list[float]) -> None:
    assert temporal_bonus(answers, shuffled, TemporalBonusSettings()) == expected


def test_temporal_bonus_counts_equality_whatever_the_rounding() -> None:
    shuffled = [0.0, 0.0, 0.5, 1.0]
    assert 0.8 * sum(shuffled) / 4 > 0.3
    assert temporal_bonus([0.3], shuffled, TemporalBonusSettings()) == [0.3]


def test_temporal_bonus_follows_its_settings() -> None:
    settings = TemporalBonusSettings(bonus=1.0, margin=2.0, min_answer=0.5)
    assert temporal_bonus([0.9, 0.5], [0.3], settings) == [1.0, 0]
    assert temporal_bonus([0.9, 0.5], [0.4], settings) == [0, 0]


def test_temporal_bonus_wants_shuffled_rewards() -> None:
    with pytest.raises(ValueError, match="shuffled frames"):
        temporal_bonus([1.0], [], TemporalBonusSettings())
