"""Rows of `generated.jsonl`: a question with sampled completions and their rewards; pass rates by question type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spacer.data.samples import Fault, Sample
from spacer.evaluation.kept import Answer, Row
from spacer.evaluation.predict import completion_fields, extracted, question_fields
from spacer.rewards import Scorer, is_right


@dataclass(frozen=True)
class PassRates:
    """How often some questions are answered rightly: the mean of their pass rates, and how many questions have a pass
    rate of 0, one of 1, and one between, which are those that a group of completions learns from."""

    mean: float
    never: int
    sometimes: int
    always: int

    @property
    def questions(self) -> int:
        """The number of questions."""
        return self.never + self.sometimes + self.always


def generated_row(item: Sample, answer: Answer, scorer: Scorer) -> Row:
    """The row of a question: each completion with its reward, and the share of right ones.

    Rewards are those of the completions as one group, without the temporal bonus, which needs shuffled frames.
    """
    parts = scorer(item, answer.texts, answer.lengths)
    options, strict = item.options, scorer.settings.strict
    completions = [
        completion_fields(text, tokens, part, extracted(text, item.problem_type, strict, options))
        | {"truncated": cut, "right": is_right(part.answer, item.problem_type)}
        for text, tokens, cut, part in zip(answer.texts, answer.lengths, answer.truncated, parts, strict=True)
    ]
    rate = sum(row["right"] for row in completions) / len(completions)
    return question_fields(item) | {"pass_rate": rate, "completions": completions}


def generated_fault(item: Sample, fault: Fault) -> Row:
    """The row of a question that could not be asked, with the reason; it has no pass rate."""
    row = question_fields(item) | {"pass_rate": None, "completions": []}
    return row | {"error": f"{fault.kind}: {fault.detail}"}


def pass_rates(rows: Iterable[Row]) -> Mapping[str, PassRates]:
    """Question type → the pass rates of its questions that could be asked, in the order of types.

    >>> rows = [{"question_type": "route", "pass_rate": rate} for rate in (0.0, 0.25, 1.0, None)]
    >>> pass_rates(rows)["route"]
    PassRates(mean=0.4166666666666667, never=1, sometimes=1, always=1)
    """
    by_type: dict[str, list[float]] = {}
    for row in rows:
        if row["pass_rate"] is not None:
            by_type.setdefault(row["question_type"], []).append(row["pass_rate"])
    return {kind: summed(rates) for kind, rates in sorted(by_type.items())}


def summed(rates: list[float]) -> PassRates:
    """The pass rates of questions, at least one, as one figure."""
    never, always = rates.count(0.0), rates.count(1.0)
    return PassRates(sum(rates) / len(rates), never, len(rates) - never - always, always)
