"""Intervals and tests over clusters: against enumeration, published values, and how often they cover the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import astuple
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacer.statistics import resampling
from spacer.statistics.intervals import UNIT, Interval, Paired, intervals, mcnemar, paired
from spacer.statistics.metrics import Metric, chance_adjusted, grouped, mean, mean_of
from spacer.statistics.resampling import Clustered, interval, resample, student_quantile

WORLDS = 1200  # a coverage of 95 % is then measured to a standard error of 0.63 %, 93 to 97 % to 0.74 and 0.49 %


def metrics_of(tasks: list[str]) -> list[Metric]:
    """The mean over questions and the macro mean over tasks."""
    return [mean("mean", range(len(tasks))), mean_of("macro", [mean(k, of) for k, of in grouped(tasks).items()])]


@pytest.fixture
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clusters are enough: for cases that can be worked by hand."""
    monkeypatch.setattr("spacer.statistics.intervals.FEWEST_CLUSTERS", 2)


# coverage


def world(rng: np.random.Generator, clusters: int, right: float, sigma: float, graded: bool):
    """Scores whose true mean, overall and of every task, is `right`; clusters share 3/13 of the variance.

    Each cluster has a share of right answers of its own, from a beta distribution; sizes are log-normal with median 5.
    """
    size = np.maximum(1, np.round(np.exp(rng.normal(math.log(5), sigma, clusters)))).astype(int)
    cluster = np.repeat(np.arange(clusters), size)
    share = rng.beta(10 / 3 * right, 10 / 3 * (1 - right), clusters)[cluster]
    scores = rng.binomial(10, share) / 10 if graded else (rng.random(len(cluster)) < share).astype(float)
    tasks = [f"t{kind}" for kind in rng.integers(4, size=len(cluster))]
    return scores, tasks, cluster.astype(str).tolist()


@pytest.mark.parametrize(
    ("clusters", "right", "sigma", "graded", "singly"),
    [
        (20, 0.5, 0.3, False, 0.90),
        (20, 0.8, 0.5, True, 0.75),
        pytest.param(40, 0.3, 0.7, False, 0.90, marks=pytest.mark.long),
        pytest.param(150, 0.7, 0.6, True, 0.75, marks=pytest.mark.long),
    ],
)
def test_95_percent_covers_93_to_97_and_resampling_questions_does_not(clusters, right, sigma, graded, singly) -> None:
    rng = np.random.default_rng(clusters)
    covered = {"mean": 0, "macro": 0, "singly": 0}
    for seed in range(WORLDS):
        scores, tasks, names = world(rng, clusters, right, sigma, graded)
        for name, found in intervals(metrics_of(tasks), scores, names, resamples=500, seed=seed).items():
            covered[name] += found.low <= right <= found.high
        each = [str(place) for place in range(len(scores))]
        alone = intervals(metrics_of(tasks)[:1], scores, each, resamples=200, seed=seed)["mean"]
        covered["singly"] += alone.low <= right <= alone.high
    shares = {name: count / WORLDS for name, count in covered.items()}
    assert 0.93 <= shares["mean"] <= 0.97 and 0.93 <= shares["macro"] <= 0.97, shares
    assert shares["singly"] < singly, shares


def test_a_test_at_5_percent_rejects_5_percent_of_runs_that_are_alike_and_question_flips_more() -> None:
    rng, rejected, rejected_singly, covered = np.random.default_rng(3), 0, 0, 0
    for seed in range(WORLDS):
        base, _, names = world(rng, 25, 0.5, 0.5, True)
        # run b is better on some videos and worse on others, not on average
        scores = base + rng.normal(0, 0.3, 25)[np.array(names, dtype=int)]
        metric = [mean("mean", range(len(base)))]
        found = paired(metric, base, scores, names, resamples=400, seed=seed)["mean"]
        rejected += found.p <= 0.05
        covered += found.low <= 0 <= found.high
        each = [str(place) for place in range(len(base))]
        rejected_singly += paired(metric, base, scores, each, resamples=200, seed=seed)["mean"].p <= 0.05
    assert 0.03 <= rejected / WORLDS <= 0.07
    assert 0.93 <= covered / WORLDS <= 0.97
    assert rejected_singly / WORLDS > 0.20


# what is resampled


def test_metrics_under_weights_equal_those_of_questions_repeated() -> None:
    rng = np.random.default_rng(0)
    scores, tasks, names = world(rng, 9, 0.5, 0.5, True)
    metrics = [*metrics_of(tasks), Metric("odd", ((0.25, (0, 3, 4)), (0.75, (3, 7))))]
    codes = np.unique(names, return_inverse=True)[1]
    data = Clustered.of(metrics, scores, codes)
    assert data.values() == pytest.approx([metric.value(scores.tolist()) for metric in metrics])
    weights = rng.integers(1, 4, size=(5, 9))
    for row, weight in zip(data.resampled(weights.astype(float)), weights, strict=True):
        for value, metric in zip(row, metrics, strict=True):
            repeated = Metric("", tuple((w, tuple(np.repeat(of, weight[codes[list(of)]]))) for w, of in metric.parts))
            assert value == pytest.approx(repeated.value(scores.tolist()))


def test_a_subset_without_questions_leaves_its_weight_to_the_others() -> None:
    metrics = [Metric("mix", ((0.5, (0,)), (0.3, (1,)), (0.2, (2,)))), mean("first", [0])]
    data = Clustered.of(metrics, np.array([1.0, 0.5, 0.25]), np.array([0, 1, 2]))
    drawn = data.resampled(np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0, 2.0, 1.0]]))
    assert drawn[:, 0] == pytest.approx([(0.5 + 0.15) / 0.8, 0.25, (0.15 + 0.05) / 0.5])
    assert drawn[0, 1] == 1 and np.isnan(drawn[1:, 1]).all()


def test_resamples_have_the_distribution_of_all_draws() -> None:
    sums, counts = np.array([2.0, 1.0, 5.0]), np.array([4, 1, 2])
    scores = np.array([0.5] * 4 + [1.0] + [2.0, 3.0])
    data = Clustered.of([mean("all", range(7))], scores, np.repeat([0, 1, 2], counts))
    every = [sums[list(d)].sum() / counts[list(d)].sum() for d in itertools.product(range(3), repeat=3)]
    found = resample(data, 40_000, 0)[:, 0].round(9)
    for value in set(np.round(every, 9)):
        assert (found == value).mean() == pytest.approx(np.mean(np.round(every, 9) == value), abs=0.01)


@pytest.mark.usefixtures("few_suffice")
def test_a_metric_sees_only_the_clusters_of_its_questions() -> None:
    scores, names = [0.0, 1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "c", "c"]
    found = intervals([mean("ab", [0, 1, 2]), mean("a", [0, 1]), mean("all", range(5))], scores, names)
    assert [(entry.questions, entry.clusters) for entry in found.values()] == [(3, 2), (2, 1), (5, 3)]
    assert math.isnan(found["a"].low) and math.isnan(found["a"].high) and found["a"].value == 0.5
    assert found["ab"] == Interval(2 / 3, 0.5, 1.0, 3, 2)


def test_seed_portions_and_the_company_of_other_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, tasks, names = world(np.random.default_rng(1), 30, 0.5, 0.5, True)

    def found(metrics: list[Metric], seed: int = 0) -> dict[str, object]:
        """Metrics to rounding: how a matrix product adds up depends on its shape."""
        entries = intervals(metrics, scores, names, resamples=500, seed=seed)
        return {name: pytest.approx(astuple(entry), rel=1e-12) for name, entry in entries.items()}

    whole = {name: astuple(entry) for name, entry in intervals(metrics_of(tasks), scores, names, resamples=500).items()}
    assert whole != found(metrics_of(tasks), seed=1)
    assert whole["macro"] == found(metrics_of(tasks)[1:])["macro"]
    monkeypatch.setattr(resampling, "_CHUNK_DRAWS", 120)
    assert whole == found(metrics_of(tasks))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abcdefghijklmn"), st.sampled_from("xyz")), min_size=2))
def test_intervals_lie_within_the_scores_and_move_with_them(rows: list[tuple[float, str, str]]) -> None:
    scores = np.array([row[0] for row in rows])
    names, metrics = [row[1] for row in rows], metrics_of([row[2] for row in rows])
    found = intervals(metrics, scores, names, resamples=100)
    moved = intervals(metrics, 2 * scores + 3, names, resamples=100)
    for name, entry in found.items():
        assert scores.min() - 1e-9 <= entry.value <= scores.max() + 1e-9
        assert entry.clusters >= 10 or math.isnan(entry.low)
        if math.isfinite(entry.low):
            assert scores.min() - 1e-9 <= entry.low <= entry.high <= scores.max() + 1e-9
            assert moved[name].value == pytest.approx(2 * entry.value + 3)


# how resamples become an interval


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (5, 2.5706), (19, 2.0930), (120, 1.9799), (5000, 1.9604), (1e6, 1.95997)],
)
def test_student_against_published_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=1e-3)
    assert student_quantile(0.5, freedom) == pytest.approx(0, abs=1e-6)


def test_student_between_whole_degrees() -> None:
    assert student_quantile(0.975, 5) < student_quantile(0.975, 4.5) < student_quantile(0.975, 4)


def test_interval_of_many_equal_clusters_is_efrons_bca() -> None:
    """With so many clusters that nothing is widened, by the published formula."""
    rng = np.random.default_rng(5)
    resamples, influences = rng.gamma(3, size=20_000), rng.gamma(2, size=50) - 2
    normal = resampling.NormalDist()
    bias = normal.inv_cdf((resamples < 2.8).mean())
    skew = (influences**3).sum() / (6 * (influences**2).sum() ** 1.5)
    expected = [
        normal.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975))
    ]
    found = interval(2.8, resamples, influences, 1e5, 0.95)
    assert found == pytest.approx(np.quantile(resamples, expected), abs=2e-3)


def test_unequal_clusters_count_less() -> None:
    def effective(sizes: list[int]) -> float:
        codes = np.repeat(np.arange(len(sizes)), sizes)
        return Clustered.of([mean("all", range(len(codes)))], np.zeros(len(codes)), codes).effective_clusters(0)

    assert effective([4] * 20) == pytest.approx(20)
    # Kish: 100² / (19 · 16 + 24²), all alike: (Σ n²)² / Σ n⁴
    kish, alike = 100**2 / (19 * 16 + 24**2), (19 * 16 + 24**2) ** 2 / (19 * 4**4 + 24**4)
    assert effective([4] * 19 + [24]) == pytest.approx(math.sqrt(kish * alike))
    assert effective([1, 1000]) == 2


@pytest.mark.parametrize(("score", "low", "high"), [(0.0, 0.0, 0.1684), (1.0, 0.8316, 1.0), (0.5, 0.4158, 0.5842)])
def test_clusters_that_agree_get_clopper_and_pearsons_interval(score: float, low: float, high: float) -> None:
    """0 of 20: 16.84 % in published tables."""
    names = [str(n // 3) for n in range(60)]
    metrics = [mean("all", range(60)), mean("few", range(27))]
    found = intervals(metrics, [score] * 60, names, scale=UNIT)
    assert (found["all"].low, found["all"].high) == pytest.approx((low, high), abs=1e-4)
    assert math.isnan(found["few"].low)  # nine clusters, agreed or not
    assert math.isnan(intervals(metrics, [score] * 60, names)["all"].low)  # of no known scale


def test_the_bound_of_clusters_that_agree_covers() -> None:
    """In worlds with one right answer in twenty, 0 of 20 occurs in a third: the interval has to hold the truth."""
    rng, agreed, covered = np.random.default_rng(11), 0, 0
    for _ in range(400):
        scores = (rng.random(20) < 0.05).astype(float)
        if not scores.any():
            found = intervals([mean("m", range(20))], scores, [str(n) for n in range(20)], scale=UNIT, resamples=50)
            agreed += 1
            covered += found["m"].low <= 0.05 <= found["m"].high
    assert agreed > 100 and covered == agreed


def test_a_chance_adjusted_metric_of_clusters_that_agree() -> None:
    """All wrong with two options each is -1, and all right is 1: the interval is twice as wide as that of accuracy."""
    names = [str(n) for n in range(20)]
    found = intervals([chance_adjusted("m", range(20), [2] * 20)], [0.0] * 20, names, scale=UNIT)["m"]
    assert (found.value, found.low, found.high) == pytest.approx((-1, -1, -1 + 2 * 0.1684), abs=1e-3)


def test_runs_that_are_alike_do_not_differ_by_nothing_for_certain() -> None:
    scores, names = [n % 2 for n in range(20)], [str(n) for n in range(20)]
    found = paired([mean("m", range(20))], scores, scores, names, scale=UNIT)["m"]
    assert (found.delta, found.p) == (0, 1) and not found.excludes_zero
    assert (found.low, found.high) == pytest.approx((-0.1684, 0.1684), abs=1e-4)


@pytest.mark.parametrize(("clusters", "each"), [(1, 12), (3, 4), (9, 4), (9, 1)])
def test_few_clusters_are_never_starred(clusters: int, each: int) -> None:
    names = [str(n // each) for n in range(clusters * each)]
    a, b = [0.0] * len(names), [1.0] * len(names)
    found = paired([mean("m", range(len(names)))], a, b, names, scale=UNIT)["m"]
    assert found.delta == 1 and math.isnan(found.low) and not found.excludes_zero
    assert (found.mcnemar is None) is (each > 1)  # questions that share no video are independent ones


# pairs


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (7, 3), (3, 7), (40, 60), (1000, 1100), (4, 5)])
def test_mcnemar_against_all_splits(wins: int, losses: int) -> None:
    coins, fewer = wins + losses, min(wins, losses)
    tail = sum(Fraction(math.comb(coins, heads), 2**coins) for heads in range(coins + 1) if heads <= fewer)
    assert mcnemar(wins, losses) == pytest.approx(float(min(Fraction(1), 2 * tail)))


def test_mcnemar_of_many_discordant_questions_is_finite() -> None:
    assert 0 < mcnemar(2600, 2400) < 0.01


@pytest.mark.usefixtures("few_suffice")
def test_paired_by_hand() -> None:
    a, b = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    found = paired([mean("all", range(6)), mean("first", [0, 1])], a, b, list("xxyyzz"))
    entry = found["all"]
    assert (entry.a, entry.b, entry.delta) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert (entry.wins, entry.losses, entry.ties, entry.questions, entry.clusters) == (3, 1, 2, 6, 3)
    # cluster sums are +2, -1, +1; of the 8 sign patterns |±2 ±1 ±1| ≥ 2 in all but ±(2 - 1 - 1), which is 0
    assert entry.p == pytest.approx(6 / 8)
    assert entry.mcnemar == mcnemar(3, 1)
    assert math.isnan(found["first"].p) and math.isnan(found["first"].low) and not found["first"].excludes_zero
    assert paired([mean("all", range(6))], a, [0.5, *b[1:]], list("xxyyzz"))["all"].mcnemar is None


def test_flips_drawn_agree_with_all_flips() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(24), rng.random(24) + 0.1
    names, metrics = [str(i // 2) for i in range(24)], [mean("all", range(24)), mean("half", range(9))]
    every = paired(metrics, a, b, names, resamples=4096)
    drawn = paired(metrics, a, b, names, resamples=4095)
    sums = (b - a).reshape(12, 2).sum(axis=1)
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    assert every["all"].p == pytest.approx((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean())
    for name in every:
        assert drawn[name].p == pytest.approx(every[name].p, abs=0.03) and drawn[name].p != every[name].p


def test_the_order_of_runs_turns_the_difference() -> None:
    scores, tasks, names = world(np.random.default_rng(4), 20, 0.5, 0.5, False)
    other = world(np.random.default_rng(4), 20, 0.6, 0.5, False)[0]
    there, back = (
        paired(metrics_of(tasks), *pair, names, resamples=2000) for pair in ((scores, other), (other, scores))
    )
    for name, entry in there.items():
        assert back[name].delta == pytest.approx(-entry.delta)
        assert (back[name].low, back[name].high) == pytest.approx((-entry.high, -entry.low), abs=1e-9)
        assert (back[name].wins, back[name].losses, back[name].p) == (entry.losses, entry.wins, entry.p)
        assert isinstance(entry, Paired) and entry.mcnemar == back[name].mcnemar


# wrong input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals([mean("m", [0])], [1.0], ["a", "b"]), "1 scores but 2 clusters"),
        (lambda: intervals([], [], []), "no questions"),
        (lambda: intervals([mean("m", [0])], [0.0, math.nan], ["a", "b"]), "question 1 is not finite"),
        (lambda: intervals([mean("m", [])], [0.0], ["a"]), "metrics without questions: m"),
        (lambda: intervals([mean("m", [0])] * 2, [0.0], ["a"]), "several are called m"),
        (lambda: intervals([mean("m", [0])], [0.0], ["a"], level=95), "level must lie between 0 and 1"),
        (lambda: intervals([mean("m", [0])], [0.0], ["a"], resamples=0), "resamples must be at least 1"),
        (lambda: paired([mean("m", [0])], [0.0], [0.0, 1.0], ["a"]), "2 scores but 1 clusters"),
    ],
)
def test_wrong_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
