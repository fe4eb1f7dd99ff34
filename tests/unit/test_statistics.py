"""Intervals by hand-worked cases, by properties, and by how often they cover the truth."""

from __future__ import annotations

import doctest
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spacer.statistics import resampling, summaries
from spacer.statistics.summaries import PairedDelta, compare, mean_interval, mean_scores, paired_delta

REWARD = {"total": 0.0, "answer": 0.0, "map": 0.0, "map_quality": 0.0, "format": 0.0, "length": 0.0, "temporal": 0.0}


def prediction(key, scene="a", kind="object_counting", tokens=10, drawn=True, **reward):
    return {
        "id": key,
        "scene": scene,
        "question_type": kind,
        "completion_tokens": tokens,
        "drawn": drawn,
        "reward": {**REWARD, **reward},
    }


@pytest.fixture
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clusters are enough: for cases that can be worked by hand."""
    monkeypatch.setattr("spacer.statistics.intervals.FEWEST_CLUSTERS", 2)


@st.composite
def clustered(draw):
    size = draw(st.integers(2, 40))
    values = st.lists(st.floats(-10, 10), min_size=size, max_size=size)
    scenes = draw(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=size, max_size=size))
    return draw(values), draw(values), scenes


def test_doctests():
    assert doctest.testmod(summaries).failed == 0


def test_point_estimates_by_hand():
    result = paired_delta([0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], ["a", "a", "b", "c"])
    assert (result.before, result.after, result.delta) == (0.5, 0.75, 0.25)
    assert (result.questions, result.scenes) == (4, 3)


@pytest.mark.usefixtures("few_suffice")
def test_interval_equals_the_enumerated_bootstrap_distribution():
    # Scene a: three questions with sum 3; scene b: one with sum 0. Drawing two of two gives the pooled means
    # aa -> 6/6, ab and ba -> 3/4 (a ratio of sums, not the mean 1/2 of scene means), bb -> 0, with odds 1:2:1.
    # For two scenes Student's quantile is tan(pi level / 2), widened by sqrt(2): at level 0.2 it leaves out 0.32 on
    # either side, more than the quarter of aa, and at 0.4 only 0.15.
    values, scenes = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    assert mean_interval(values, scenes, level=0.2) == (0.75, 0.75, 0.75)
    assert mean_interval(values, scenes, level=0.4) == (0.75, 0.0, 1.0)


@pytest.mark.usefixtures("few_suffice")
def test_quantiles_of_three_scenes_against_all_draws():
    # Three equal scenes whose sums lie evenly: all 27 draws have the means below with odds 1:3:6:7:6:3:1, no skew, and
    # with two degrees of freedom Student's quantile at share p is (2p - 1) sqrt(2 / (4p (1 - p))).
    values, scenes = [0.5, 0.5, 1.5, 0.5, 2.0, 1.0], ["x", "x", "y", "y", "z", "z"]
    sums = np.array([1.0, 2.0, 3.0])
    every = [sums[list(d)].sum() / 6 for d in itertools.product(range(3), repeat=3)]
    for level in (0.3, 0.5, 0.75):
        p = (1 + level) / 2
        z = math.sqrt(3 / 2) * (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
        tail = (1 - math.erf(z / math.sqrt(2))) / 2
        _, low, high = mean_interval(values, scenes, level=level)
        assert (low, high) == pytest.approx(tuple(np.quantile(every, [tail, 1 - tail], method="inverted_cdf")))


@pytest.mark.parametrize(("scenes", "there"), [(1, False), (2, False), (9, False), (10, True)])
def test_fewer_than_ten_scenes_have_no_interval(scenes, there):
    names = [str(n % scenes) for n in range(3 * scenes)]
    result = paired_delta([0.0] * len(names), [0.5 + n % 2 for n in range(len(names))], names)
    assert math.isfinite(result.delta_low) is math.isfinite(result.delta_high) is there
    assert result.excludes_zero is there and result.delta > 0.8


def test_scenes_that_do_not_differ_have_no_interval():
    result = paired_delta([0.0] * 20, [1.5] * 20, [str(n) for n in range(20)])
    assert result.delta == 1.5 and math.isnan(result.delta_low) and not result.excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_excludes_zero(low, high, expected):
    assert PairedDelta(0, 0, 0, low, high, 1, 1).excludes_zero is expected


@settings(max_examples=60, deadline=None)
@given(clustered())
@example(([0.0, 0.0], [0.0, 8.75e-122], ["a", "b"]))
def test_properties(data):
    before, after, scenes = data
    first = paired_delta(before, after, scenes, resamples=200)
    assert first.delta == pytest.approx(first.after - first.before, abs=1e-9)
    differences = np.subtract(after, before)
    if first.scenes < 10 or np.ptp(differences) < 1e-6:
        assert first.scenes >= 10 or math.isnan(first.delta_low)
        return
    if math.isnan(first.delta_low):  # scenes whose means are equal
        return
    assert first.delta_low <= first.delta_high
    assert differences.min() - 1e-9 <= first.delta_low and first.delta_high <= differences.max() + 1e-9
    # Order of the questions is of no account, nor are the names of the scenes as long as they sort alike.
    order = np.random.default_rng(0).permutation(len(scenes))
    again = paired_delta(
        [before[i] for i in order], [after[i] for i in order], [f"s{scenes[i]}" for i in order], resamples=200
    )
    assert (again.delta_low, again.delta_high) == pytest.approx((first.delta_low, first.delta_high), abs=1e-9)
    # The interval moves and scales with the values.
    moved = paired_delta(before, [2 * a - b + 3 for a, b in zip(after, before, strict=True)], scenes, resamples=200)
    assert moved.delta_low == pytest.approx(2 * first.delta_low + 3, abs=1e-9)


def test_seed_and_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    values, scenes = rng.normal(size=60).tolist(), [str(i // 3) for i in range(60)]
    whole = mean_interval(values, scenes, resamples=500)
    assert whole == mean_interval(values, scenes, resamples=500)
    assert whole != mean_interval(values, scenes, resamples=500, seed=1)
    monkeypatch.setattr(resampling, "_CHUNK_DRAWS", 140)
    assert whole == mean_interval(values, scenes, resamples=500)


def test_speed():
    values, scenes = np.random.default_rng(0).normal(size=800), [str(i // 4) for i in range(800)]
    started = time.process_time()
    mean_interval(values, scenes)
    assert time.process_time() - started < 1


def test_nominal_95_percent_covers_and_a_question_bootstrap_does_not():
    """1500 worlds of 80 scenes with 2 to 6 questions, whose scene shares half the variance (true mean 0)."""
    rng = np.random.default_rng(7)
    worlds, covered, covered_by_questions = 1500, 0, 0
    for world in range(worlds):
        scene = np.repeat(np.arange(80), rng.integers(2, 7, size=80))
        values = rng.normal(size=80)[scene] + rng.normal(size=len(scene))
        _, low, high = mean_interval(values, scene.astype(str).tolist(), resamples=800, seed=world)
        covered += low <= 0 <= high
        singles = [str(index) for index in range(len(values))]
        _, low, high = mean_interval(values, singles, resamples=200, seed=world)
        covered_by_questions += low <= 0 <= high
    assert 0.92 <= covered / worlds <= 0.98
    assert covered_by_questions / worlds < 0.90


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_delta([1.0], [], ["a"]), "1 values before but 0 after"),
        (lambda: mean_interval([1.0], ["a", "b"]), "1 values but 2 scenes"),
        (lambda: mean_interval([], []), "no questions"),
        (lambda: mean_interval([0.0, math.nan], ["a", "b"]), "question 1 is not finite"),
        (lambda: mean_interval([0.0], ["a"], level=95), "level must lie between 0 and 1"),
        (lambda: mean_interval([0.0], ["a"], resamples=0), "resamples must be at least 1"),
        (lambda: compare([], []), "no predictions"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("few_suffice")
def test_compare_metrics_and_order():
    before = [
        prediction("1", "a", "route_planning", answer=0.0, total=1.0, format=1.0, map_quality=0.4, tokens=30),
        prediction("2", "b", "object_counting", answer=0.5, total=1.5, format=1.0, drawn=False, tokens=50),
    ]
    after = [
        prediction("2", "b", "object_counting", answer=1.0, total=2.8, map=0.8, map_quality=0.8, format=1.0),
        prediction("1", "a", "route_planning", answer=1.0, total=2.6, map=0.6, map_quality=0.6, format=1.0),
    ]
    deltas = compare(before, after, resamples=50)
    assert list(deltas) == [
        "reward/total",
        "reward/answer",
        "reward/map",
        "reward/format",
        "map/quality",
        "map/drawn",
        "completion/tokens",
        "answer/object_counting",
        "answer/route_planning",
    ]
    assert deltas["reward/total"].before == 1.25
    assert deltas["reward/total"].after == pytest.approx(2.7)
    # of the one question for which both drew a map: one that was not drawn is none of quality 0
    assert deltas["map/quality"].questions == 1
    assert deltas["map/quality"].delta == pytest.approx(0.2)
    assert deltas["map/drawn"].delta == 0.5
    assert deltas["completion/tokens"].delta == -30
    counting = deltas["answer/object_counting"]
    assert (counting.before, counting.after, counting.questions, counting.scenes) == (0.5, 1.0, 1, 1)
    # Each question's difference is matched by id, not by place: scene a gains 1.6 and scene b 1.3.
    assert (deltas["reward/total"].delta_low, deltas["reward/total"].delta_high) == pytest.approx((1.3, 1.6))


def test_bonuses_appear_where_one_was_earned():
    rows = [prediction("1"), prediction("2", "b")]
    earned = [prediction("1", length=0.2), prediction("2", "b")]
    assert "reward/length" not in compare(rows, rows, resamples=5)
    deltas = compare(rows, earned, resamples=5)
    assert deltas["reward/length"].delta == pytest.approx(0.1)
    assert "reward/temporal" not in deltas


def test_maps_are_compared_over_questions_with_one_and_not_at_all_without():
    without = [prediction("1", drawn=False) | {"true_map": None}, prediction("2", "b", drawn=False) | {"true_map": {}}]
    bare = [{**row, "reward": {k: v for k, v in row["reward"].items() if not k.startswith("map")}} for row in without]
    for rows in (without, bare):  # files of old hold a 0
        assert not [name for name in (*compare(rows, rows, resamples=5), *mean_scores(rows, 5, 0)) if "map" in name]
    some = [*bare, prediction("3", map=0.5) | {"true_map": {"chair": [[1, 2]]}}]
    deltas = compare(some, some, resamples=5)
    assert (deltas["reward/map"].before, deltas["reward/map"].questions) == (0.5, 1)
    assert (deltas["map/drawn"].questions, mean_scores(some, 5, 0)["reward/map"]["mean"]) == (3, 0.5)


def test_unknown_question_types_come_last():
    rows = [prediction("1", kind="zebra"), prediction("2", kind="apple"), prediction("3", kind="route_planning")]
    assert list(compare(rows, rows, resamples=5))[-3:] == ["answer/route_planning", "answer/apple", "answer/zebra"]


def test_spatial_types_are_told_together_beside_each():
    kinds = {
        "object_counting": 1.0,
        "route_planning": 0.0,
        "object_rel_distance": 1.0,
        "object_rel_direction_hard": 1.0,
    }
    rows = [prediction(kind, kind=kind, answer=right) for kind, right in kinds.items()]
    wrong = [prediction(kind, kind=kind) for kind in kinds]
    delta = compare(wrong, rows, resamples=5)["answer/spatial"]
    assert (delta.before, delta.after, delta.questions) == (0.0, pytest.approx(2 / 3), 3)
    assert mean_scores(rows, 5, 0)["answer/spatial"]["mean"] == pytest.approx(2 / 3)
    names = [name for name in mean_scores(rows, 5, 0) if name.startswith("answer/")]
    assert names == ["answer/spatial", *(f"answer/{kind}" for kind in summaries.QUESTION_TYPES if kind in kinds)]
    for alone in (rows[1:], rows[:2]):  # nothing else, or one type only
        assert "answer/spatial" not in compare(alone, alone, resamples=5)
        assert "answer/spatial" not in mean_scores(alone, 5, 0)


def test_broken_samples_count_as_zero():
    broken = {"id": "1", "scene": "a", "question_type": "object_counting", "reward": REWARD, "error": "no frames"}
    deltas = compare([broken, prediction("2", "b")], [prediction("1", total=2.0), prediction("2", "b")], resamples=5)
    assert deltas["reward/total"].delta == 1
    assert deltas["completion/tokens"].before == 5
    with pytest.raises(KeyError):  # only a sample that says so may lack its fields
        compare([{**broken, "error": "x"}], [{k: v for k, v in broken.items() if k != "error"}])


def test_mismatched_predictions_are_named():
    before = [prediction("1"), prediction("2"), prediction("3")]
    after = [prediction("2"), prediction("3", scene="z"), prediction("4")]
    with pytest.raises(ValueError) as error:
        compare(before, after)
    assert "missing after: 1;" in str(error.value)
    assert "missing before: 4;" in str(error.value)
    assert "scene differs: 3" in str(error.value)
    with pytest.raises(ValueError, match=r"before have ids that occur more than once: 1$"):
        compare([*before, prediction("1")], after)
    with pytest.raises(ValueError, match="9 and 20 more"):
        compare([prediction(str(i)) for i in range(30)], [])
