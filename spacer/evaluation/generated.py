"""Rows of `generated.jsonl`: a question with sampled completions and their rewards."""

from __future__ import annotations

from spacer.data.samples import Fault, Sample
from spacer.evaluation.kept import Answer, Row
from spacer.evaluation.predict import completion_fields, extracted, question_fields
from spacer.rewards import Scorer, is_right


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
