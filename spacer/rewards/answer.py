"""The answer reward: how right the text in `<answer>…</answer>` is, by problem type, in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Callable

from spacer.rewards.extract import MAX_CHARS, answer_text, between, read_choice, read_number

# Word error rate and ROUGE-L fill a table of answer words by solution words in Python (torchmetrics has no compiled
# path), at about 0.2 µs a cell. 40,000 cells take some 10 ms and stemming another 5, which keeps any completion under
# 50 ms on a busy core. So a solution of 40 words is compared with 1,000 words, a whole completion, one of 200 with 200.
MAX_CELLS = 40_000
MAX_SOLUTION_WORDS = 200
MAX_ANSWER_WORDS = 1_000
MAX_WORD_CHARS = 64  # older stemmers of nltk recurse once for each "y" of a run

_TOLERANCE = 1e-9  # far above the rounding of a float quotient, far below a difference that anyone writes


def answer_reward(completion: str, solution: str, problem_type: str, strict: bool = True) -> float:
    """Score the answer of a completion against a solution, bare or in `<answer>…</answer>` (published rules).

    - multiple choice: 1 when the answer is exactly the solution's letter; with `strict` off, when it reads as it.
    - numerical: the mean relative accuracy, `mean_relative_accuracy`.
    - OCR: max(0, 1 - word error rate).
    - free-form: mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures, Porter-stemmed.
    - regression: 1 - min(1, |p - g| / |g|).

    Numbers are read by `read_number`: no number, on either side, scores 0, and so does an empty solution.

    Raises:
        ValueError: the problem type is not one of the five.
        ModuleNotFoundError: torchmetrics (OCR, free-form) or nltk (free-form) is not installed.

    >>> answer_reward("<think>…</think><answer>B</answer>", "<answer>B</answer>", "multiple choice")
    1.0
    >>> answer_reward("<answer>B. the chair</answer>", "B", "multiple choice", strict=False)
    1.0
    >>> answer_reward("<answer>1.8 meters</answer>", "2", "numerical")
    0.9
    >>> round(answer_reward("<answer>no parking here</answer>", "no parking", "OCR"), 6)
    0.5
    """
    score = _SCORES.get(problem_type)
    if score is None:
        raise ValueError(f"unknown problem type {problem_type!r}; valid are: {', '.join(map(repr, _SCORES))}")
    answer = answer_text(completion)
    wrapped = between(solution, "answer")
    truth = solution.strip() if wrapped is None else wrapped
    if not answer or not truth:
        return 0.0
    value = _choice_lenient(answer, truth) if problem_type == "multiple choice" and not strict else score(answer, truth)
    return min(1.0, max(0.0, value))


def mean_relative_accuracy(prediction: float, truth: float) -> float:
    """MRA = 1/10 · Σ over θ in {.50, .55, …, .95} of [ |p - g| / |g| ≤ 1 - θ ] (VSI-Bench; paper's numerical reward).

    Equality counts whatever the rounding of floats. A truth of 0 is met by an exact 0 alone; NaN and infinity score 0.

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


def _choice_lenient(answer: str, truth: str) -> float:
    return _choice(read_choice(answer) or answer, truth)


def _numerical(answer: str, truth: str) -> float:
    p, g = read_number(answer), read_number(truth)
    return 0.0 if p is None or g is None else mean_relative_accuracy(p, g)


def _regression(answer: str, truth: str) -> float:
    p, g = read_number(answer), read_number(truth)
    return 0.0 if p is None or g is None else 1.0 - min(1.0, _relative_error(p, g))


def _bound(answer: list[str], truth: list[str]) -> tuple[list[str], list[str], int]:
    """The words that are compared, and by how many words the two sides differ in what is left out.

    The callers count that difference as errors, so nothing is gained by an answer that goes on beyond the bound.
    """
    kept_truth = truth[:MAX_SOLUTION_WORDS]
    kept_answer = answer[: min(MAX_ANSWER_WORDS, MAX_CELLS // max(1, len(kept_truth)))]
    excess = abs((len(answer) - len(kept_answer)) - (len(truth) - len(kept_truth)))
    return kept_answer, kept_truth, excess


def _ocr(answer: str, truth: str) -> float:
    # Imported here and below, because it brings torch, which takes seconds and which most rewards do without.
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
    # F = 2 · hits / (words of the answer + words of the solution): words that hit nothing only enlarge the divisor.
    return mean * kept / (kept + excess) if kept else 0.0


_SCORES: dict[str, Callable[[str, str], float]] = {
    "multiple choice": _choice,
    "numerical": _numerical,
    "OCR": _ocr,
    "free-form": _free_form,
    "regression": _regression,
}
PROBLEM_TYPES = tuple(_SCORES)
