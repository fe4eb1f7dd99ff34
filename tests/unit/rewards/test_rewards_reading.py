"""Answers are read as a person would read them: by a corpus, by the tables' examples, whatever surrounds them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.rewards import answer_reward, final_text, forms, read_choice, read_quantity, read_yes_no
from spacer.rewards.quantities import RESULTS
from tests.unit.rewards.answers import READERS, Case, corpus


@pytest.mark.parametrize("kind", READERS)
def test_the_corpus_is_read_as_a_person_would(kind: str) -> None:
    cases = corpus(kind)
    assert len(cases) > 5
    assert {case.text: READERS[kind](case.text) for case in cases} == {case.text: case.expected for case in cases}


def test_the_corpus_is_large_and_has_much_that_is_no_answer() -> None:
    cases = corpus()
    assert len(cases) == len({(case.kind, case.text) for case in cases}) > 700
    assert sum(case.expected is None for case in cases) > 150


@pytest.mark.parametrize("table", forms.TABLES)
def test_the_examples_of_each_form_are_read_as_they_say(table: str) -> None:
    read = {text: read_choice(text, forms.OPTIONS) for form in forms.TABLES[table] for text, _ in form.examples}
    assert read == {text: expected for form in forms.TABLES[table] for text, expected in form.examples}


@pytest.mark.parametrize(
    "form", [form for table in forms.TABLES.values() for form in table], ids=lambda form: form.name
)
def test_a_form_stands_in_an_example_of_its_own(form: forms.Form) -> None:
    assert any(form.regex.search(text) for text, _ in form.examples)


def test_the_examples_of_results_are_read_as_they_say() -> None:
    for form in RESULTS:
        for text, expected in form.examples:
            assert read_quantity(text) == (None if expected is None else float(expected)), text


# the very forms that used to score nothing, or something else
@pytest.mark.parametrize(
    ("completion", "problem_type", "solution", "score"),
    [
        ("<answer>So the answer is B.</answer>", "multiple choice", "B", 1),
        ("<think>A. x\nB. y</think>A. x\nB. y\nAnswer: B", "multiple choice", "B", 1),
        ("<think><answer>A</answer>?</think><answer>B</answer>", "multiple choice", "B", 1),
        ("<think>The answer is B", "multiple choice", "B", 0),
        ("<answer>A and B</answer>", "multiple choice", "B", 0),
        ("<answer>The bed is 2 m. The answer is 3.2 meters, since 5 − 1.8</answer>", "numerical", "3.2", 1),
        (r"<think>?</think>\boxed{3.2}", "regression", "3.2", 1),
        ("<think>3.2</think>", "numerical", "3.2", 0),
        ("<think>A?</think>no parking", "OCR", "no parking", 1),
    ],
)
def test_a_reward_that_is_not_strict_reads_so_and_the_published_one_does_not(
    completion: str, problem_type: str, solution: str, score: float
) -> None:
    assert answer_reward(completion, solution, problem_type, strict=False) == score
    if score:
        assert answer_reward(completion, solution, problem_type, strict=True) < score


LEADS = st.sampled_from(
    ["", "The lamp is far away.\n", "Let me see. ", "It might be A, or not. ", "A is wrong. ", "**Reasoning**\n"]
)
DECLARED = st.sampled_from(
    [
        "Answer: {}.",
        "The answer is {}.",
        "**Final answer:** ({}).",
        r"$\boxed{{\text{{{}}}}}$",
        "So the correct option is {}.",
    ]
)


@given(
    LEADS,
    DECLARED,
    st.sampled_from("ABCD"),
    st.sampled_from(["", "\n", " The rest is far.", "\n\nIt was hard to see."]),
)
def test_a_declaration_is_read_whatever_surrounds_it(lead: str, declared: str, letter: str, after: str) -> None:
    assert read_choice(lead + declared.format(letter) + after, forms.OPTIONS) == letter


@given(LEADS, DECLARED, st.floats(0.01, 999).map(lambda value: f"{value:.2f}"), st.sampled_from(["", " m", " meters"]))
def test_a_declared_number_is_read_whatever_surrounds_it(lead: str, declared: str, number: str, unit: str) -> None:
    assert read_quantity(lead + declared.format(number + unit)) == float(number)


@given(DECLARED, DECLARED, st.sampled_from("ABCD"), st.sampled_from("ABCD"))
def test_the_last_declaration_counts(first: str, second: str, before: str, letter: str) -> None:
    assert read_choice(f"{first.format(before)}\nNo: {second.format(letter)}", forms.OPTIONS) == letter


@given(
    # after which nothing is said, an answer that ends the thinking counts
    st.sampled_from([case for case in corpus("choice", "number") if case.text.strip()]),
    st.sampled_from(["A 7", "The answer is A.", r"\boxed{7}", "<answer>A</answer>"]),
)
def test_thinking_does_not_change_what_is_read(case: Case, thought: str) -> None:
    for completion in (
        f"<think>{thought}</think>{case.text}",
        f"{thought}</think>\n<answer>{case.text}</answer>",
        f"<think>{thought}</think><answer>{case.text}</answer>\n",
    ):
        assert READERS[case.kind](final_text(completion)) == case.expected


@given(st.text())
def test_thinking_that_was_cut_off_gives_nothing(text: str) -> None:
    if "</" not in text:
        assert final_text(f"<think>{text}") == final_text(text, opened_think=True) == ""


@given(st.text(alphabet=st.sampled_from("ABCD abcd.,:()/&orandthe\n"), max_size=30))
def test_what_is_read_stands_in_the_text(text: str) -> None:
    letter = read_choice(text)
    assert letter is None or letter in text.upper()


PIECES = [
    *(
        "the answer is ",
        "answer: ",
        "answer of a ",
        "I choose ",
        "so ",
        "so, it is ",
        "it is ",
        "A ",
        "A\n",
        "A. ",
        "A or ",
    ),
    *(
        "A is ",
        "A is the most likely ",
        "option ",
        "(A) is the best ",
        "答案是",
        "选",
        "→ ",
        "-> ",
        r"\boxed{",
        "(",
        "B (",
        "B: ",
    ),
    *(
        "not ",
        "if the answer is B ",
        r"\text{",
        "\\",
        "<a ",
        "<",
        "yes ",
        "yes or ",
        "1+1=",
        "1-",
        "so 1 ",
        "about ",
        "3 m ",
    ),
    *(
        "B, a, ",
        "A matches the ",
        "A and B. ",
        "best ",
        "answer\n",
        "=",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
    ),
]


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_text_takes_little_time(piece: str) -> None:
    """The stated bound: a megabyte is read in a fifth of a second of the processor's time."""
    text = piece * (10**6 // len(piece))
    readers = (final_text, read_choice, lambda text: read_choice(text, forms.OPTIONS), read_yes_no, read_quantity)
    for read in readers:
        assert any(_seconds(read, text) < 0.2 for _ in range(5))


def _seconds(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    read(text)
    return time.process_time() - start


@given(st.lists(st.sampled_from(PIECES), max_size=400).map("".join))
def test_any_text_is_read(text: str) -> None:
    assert read_choice(text, forms.OPTIONS) in (None, "A", "B", "C", "D")
    assert read_yes_no(text) in (None, "yes", "no")
    assert isinstance(final_text(text), str)
    read_quantity(text)
