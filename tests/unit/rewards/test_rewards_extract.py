"""Reading a completion: tags, numbers, option letters. One table a rule of the specification."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.rewards import answer_text, has_map, read_choice, read_number
from spacer.rewards.extract import map_text, read_last_number


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>…</think><answer>B</answer>", "B"),
        ("<answer>\n  B \n</answer>", "B"),
        ("<answer>A</answer><answer>B</answer>", "A"),  # the first pair
        ("</answer><answer>B</answer>", "B"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer></answer>", ""),
        ("<answer>B", ""),  # no pair, no answer
        ("B</answer>", ""),
        ("B", ""),
        ("", ""),
    ],
)
def test_the_answer_is_the_first_pair_stripped(completion: str, expected: str) -> None:
    assert answer_text(completion) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think><map> {'a': 1} </map></think>", "{'a': 1}"),
        ("<map>1</map><map>2</map>", "1"),
        ("<map></map>", ""),
        ("<map>{'a': 1}", None),
        ("{'a': 1}", None),
    ],
)
def test_the_map_is_the_first_pair(completion: str, expected: str | None) -> None:
    assert map_text(completion) == expected
    assert has_map(completion) == (expected is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the cases that the specification names
        ("1,200", 1200),
        ("twenty-one", 21),
        ("a distance of 3.2 meters", 3.2),
        ("-3", -3),
        ("an unknown distance, a guess", None),
        # digits
        ("3", 3),
        ("3.", 3),
        (".5", 0.5),
        ("+4", 4),
        ("\u22123.5 m", -3.5),  # the minus sign of typeset text
        ("minus 3", -3),
        ("negative two", -2),
        ("3.2m", 3.2),
        ("about 12 m²", 12),
        ("$7", 7),
        ("=3", 3),
        ("1,234,567.5", 1234567.5),
        ("1,2", 1),  # a list, not a thousands group
        ("1,2345", 1),
        ("1e3", 1000),
        ("2.5E-1", 0.25),
        ("2 eggs", 2),
        ("3-4", 3),
        ("3 to 4 meters", 3),  # the first
        ("3 thousand", 3000),
        ("1.5 million", 1_500_000),
        ("5, hundred", 5),
        ("chair3 is 4 m away", 4),  # a name is no number
        ("room-3", 3),
        ("v1.2", None),
        ("v1,200 then 7", 7),
        ("约3米", 3),
        ("٣", 3),  # Arabic-Indic digits
        ("\uff13.\uff15", 3.5),  # full-width digits
        ("007", 7),
        # words
        ("zero", 0),
        ("Seven", 7),
        ("THIRTEEN", 13),
        ("forty two", 42),
        ("one hundred", 100),
        ("a hundred", 100),
        ("twelve hundred", 1200),
        ("two hundred and five", 205),
        ("one hundred twenty-three thousand four hundred fifty-six", 123_456),
        ("one thousand, two hundred", 1200),
        ("three million", 3_000_000),
        ("two million three thousand and four", 2_003_004),
        ("two point five", 2.5),
        ("twenty-one point zero five meters", 21.05),
        ("two, three", 2),
        ("two and three", 2),
        ("two three", 2),
        ("twenty twenty", 20),
        ("hundred hundred", 100),
        ("five thousand million", 5000),  # scales come in falling order
        ("five thousand six million", 5006),
        ("two hundred and", 200),
        ("two hundred, three chairs", 200),  # a comma joins only thousands and millions
        ("twenty and one", 20),
        ("\u017fix", None),  # a long s, which equals s where case is ignored
        ("the point is two", 2),
        ("often someone tones it down", None),  # ten, one inside words
        # nothing
        ("", None),
        ("-", None),
        ("nan", None),
        ("inf", None),
        ("infinity", None),
        ("1e999", None),
        ("-1e999", None),
    ],
)
def test_the_number_that_is_written(text: str, expected: float | None) -> None:
    assert read_number(text) == (None if expected is None else pytest.approx(expected))


@given(st.text())
def test_a_number_is_finite_or_none(text: str) -> None:
    value = read_number(text)
    assert value is None or math.isfinite(value)


@given(st.integers(-(10**12), 10**12))
def test_an_integer_is_read_back_with_and_without_thousands_commas(value: int) -> None:
    assert read_number(str(value)) == value
    assert read_number(f"about {value:,} objects") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_back(value: float) -> None:
    assert read_number(repr(value)) == value


def _in_words(value: int) -> str:
    ones = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen"
    )
    tens = "- - twenty thirty forty fifty sixty seventy eighty ninety"
    if value < 20:
        return ones.split(" ")[value]
    if value < 100:
        return tens.split(" ")[value // 10] + (f"-{_in_words(value % 10)}" if value % 10 else "")
    size, name = next((s, n) for s, n in ((10**6, "million"), (1000, "thousand"), (100, "hundred")) if value >= s)
    rest = value % size
    return f"{_in_words(value // size)} {name}" + (f" {_in_words(rest)}" if rest else "")


@given(st.integers(0, 10**9 - 1))
def test_number_words_are_read_back(value: int) -> None:
    assert read_number(_in_words(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        *("B", "B.", "(B)", "B) text", "B. text", "**B**", "Answer: B"),  # the forms that the specification names
        *(
            "b",
            "(b)",
            "[B]",
            "B)",
            "B:",
            "B: text",
            "B)text",
            "(B) text",
            " B\n",
            "B\ntext",
            "`B`",
            '"B"',
            "**B.** text",
        ),
        *("Answer: (B)", "Answer:\nB", "**Answer:** B.", "The answer is B", "the correct answer is: **B**", "Option B"),
        *("The correct option is (B).", "Final answer: B", "Answer - B", "Answer: Option B"),
    ],
)
def test_a_letter_in_any_of_these_forms(text: str) -> None:
    assert read_choice(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "A chair",
            "I think the table",
            "The chair is near B",
            "A and B",
            "A, B",
            "A/B",
            "B or C",
            "the answer is A hat",
        ),
        *("", "AB", "Bed", "U.S. flag", "Answer:", "(AB)", "1", "1. 2", "best", "option", "the", "yes", "\u017f"),
    ],
)
def test_a_capital_letter_in_a_sentence_is_no_choice(text: str) -> None:
    assert read_choice(text) is None


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("1.5 + 0.5 = 2", 2.0),
        ("from two to one hundred and five", 105.0),
        ("twenty-one", 21.0),  # not the one
        ("3 thousand, or two point five", 2.5),
        ("4, then -3", -3.0),
        ("2-3 m", 3.0),
        ("3.2 m^2", 3.2),
        ("1, then 1e999", None),  # as read_number of it alone
        ("far", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, last: float | None) -> None:
    assert read_last_number(text) == last


@given(st.lists(st.sampled_from(["1", "2.5", "-3", "twenty-one", "chair", "of", "."]), max_size=8).map(" / ".join))
def test_the_last_number_is_the_first_of_some_end_of_the_text(text: str) -> None:
    parts = [read_number(part) for part in text.split(" / ")]
    numbers = [number for number in parts if number is not None]
    assert read_last_number(text) == (numbers[-1] if numbers else None)
