"""The answer reward by problem type, against values worked out by hand and against independent scorers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.rewards import PROBLEM_TYPES, answer_reward, mean_relative_accuracy
from spacer.rewards.answer import MAX_SOLUTION_WORDS


def score(answer: str, solution: str, problem_type: str, strict: bool = True) -> float:
    return answer_reward(f"<think>…</think><answer>{answer}</answer>", solution, problem_type, strict)


@pytest.mark.parametrize("solution", ["B", " B ", "<answer>B</answer>", "<answer> B </answer>", "B. the chair"])
@pytest.mark.parametrize(
    ("answer", "strict", "lenient"),
    [
        ("B", 1, 1),
        (" B\n", 1, 1),
        ("B.", 0, 1),
        ("(B)", 0, 1),
        ("B) text", 0, 1),
        ("B. text", 0, 1),
        ("**B**", 0, 1),
        ("Answer: B", 0, 1),
        ("b", 0, 1),
        ("A", 0, 0),
        ("Behind B", 0, 0),
        ("B or C", 0, 0),
        ("", 0, 0),
    ],
)
def test_multiple_choice(answer: str, strict: float, lenient: float, solution: str) -> None:
    assert score(answer, solution, "multiple choice") == strict
    assert score(answer, solution, "multiple choice", strict=False) == lenient


def test_strict_is_the_default() -> None:
    assert answer_reward("<answer>B.</answer>", "B", "multiple choice") == 0


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (2, 2, 1.0),
        (0.95, 1, 1.0),  # an error of .05, up to rounding, counts for θ = .95
        (1.05, 1, 1.0),
        (0.949, 1, 0.9),
        (0.9, 1, 0.9),
        (1.12, 1, 0.8),
        (0.7, 1, 0.5),
        (1.3, 1, 0.5),
        (1.5, 1, 0.1),  # an error of exactly .5 counts for θ = .5
        (0.5, 1, 0.1),
        (1.51, 1, 0.0),
        (2, 4, 0.1),
        (-2, -2, 1.0),
        (2, -2, 0.0),
        (-1.9, -2, 1.0),
        (0, 1, 0.0),
        (0, 0, 1.0),  # a truth of 0: only an exact 0 scores
        (1e-12, 0, 0.0),
        (1e308, -1e308, 0.0),
        (1.0, 5e-324, 0.0),
        (float("nan"), 1, 0.0),
        (1, float("nan"), 0.0),
        (float("inf"), float("inf"), 0.0),
        (1, float("inf"), 0.0),
    ],
)
def test_mean_relative_accuracy(prediction: float, truth: float, expected: float) -> None:
    assert mean_relative_accuracy(prediction, truth) == expected


@given(st.integers(1, 10), st.integers(1, 10**6), st.sampled_from([-1, 1]))
def test_equality_at_each_threshold_counts_whatever_the_rounding(k: int, hundredths: int, side: int) -> None:
    truth = hundredths / 100
    prediction = truth * (1 + side * k / 20)
    assert mean_relative_accuracy(prediction, truth) == (11 - k) / 10


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("3", "3", 1.0),
        ("a distance of 3.2 meters", "<answer>3.2</answer>", 1.0),
        ("1,200", "1200", 1.0),
        ("twenty-one", "21", 1.0),
        ("-3", "-3", 1.0),
        ("-3", "3", 0.0),
        ("1.8 meters", "2", 0.9),
        ("a chair", "1", 0.0),  # the release reads "a" as 1
        ("no idea", "3", 0.0),
        ("", "0", 0.0),
        ("0", "0", 1.0),
        ("zero", "0.0", 1.0),
        ("1", "0", 0.0),
        ("1e999", "3", 0.0),
        ("3", "no number", 0.0),
    ],
)
def test_numerical(answer: str, solution: str, expected: float) -> None:
    assert score(answer, solution, "numerical") == expected


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("3.2 meters", "3.2", 1.0),  # the release gives 0
        ("3", "4", 0.75),
        ("5", "4", 0.75),
        ("8", "4", 0.0),
        ("100", "4", 0.0),
        ("-4", "-5", 0.8),
        ("0", "0", 1.0),
        ("0.1", "0", 0.0),
        ("none", "4", 0.0),
    ],
)
def test_regression(answer: str, solution: str, expected: float) -> None:
    assert score(answer, solution, "regression") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("no parking", "no parking", 1.0),
        ("the cat sat", "the cat sat down", 3 / 4),  # one of four words is missing
        ("the dog sat down", "the cat sat down", 3 / 4),  # one is wrong
        ("the cat sat down here", "the cat sat down", 3 / 4),  # one is invented
        ("No parking", "no parking", 1 / 2),  # case counts
        ("x y z", "a", 0.0),  # a rate of 3: max(0, ·)
        ("", "no parking", 0.0),
        ("no parking", "", 0.0),
        ("", "", 0.0),  # a sample without a solution rewards nothing
    ],
)
def test_ocr_is_one_minus_the_word_error_rate(answer: str, solution: str, expected: float) -> None:
    assert score(answer, solution, "OCR") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "solution", "expected"),
    [
        ("the cat sat down", "the cat sat down", 1.0),
        # ROUGE-1 and -L: 2·3/(3+4) = 6/7; ROUGE-2: 2·2/(2+3) = 4/5
        ("the cat sat", "the cat sat down", (6 / 7 + 4 / 5 + 6 / 7) / 3),
        # ROUGE-1: 1; ROUGE-2: no shared pair; ROUGE-L: 1 of 2
        ("down sat", "sat down", (1 + 0 + 1 / 2) / 3),
        ("Running cats!", "running, cat", 1.0),  # Porter stems, without case and punctuation
        ("dog", "cat", 0.0),
        ("word", "word", 2 / 3),  # a single word has no bigram
        ("椅子", "椅子", 0.0),  # ROUGE sees ASCII letters and digits only
        ("", "cat", 0.0),
    ],
)
def test_free_form_is_the_mean_of_three_rouge_f_measures(answer: str, solution: str, expected: float) -> None:
    assert score(answer, solution, "free-form") == pytest.approx(expected, abs=1e-6)


def _sentence(rng: random.Random, words: int) -> str:
    vocabulary = ["the", "chairs", "Tables", "running", "stands", "near-by", "organization", "sofa.", "2", "left"]
    return " ".join(rng.choice(vocabulary) for _ in range(words))


@pytest.mark.parametrize("seed", range(8))
def test_ocr_and_free_form_agree_with_independent_scorers(seed: int) -> None:
    jiwer = pytest.importorskip("jiwer")
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(
        ["rouge1", "rouge2", "rougeL"], use_stemmer=True
    )
    rng = random.Random(seed)
    truth, answer = _sentence(rng, rng.randint(1, 40)), _sentence(rng, rng.randint(1, 120))
    assert score(answer, truth, "OCR") == pytest.approx(max(0.0, 1 - jiwer.wer(truth, answer)), abs=1e-6)
    rouge = sum(value.fmeasure for value in scorer.score(truth, answer).values()) / 3
    assert score(answer, truth, "free-form") == pytest.approx(rouge, abs=1e-6)


@pytest.mark.parametrize("problem_type", ["OCR", "free-form"])
def test_words_beyond_the_bound_count_as_errors(problem_type: str) -> None:
    words = [f"w{i}" for i in range(3 * MAX_SOLUTION_WORDS)]
    bounded, whole = " ".join(words[:MAX_SOLUTION_WORDS]), " ".join(words)
    assert score(whole, whole, problem_type) == pytest.approx(1.0)
    assert score(bounded, whole, problem_type) < 0.6  # two thirds are missing
    assert score(whole, bounded, problem_type) < 0.6  # two thirds are invented


def test_an_unknown_problem_type_is_named_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="'ocr'") as raised:
        answer_reward("<answer>B</answer>", "B", "ocr")
    assert all(repr(name) in str(raised.value) for name in PROBLEM_TYPES)
    assert PROBLEM_TYPES == ("multiple choice", "numerical", "OCR", "free-form", "regression")
