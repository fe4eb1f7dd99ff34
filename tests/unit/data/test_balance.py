"""Letters and answers of a curated data set are spread out, and no more is dropped than that takes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from spacer.data.scenes.balance import Posed, _most_of_one, place_letters, spread_answers
from spacer.data.scenes.lines import Question
from spacer.data.scenes.scans import Scan
from spacer.data.scenes.scene import Scene


def posed_with(answers: list[str], kind: str = "object_counting") -> list[Posed]:
    scan = Scan(Scene("s", (0, 0, 1, 1), 1.0, ()), "d", "v.mp4", frozenset(), frozenset(), frozenset(), True)
    return [
        Posed(f"q{number}", scan, Question(kind, "numerical", f"{number}?", (), answer, ""))
        for number, answer in enumerate(answers)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.floats(0.05, 1))
def test_the_largest_share_is_kept_and_no_more_dropped_than_it_takes(sizes: list[int], share: float) -> None:
    answers = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    posed = posed_with(answers)
    kept = spread_answers(posed, share, seed=1)
    assert [item for item in posed if item in kept] == kept
    found = Counter(item.question.answer for item in kept)
    assert set(found) == set(answers)  # no answer vanishes
    common = sum(size >= 0.05 * len(answers) for size in sizes)
    limit = max(share, 1 / common) if common else share
    most = max(found.values())
    assert most <= limit * found.total() + 1e-6 or most == 1
    assert found == Counter({str(number): min(size, most) for number, size in enumerate(sizes)})
    if most < max(sizes):  # one more of the commonest would break the limit
        more = sum(min(size, most + 1) for size in sizes)
        assert most + 1 > limit * more


def test_a_rare_answer_does_not_cost_the_others() -> None:
    assert _most_of_one(Counter(two=500, three=100, four=1), 0.4) == 101


def test_other_types_keep_every_answer() -> None:
    posed = posed_with(["20"] * 9 + ["30"], "room_size_estimation")
    assert spread_answers(posed, 0.4, seed=1) == posed


@given(st.lists(st.integers(2, 4), max_size=60), st.integers(0, 99))
def test_letters_differ_by_one_at_most(counts: list[int], seed: int) -> None:
    scan = posed_with([""])[0].scan
    posed = [
        Posed(str(i), scan, Question("kind", "multiple choice", "?", ("r", "x", "y", "z")[:count], "A", "."))
        for i, count in enumerate(counts)
    ]
    placed = place_letters(posed, seed)
    assert all(item.question.content() == "r" for item in placed)
    for count in set(counts):
        found = Counter(item.question.answer for item in placed if len(item.question.options) == count)
        every = [found[letter] for letter in "ABCD"[:count]]
        assert max(every) - min(every) <= 1
