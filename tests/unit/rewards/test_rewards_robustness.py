"""No completion, whatever it says, raises, takes long, or leaves [0, 1] in any component."""

import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacer.config.settings import LengthBonusSettings, RewardSettings
from spacer.rewards import (
    PROBLEM_TYPES,
    answer_reward,
    final_text,
    format_reward,
    has_map,
    map_score,
    parse_map,
    read_choice,
    read_number,
    read_quantity,
    read_yes_no,
    score_group,
)

MEGABYTE = 10**6
LIMIT_S = 0.05
TRUE_MAP = {"chair": [[i % 10, i // 10] for i in range(20)], "coffee table": [[1, 1]], "tv": [[3, 4]]}
SOLUTIONS = {
    "multiple choice": ["B"],
    "numerical": ["3", "0", "-1e308"],
    "OCR": ["no parking", " ".join(f"word{i}" for i in range(200)), "word " * 2000],
    "free-form": ["the chair", " ".join(f"organization{i}s" for i in range(200)), "organizations " * 1000],
    "regression": ["3", "0", "5e-324"],
}
assert tuple(SOLUTIONS) == PROBLEM_TYPES


READ_OTHERWISE = ("multiple choice", "numerical", "regression")  # where the reward is not strict


def megabyte(text: str) -> str:
    return text * (MEGABYTE // len(text))


BODIES = {
    "empty": "",
    "deep brackets": "[" * 10_000,
    "deep brackets, closed": "[" * 10_000 + "]" * 10_000,
    "deep brackets in a map": "{'chair': " + "[" * 10_000 + "]" * 10_000 + "}",
    "deep braces": "{" * 10_000 + "}" * 10_000,
    "short deep brackets in a map": "{'chair': " + "(" * 1000 + ")" * 1000 + "}",
    "subscripts": "{'chair': 1" + "[0]" * 2000 + "}",
    "calls": "{'chair': (1)" + "(1)" * 2000 + "}",
    "signs": "{'chair': " + "-" * 4000 + "1}",
    "sums": "{'chair': " + "1+" * 4000 + "1}",
    "attributes": "{'chair': a" + ".a" * 3000 + "}",
    "lambdas": "{'chair': " + "lambda:" * 1000 + "1}",
    "negations": "{'chair': " + "not " * 1500 + "1}",
    "import": "{'chair': __import__('os').system('exit 1')}",
    "null byte": "{'chair': '\0'}",
    "surrogate": "{'chair': '\ud800', '\udfff': 1}",
    "1 MB of <": megabyte("<"),
    "1 MB of pairs": megabyte("[[1,2],"),
    "1 MB of points in a dict": "{'chair': [" + megabyte("[1,2],") + "]}",
    "points up to the bound": "{'chair': [" + "[1,2]," * 1350 + "]}",
    "spread points up to the bound": "{'chair':[" + ",".join(f"[{i % 36},{i // 36}]" for i in range(1100)) + "]}",
    "tied points": "{'chair':[" + ",".join(f"[{x},{y}]" for x in range(0, 12, 2) for y in range(0, 12, 2)) + "]}",
    "tied points, many times": "{'chair':[" + "[0,0],[2,0],[1,1],[4,1],[3,1],[5,0]," * 220 + "]}",
    "points between the true ones": "{'chair':[" + ",".join(f"[{x},{y}]" for x in range(10) for y in (-1, 2)) + "]}",
    "points in one text": "{'chair': '" + "[1,2]," * 1350 + "'}",
    "brackets in one text": "{'chair': '" + "[" * 4000 + "]" * 4000 + "'}",
    "points by keys": "{'chair': [" + "{'x':1,'y':2}," * 580 + "]}",
    "maps in maps": "{'map': {'map': {'map': {'map': {'map': {'map': {'chair': [1, 2]}}}}}}}",
    "maps side by side": "{" + ",".join(f"'{i}':{{'chair':[1,2]}}" for i in range(330)) + "}",
    "objects": "{'objects': [" + "{'name':'chair','x':1,'y':2}," * 270 + "]}",
    "1 MB of digits": megabyte("9"),
    "1 MB of digits in a map": "{'chair': [[1, " + megabyte("9") + "]]}",
    "5,000 digits in a map": "{'chair': [[1, " + "9" * 5000 + "]]}",
    "400 digits in a map": "{'chair': [[1, " + "9" * 400 + "], [" + "-" + "9" * 300 + ", 2]]}",
    "thousands groups": "1" + megabyte(",123") + "4",
    "NaN": "{'chair': [[NaN, 1], [nan, inf]]} nan",
    "1e999": "1e999",
    "-1e999 in a map": "{'chair': [[1e999, -1e999], [1e308, -1e308]]}",
    "exponents": megabyte("1e"),
    "non-Latin digits": megabyte("٣") + " ३ ٤.٢",
    "non-Latin digits in a map": "{'chair': [[٣, ३]]}",
    "superscripts": megabyte("²"),
    "number words": megabyte("one hundred and "),
    "glued number words": megabyte("one-"),
    "scales": megabyte("thousand, "),
    "points": "one point " + megabyte("one "),
    "minuses": megabyte("minus "),
    "dashes": megabyte("-"),
    "answers": megabyte("the answer is "),
    "options": megabyte("option: "),
    "white space": megabyte(" "),
    "white space before a letter": megabyte(" ") + "B",
    "mark-up before a letter": megabyte("*") + "B",
    "new lines": megabyte("\n"),
    "opened maps": megabyte("<map>{"),
    "closed maps": megabyte("</map>"),
    "opened answers": megabyte("<answer>"),
    "closed answers": megabyte("</answer>"),
    "whole answers": megabyte("<answer>B</answer>"),
    "thoughts": megabyte("<think></think>"),
    "almost tags": megabyte("<answer"),
    "names": megabyte("chair "),
    "names with numbers": megabyte("chair 1 2 "),
    "overlapping names": megabyte("coffee table "),
    "keys": "{" + "'chair': [1, 2], " * 400 + "}",
    "quotes": "{" + megabyte("'") + "}",
    "strings": "{" + "'a'," * 2000 + "}",
    "a long word": megabyte("y"),  # the stemmer recurses on runs of y
    "long words": "organizationally" * 4 + (" " + "organizationally" * 4) * 1000,
    "many words": megabyte("a-"),
    "distinct words": " ".join(f"organizations{i}" for i in range(3000)),
    "nulls": megabyte("\0"),
}
WRAPPERS: dict[str, Callable[[str], str]] = {
    "bare": str,
    "in an answer": lambda body: f"<think></think><answer>{body}</answer>",
    "in an answer after a letter": lambda body: f"<think></think><answer>B {body}</answer>",
    "in a map": lambda body: f"<think><map>{body}</map></think><answer>B</answer>",
    "unclosed answer": lambda body: f"<think></think><answer>{body}",
    "unclosed map": lambda body: f"<think><map>{body}",
}


@pytest.fixture(scope="module", autouse=True)
def _imports_are_warm() -> None:
    """torchmetrics is imported at first use, and torch sets up on the first call; neither is the completion's doing."""
    for problem_type in ("OCR", "free-form"):
        answer_reward("<answer>a b</answer>", "a b", problem_type)


def within_limits(score: Callable[[], float]) -> None:
    """The value is in [0, 1], and the best of some tries keeps the limit: a busy machine slows single ones."""
    for _ in range(6):
        start = time.process_time()
        value = score()
        seconds = time.process_time() - start
        assert 0.0 <= value <= 1.0
        if seconds < LIMIT_S:
            return
    pytest.fail(f"takes {seconds * 1000:.0f} ms")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("body", BODIES)
def test_no_completion_raises_takes_long_or_leaves_the_unit_interval(body: str, wrapper: str) -> None:
    completion = WRAPPERS[wrapper](BODIES[body])
    within_limits(lambda: format_reward(completion))
    within_limits(lambda: map_score(completion, TRUE_MAP))
    within_limits(lambda: float(has_map(completion)))
    for problem_type, solutions in SOLUTIONS.items():
        for solution in solutions:
            for strict in (True, False) if problem_type in READ_OTHERWISE else (True,):
                within_limits(partial(answer_reward, completion, solution, problem_type, strict))


@pytest.mark.parametrize("body", BODIES)
def test_readers_take_any_text(body: str) -> None:
    within_limits(lambda: float(read_number(BODIES[body]) is not None))
    within_limits(lambda: float(read_choice(BODIES[body]) is not None))
    within_limits(lambda: float(read_yes_no(BODIES[body]) is not None))
    within_limits(lambda: float(read_quantity(BODIES[body]) is not None))
    within_limits(lambda: float(bool(final_text(BODIES[body]))))
    within_limits(lambda: float(bool(parse_map(BODIES[body], TRUE_MAP))))


FRAGMENTS = [
    *("<think>", "</think>", "<answer>", "</answer>", "<map>", "</map>", "{", "}", "[", "]", "(", ")", "'", '"'),
    *("chair", "Coffee Table", "TV", "1", "2.5", "-3", "1e999", "9" * 310, "\u22124", "٣", "None", "NaN", "1,200"),
    *(",", ":", "True", "B"),
    *("twenty", "-one", " hundred ", " and ", "million", "point", "minus ", "a ", "B.", "Answer: ", "**", " ", "\n"),
]
structured = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join)
drawn = structured.map(lambda inside: f"<think><map>{inside}</map></think><answer>B</answer>")
answered = structured.map(lambda inside: f"<think></think><answer>{inside}</answer>")
anything = st.one_of(st.text(), st.text(st.characters(codec=None)), structured, drawn, answered)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(anything, st.sampled_from(PROBLEM_TYPES), st.booleans(), st.sampled_from([None, TRUE_MAP]))
def test_any_completion_of_any_sample_is_scored(
    text: str, problem_type: str, strict: bool, true_map: dict[str, list[list[int]]] | None
) -> None:
    reward = RewardSettings(strict=strict, length=LengthBonusSettings(min_tokens=0))
    for solution in SOLUTIONS[problem_type][:1]:
        group = score_group(
            [text, text],
            [9, 9],
            solution=solution,
            problem_type=problem_type,
            options=("A. tv", "B. the chair"),
            true_map=true_map,
            settings=reward,
        )
        for parts in group:
            shares = (parts.answer, parts.map, parts.format, parts.map_quality)
            assert all(0.0 <= value <= 1.0 for value in shares if value is not None)
            assert parts.length in (0.0, 0.2)
            assert parts.temporal == 0.0
            counted = 0.0 if parts.cancelled else parts.answer
            assert parts.total == pytest.approx(counted + (parts.map or 0.0) + (parts.format or 0.0) + parts.length)
            assert parts.drawn == has_map(text)
    within_limits(lambda: answer_reward(text, SOLUTIONS[problem_type][-1], problem_type, strict))


@given(st.text(), st.sampled_from(["numerical", "multiple choice", "regression"]))
def test_any_solution_is_scored(solution: str, problem_type: str) -> None:
    assert 0.0 <= answer_reward("<answer>3</answer>", solution, problem_type) <= 1.0
