"""The answer reward: how right the text in `<answer>…</answer>` is, by problem type, in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from spacer.rewards.extract import MAX_CHARS, answer_text, between, read_number
from spacer.rewards.options import read_choice
from spacer.rewards.quantities import read_quantity
from spacer.rewards.reading import final_text

# Word error rate and ROUGE-L fill a table of answer words by solution words in pure Python (torchmetrics has no
# compiled path), at about 0.2 µs per cell. 40,000 cells take some 10 ms and stemming another 5, which keeps any
# completion under 50 ms on a busy core. So a solution of 40 words is compared with up to 1,000 words, a whole
# completion; one of 200 with 200.
MAX_CELLS = 40_000
MAX_SOLUTION_WORDS = 200
MAX_ANSWER_WORDS = 1_000
MAX_WORD_CHARS = 64  # older nltk stemmers recurse once per "y" in a run of them

RIGHT_ABOVE = 0.5  # a reward for an answer that is no choice; the published bound above which its map counts

_TOLERANCE = 1e-9  # far above the rounding error of a float quotient, far below any difference in written numbers


def answer_reward(
    completion: str, solution: str, problem_type: str, strict: bool = True, options: Sequence[str] = ()
) -> float:
    """Score the answer of a completion against a solution, bare or in `<answer>…</answer>` (published rules).

    `strict` is the published rule: the answer is the text of the first `<answer>…</answer>` pair; a choice must be the
    whole text, and a number is the first one in it. Without `strict`, answers are read as a person would read them, as
    in evaluation (`final_text`, `read_choice`, `read_quantity`), and the full text of one of the question's `options`
    counts as its letter.

    - multiple choice: 1 when the answer is the solution's letter.
    - numerical: the mean relative accuracy, `mean_relative_accuracy`.
    - OCR: max(0, 1 - word error rate).
    - free-form: mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures, Porter-stemmed.
    - regression: 1 - min(1, |p - g| / |g|).

    A missing number on either side scores 0, and so does an empty solution.

    Raises:
        ValueError: the problem type is not one of the five.
        ModuleNotFoundError: torchmetrics (OCR, free-form) or nltk (free-form) is not installed.

    >>> answer_reward("<think>…</think><answer>B</answer>", "<answer>B</answer>", "multiple choice")
    1.0
    >>> answer_reward("<answer>B. the chair</answer>", "B", "multiple choice", strict=False)
    1.0
    >>> answer_reward("It is the chair.", "B", "multiple choice", strict=False, options=("A. the lamp", "B. the chair"))
    1.0
    >>> answer_reward("<answer>1.8 meters</answer>", "2", "numerical")
    0.9
    >>> round(answer_reward("<answer>no parking here</answer>", "no parking", "OCR"), 6)
    0.5
    """
    score = _SCORES.get(problem_type)
    if score is None:
        raise ValueError(f"unknown problem type {problem_type!r}; valid are: {', '.join(map(repr, _SCORES))}")
    answer = answer_text(completion) if strict else final_text(completion)
    wrapped = between(solution, "answer")
    truth = solution.strip() if wrapped is None else wrapped
    if not answer or not truth:
        return 0.0
    return min(1.0, max(0.0, score(answer if strict else _read(answer, problem_type, options), truth)))


def _read(answer: str, problem_type: str, options: Sequence[str]) -> str:
    """The answer normalized to the form that the published rules expect; unchanged if it cannot be read."""
    if problem_type == "multiple choice":
        return read_choice(answer, options) or answer
    if problem_type in ("numerical", "regression"):
        number = read_quantity(answer)
        return "" if number is None else repr(number)
    return answer


def is_right(reward: float, problem_type: str, above: float = RIGHT_ABOVE) -> bool:
    """Whether an answer with this reward counts as right: a choice with a reward of 1, any other with one `above`.

    >>> is_right(1.0, "multiple choice"), is_right(0.6, "numerical"), is_right(0.5, "numerical")
    (True, True, False)
    """
    return reward == 1 if problem_type == "multiple choice" else reward > above


def mean_relative_accuracy(prediction: float, truth: float) -> float:
    """MRA = 1/10 · Σ over θ in {.50, .55, …, .95} of [ |p - g| / |g| ≤ 1 - θ ] (VSI-Bench; paper's numerical reward).

    Rounding errors of floats are tolerated in ≤. If g is 0, only an exact 0 scores; NaN and infinity score 0.

    >>> [mean_relative_accuracy(p, 1.0) for p in (1.0, 0.95, 1.5, 1.6)]
    [1.0, 1.0, 0.1, 0.0]
    """
    error = _relative_error(prediction, truth)
    # 1 - θ runs over k/20 for k = 1 … 10.
    return sum(20 * error <= k + _TOLERANCE for k in range(1, 11)) / 10


def _relative_error(prediction: float, truth: float) -> float:
    """|p - g| / |g|; for g = 0, 0 when p is 0 and infinite otherwise."""
    if truth == 0:
        return 0.0 if prediction == 0 else float("inf")
    return abs(prediction - truth) / abs(truth)


def _choice(answer: str, truth: str) -> float:
    return float(answer == (read_choice(truth) or truth))


def _numerical(answer: str, truth: str) -> float:
    p, g = read_number(answer), read_number(truth)
    return 0.0 if p is None or g is None else mean_relative_accuracy(p, g)


def _regression(answer: str, truth: str) -> float:
    p, g = read_number(answer), read_number(truth)
    return 0.0 if p is None or g is None else 1.0 - min(1.0, _relative_error(p, g))


def _bound(answer: list[str], truth: list[str]) -> tuple[list[str], list[str], int]:
    """The words to compare, truncated to a bound, and the difference in length of what was cut off.

    The callers count that difference as errors, so an answer gains nothing by continuing beyond the bound.
    """
    kept_truth = truth[:MAX_SOLUTION_WORDS]
    kept_answer = answer[: min(MAX_ANSWER_WORDS, MAX_CELLS // max(1, len(kept_truth)))]
    excess = abs((len(answer) - len(kept_answer)) - (len(truth) - len(kept_truth)))
    return kept_answer, kept_truth, excess


def _ocr(answer: str, truth: str) -> float:
    # Imported here and below, because it imports torch, which takes seconds and which most rewards do not need.
    from torchmetrics.functional.text import word_error_rate

    words = truth[:MAX_CHARS].split()
    kept_answer, kept_truth, excess = _bound(answer[:MAX_CHARS].split(), words)
    return 1.0 - (float(word_error_rate(" ".join(kept_answer), " ".join(kept_truth))) + excess / len(words))


def _free_form(answer: str, truth: str) -> float:
    from torchmetrics.functional.text.rouge import rouge_score

    # The words that torchmetrics, like Google's rouge_score, would make of the texts: ASCII letters and digits.
    words = [re.findall(r"[a-z0-9]+", text[:MAX_CHARS].lower()) for text in (answer, truth)]
    kept_answer, kept_truth, excess = _bound(*words)
    kept = len(kept_answer) + len(kept_truth)
    p, g = (" ".join(word[:MAX_WORD_CHARS] for word in side) for side in (kept_answer, kept_truth))
    keys = ("rouge1", "rouge2", "rougeL")
    scores = rouge_score(p, g, use_stemmer=True, rouge_keys=keys)
    mean = sum(float(scores[f"{key}_fmeasure"]) for key in keys) / len(keys)
    # F = 2 · hits / (words of the answer + words of the solution): words without a hit only increase the denominator.
    return mean * kept / (kept + excess) if kept else 0.0


_SCORES: dict[str, Callable[[str, str], float]] = {
    "multiple choice": _choice,
    "numerical": _numerical,
    "OCR": _ocr,
    "free-form": _free_form,
    "regression": _regression,
}
PROBLEM_TYPES = tuple(_SCORES)
