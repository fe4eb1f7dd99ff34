"""The reward of a group: where each part counts, and how they add up."""

import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from spacer.config.settings import LengthBonusSettings, OverlongSettings, RewardSettings, TemporalBonusSettings
from spacer.rewards import RewardParts, length_bonus, score_group

TRUE_MAP = {"chair": [[1, 2]], "tv": [[3, 4]]}
PERFECT = "{'chair': [[1, 2]], 'tv': [[3, 4]]}"
HALF = "{'chair': [[1, 2]]}"
OPTIONS = ("A. tv", "(B) the chair")
GROUP: dict[str, Any] = {
    "solution": "B",
    "problem_type": "multiple choice",
    "options": OPTIONS,
    "true_map": TRUE_MAP,
}


def completion(answer: str, drawn: str | None = None) -> str:
    return f"<think>{'' if drawn is None else f'<map>{drawn}</map>'}</think><answer>{answer}</answer>"


def one(text: str, **changes: Any) -> RewardParts:
    return score_group([text], [40], **(GROUP | {"settings": RewardSettings()} | changes))[0]


@pytest.mark.parametrize(
    ("answer", "drawn", "counted", "quality", "cancelled", "total"),
    [
        ("B", PERFECT, 1.0, 1.0, False, 3.0),
        ("B", HALF, 0.5, 0.5, False, 2.5),
        ("B", None, 0.0, 0.0, False, 2.0),  # no map: nothing gained, nothing lost
        ("B", "", 0.0, 0.0, True, 1.0),  # an invalid map is worse than none
        ("B", "?", 0.0, 0.0, True, 1.0),
        ("B", "{'sofa': [[1, 2]]}", 0.0, 0.0, True, 1.0),
        ("B", "{'chair': [[99, 99]]}", 0.0, 0.0, True, 1.0),
        ("A", PERFECT, 0.0, 1.0, False, 1.0),  # a map counts only under a right answer
        ("A", "?", 0.0, 0.0, False, 1.0),
        ("A", None, 0.0, 0.0, False, 1.0),
    ],
)
def test_where_a_map_counts(
    answer: str, drawn: str | None, counted: float, quality: float, cancelled: bool, total: float
) -> None:
    parts = one(completion(answer, drawn))
    assert parts == RewardParts(
        answer=float(answer == "B"),
        map=counted,
        format=1.0,
        length=0.0,
        temporal=0.0,
        drawn=drawn is not None,
        cancelled=cancelled,
        map_quality=quality,
    )
    assert parts.total == total


@pytest.mark.parametrize("true_map", [None, {}, {"chair": []}])
@pytest.mark.parametrize("drawn", [PERFECT, "?", None])
def test_samples_without_a_true_map_neither_lose_nor_gain(true_map: Any, drawn: str | None) -> None:
    parts = one(completion("B", drawn), true_map=true_map)
    assert (parts.total, parts.map, parts.map_quality, parts.cancelled) == (2.0, None, None, False)
    assert not {"map", "map_quality"} & parts.as_row().keys()


def test_a_zero_map_costs_nothing_where_the_rule_is_off() -> None:
    parts = one(completion("B", "?"), settings=RewardSettings(zero_map_cancels_answer=False))
    assert (parts.total, parts.map, parts.cancelled) == (2.0, 0.0, False)


def test_maps_do_not_count_where_they_are_off() -> None:
    for drawn, quality in ((PERFECT, 1.0), ("?", 0.0)):
        parts = one(completion("B", drawn), settings=RewardSettings(map=False))
        assert (parts.total, parts.map, parts.cancelled, parts.map_quality) == (2.0, None, False, quality)


@pytest.mark.parametrize(
    ("answer", "problem_type", "threshold", "answer_reward", "counts"),
    [
        ("10", "numerical", 0.5, 1.0, True),
        ("7.5", "numerical", 0.5, 0.6, True),
        ("7", "numerical", 0.5, 0.5, False),  # above 0.5, not at it
        ("7", "numerical", 0.4, 0.5, True),
        ("7.5", "numerical", 0.6, 0.6, False),
        ("10", "regression", 0.5, 1.0, False),  # only the two kinds of spatial questions have maps
        ("10", "OCR", 0.5, 1.0, False),
        ("10", "free-form", 0.5, 2 / 3, False),
    ],
)
def test_right_enough_for_the_map(
    answer: str, problem_type: str, threshold: float, answer_reward: float, counts: bool
) -> None:
    settings = RewardSettings(map_min_answer=threshold)
    parts = one(completion(answer, HALF), solution="10", problem_type=problem_type, settings=settings)
    assert parts.answer == pytest.approx(answer_reward)
    assert parts.map == (0.5 if counts else 0.0)
    zero = one(completion(answer, "?"), solution="10", problem_type=problem_type, settings=settings)
    assert zero.cancelled == counts
    assert zero.total == pytest.approx(1.0 if counts else 1.0 + answer_reward)


def test_format_counts_where_it_is_on() -> None:
    assert one("<answer>B</answer>").total == 1.0
    parts = one(completion("B"), settings=RewardSettings(format=False))
    assert (parts.format, parts.total) == (None, 1.0)
    assert "format" not in parts.as_row()


def test_strictness_is_a_setting() -> None:
    assert one(completion("B. tv")).answer == 0
    parts = one(completion("B. tv", HALF), settings=RewardSettings(strict=False))
    assert (parts.answer, parts.map) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("the chair", OPTIONS, 1.0),
        ("The answer is the chair.", ["a: tv", "b: chair"], 1.0),
        ("tv", OPTIONS, 0.0),
        ("the chair", ["A", "B"], 0.0),  # options that are pictures have no text
        ("the chair", ["A. chair", "B. the chair"], 0.0),  # nobody could tell which
        ("tv or chair", OPTIONS, 0.0),
    ],
)
def test_the_text_of_an_option_is_its_letter_where_the_reward_is_not_strict(
    answer: str, options: Any, right: float
) -> None:
    assert one(completion(answer), options=options, settings=RewardSettings(strict=False)).answer == right
    assert one(completion(answer), options=options).answer == 0


SETTINGS = RewardSettings(length=LengthBonusSettings(), temporal=TemporalBonusSettings())


def test_a_whole_group_with_every_part() -> None:
    completions = [completion("B", PERFECT), completion("B", "?"), completion("A", PERFECT), completion("B")]
    parts = score_group(
        completions,
        [320, 512, 400, 40],
        settings=SETTINGS,
        shuffled_completions=[completion("B"), completion("A")],
        **GROUP,
    )
    assert [p.answer for p in parts] == [1, 1, 0, 1]  # also where it is cancelled
    assert [p.cancelled for p in parts] == [False, True, False, False]
    assert [p.map for p in parts] == [1, 0, 0, 0]
    assert [p.length for p in parts] == [0.2, 0, 0, 0]
    assert [p.temporal for p in parts] == [0.3, 0, 0, 0.3]
    # answer + map + format + length + temporal; the second's answer is cancelled, and with it its bonuses
    assert [p.total for p in parts] == pytest.approx([3.5, 1.0, 1.0, 2.3])


def test_a_cancelled_answer_earns_no_bonus() -> None:
    group = [completion("B", "?"), completion("B"), completion("B")]
    parts = score_group(group, [400] * 3, settings=SETTINGS, shuffled_completions=[completion("A")], **GROUP)
    assert [p.total for p in parts] == pytest.approx([1.0, 2.5, 2.5])
    # nor does it count as one of the two good answers that the bonus for length asks for
    pair = score_group(group[:2], [400, 400], settings=SETTINGS, **GROUP)
    assert [p.length for p in pair] == [0, 0]


def test_whether_the_order_of_frames_helps_is_told_by_answers_and_maps() -> None:
    group = [completion("B", PERFECT)] + [completion("A")] * 3
    mixed = [completion("B"), completion("A")]
    # a mean of 2/4 against 1/2; by answers alone it would be 1/4 against 1/2, and no bonus
    assert score_group(group, [40] * 4, settings=SETTINGS, shuffled_completions=mixed, **GROUP)[0].total == 3.3
    # maps on shuffled frames count too: 2/4 against 2/2
    mapped = [completion("B", PERFECT), completion("A")]
    assert score_group(group, [40] * 4, settings=SETTINGS, shuffled_completions=mapped, **GROUP)[0].total == 3.0
    # and cancel: 1/4 against 0
    plain = [completion("B")] + [completion("A")] * 3
    cancelled = [completion("B", "?"), completion("A")]
    assert score_group(plain, [40] * 4, settings=SETTINGS, shuffled_completions=cancelled, **GROUP)[0].total == 2.3


def released_totals(
    answers: list[float], maps: list[float | None], lengths: list[int], shuffled: list[float]
) -> list[float]:
    """The published rules on what answers and maps are worth: a map of None is one that is not there, and every
    completion is well formed. Bonuses depend on the sum of answer and map."""
    counted = [combined(answer, drawn) for answer, drawn in zip(answers, maps, strict=True)]
    totals = [value + 1 for value in counted]
    good = [i for i, value in enumerate(counted) if value > 0.1]
    if len(good) >= 2:
        for i in good:
            totals[i] += 0.2 if 320 <= lengths[i] <= 512 else 0
    if shuffled and Fraction(sum(counted)) / len(counted) >= Fraction(4, 5) * Fraction(sum(shuffled)) / len(shuffled):
        for i in good:
            totals[i] += 0.3
    return totals


def combined(answer: float, drawn: float | None) -> float:
    if answer <= 0.5 or drawn is None:
        return answer
    return answer + drawn if drawn > 0 else 0


def test_groups_at_random_are_worth_what_the_published_rules_say() -> None:
    rng = random.Random(0)
    # of a solution of 16 and a map of one point at (0, 0), with distances that make exact sums
    answers = {"16": 1.0, "12": 0.6, "8": 0.1, "99": 0.0}
    maps = {"{'tv': [[0, 0]]}": 1.0, "{'tv': [[0, 0], [9, 9]]}": 0.5, "?": 0.0, None: None}
    sample: dict[str, Any] = {
        "solution": "16",
        "problem_type": "numerical",
        "options": (),
        "true_map": {"tv": [[0, 0]]},
    }
    by_answers_alone = 0
    for _ in range(400):
        drawn = [(rng.choice(list(answers)), rng.choice(list(maps))) for _ in range(12)]
        texts = [completion(answer, text) for answer, text in drawn]
        lengths = [rng.choice([40, 319, 320, 400, 512, 513]) for _ in range(8)]
        values = [(answers[answer], maps[text]) for answer, text in drawn]
        own, mixed = values[:8], [combined(*value) for value in values[8:]]
        expected = released_totals([a for a, _ in own], [m for _, m in own], lengths, mixed)
        found = score_group(texts[:8], lengths, settings=SETTINGS, shuffled_completions=texts[8:], **sample)
        assert [parts.total for parts in found] == pytest.approx(expected)
        bonus = length_bonus([a for a, _ in own], lengths, LengthBonusSettings())
        by_answers_alone += [parts.length for parts in found] != bonus
    assert by_answers_alone > 100  # the groups tell the two readings of the rule apart


def test_no_temporal_bonus_without_shuffled_frames_or_where_it_is_off() -> None:
    texts, lengths = [completion("B")] * 2, [40, 40]
    assert [p.temporal for p in score_group(texts, lengths, settings=SETTINGS, **GROUP)] == [0, 0]
    off = replace(SETTINGS, temporal=None)
    parts = score_group(texts, lengths, settings=off, shuffled_completions=[completion("A")], **GROUP)
    assert [p.temporal for p in parts] == [0, 0]


def test_shuffled_frames_that_serve_better_earn_nothing() -> None:
    texts = [completion("B")] + [completion("A")] * 3
    parts = score_group(texts, [40] * 4, settings=SETTINGS, shuffled_completions=[completion("B")], **GROUP)
    assert [p.temporal for p in parts] == [0, 0, 0, 0]


def test_an_empty_group_has_no_rewards() -> None:
    assert score_group([], [], settings=RewardSettings(), **GROUP) == []


def test_faulty_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="2 completions but 1 lengths"):
        score_group(["", ""], [1], settings=RewardSettings(), **GROUP)
    with pytest.raises(ValueError, match="unknown problem type 'essay'"):
        one("", problem_type="essay")
    with pytest.raises(ValueError, match="shuffled frames"):
        score_group([""], [1], settings=SETTINGS, shuffled_completions=[], **GROUP)


def test_importing_the_rewards_does_not_import_torch() -> None:
    check = (
        "import sys, spacer.rewards as r; r.answer_reward('<answer>3</answer>', '3', 'numerical'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchmetrics', 'nltk', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_long_completion_is_penalised_whatever_it_answers() -> None:
    settings = RewardSettings(overlong=OverlongSettings(max_tokens=100, buffer=0.5, penalty=0.5))
    texts = [completion("B"), completion("B"), completion("A")]
    parts = score_group(texts, [50, 75, 100], **(GROUP | {"settings": settings}))
    assert [part.overlong for part in parts] == [0, -0.25, -0.5]
    assert [part.total for part in parts] == [2, 1.75, 0.5]
    assert [part.terms["overlong"] for part in parts] == [0, -0.25, -0.5]
    assert "overlong" not in one(completion("B")).as_row()
