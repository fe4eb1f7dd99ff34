"""Chance and the best constant of benchmarks, by hand and for every one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Kind, Question
from spacer.config.choices import BENCHMARKS
from spacer.evaluation.baselines import chance, constant
from spacer.evaluation.scoring import score_predictions
from spacer.report.table import video_adds_table
from spacer.statistics.summaries import PairedDelta
from tests.benchmarks_as_distributed import MAKERS
from tests.unit.test_report import printed

LETTERS = "ABCD"


def choice(number: int, truth: str, options: int = 4, task: str = "Counting Problem") -> Question:
    listed = tuple(f"{letter}. {letter.lower()}" for letter in LETTERS[:options])
    return Question(
        str(number), task, Kind.choice, "?", listed, truth, f"v{number}", groups={"duration": "short", "media": "image"}
    )


def test_chance_by_hand() -> None:
    questions = [choice(0, "A"), choice(1, "A", 2), choice(2, "B", 2)]
    found = chance(score_predictions("video_mme", questions, {}))
    assert found["overall"] == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    unknown = [choice(0, "A"), Question("1", "Counting Problem", Kind.choice, "? A. B.", (), "A", "v")]
    assert math.isnan(chance(score_predictions("mmsi_bench", unknown, {}))["overall"])


def test_guessing_is_worth_nothing_where_chance_is_taken_off() -> None:
    questions = [choice(number, "A", 2 + number % 3, task="counting & existence") for number in range(9)]
    assert chance(score_predictions("site_bench", questions, {}))["overall"] == pytest.approx(0, abs=1e-12)


def test_the_constant_is_of_the_other_half_of_videos() -> None:
    """Two letters in three are C. A lone question in one half is answered from the other."""
    questions = [choice(number, "C" if number % 3 else "A") for number in range(60)]
    assert constant("video_mme", questions)["overall"] == pytest.approx(40 / 60)
    assert constant("video_mme", questions[:1])["overall"] == 0.0  # nothing to choose from


def test_the_constant_number_scores_best() -> None:
    truths = [2] * 30 + [3] * 10 + [40] * 2
    questions = [
        Question(str(n), "object_counting", Kind.number, "?", (), str(truth), f"scan{n}")
        for n, truth in enumerate(truths)
    ]
    found = constant("vsi_bench", questions)["overall"]
    every = [
        score_predictions("vsi_bench", questions, {str(n): f"<answer>{answer}</answer>" for n in range(len(truths))})
        for answer in (2, 3, 40)
    ]
    assert found == pytest.approx(max(scored.official_values["overall"] for scored in every))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_both(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    questions, _ = benchmark(name).read(tmp_path)
    scored = score_predictions(name, questions, {})
    least = -1.0 if name == "site_bench" else 0.0  # which takes chance off
    for found in (chance(scored), constant(name, questions)):
        assert found.keys() == scored.official_values.keys()
        assert all(math.isnan(value) or least <= value <= 1 for value in found.values())


def test_the_table_holds_all_side_by_side() -> None:
    delta = PairedDelta(0.3, 0.5, 0.2, 0.1, 0.3, 40, 20)
    few = PairedDelta(0.4, 0.5, 0.1, math.nan, math.nan, 4, 4)
    blind = {"chance": {"overall": 0.25, "task/x": math.nan}, "constant": {"overall": 0.31, "task/x": 0.2}}
    adds = {"none": {"overall": delta, "task/x": few}, "other_video": {"overall": delta, "task/x": few}}
    text = printed(video_adds_table({"overall": 0.5, "task/x": 0.5}, blind, adds))
    assert text.split("Metric")[1].split()[:6] == ["Chance", "Const.", "Text", "Other", "Own", "Adds"]
    overall, task = (line.split() for line in text.splitlines() if line.startswith(("overall", "x ")))
    assert overall == ["overall", "25.0", "31.0", "30.0", "30.0", "50.0", "+20.0", "[+10.0,", "+30.0]"]
    assert task == ["x", "-", "20.0", "40.0", "40.0", "50.0", "+10.0,", "<", "10", "videos"]
    assert "Adds" not in printed(video_adds_table({"overall": 0.5}, {"chance": {"overall": 0.25}}, {}))
    assert max(map(len, text.splitlines())) <= 80
