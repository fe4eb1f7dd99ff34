"""Texts of questions and answers → chunks, each parsed by the page on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spacer.report.html.contents import Answered, Asked, EvaluationResult

RIGHT = 0.5  # an answer with at least this score is shown as right
CHUNK = 100  # questions whose texts are parsed together
COMPLETION = 16_384  # characters of a completion that are shown, the same number as are parsed for scoring


@dataclass(frozen=True)
class Questions:
    """The questions of a subject, in the runs' order, and who answered them."""

    evaluations: tuple[EvaluationResult, ...]
    asked: tuple[Asked, ...]

    @classmethod
    def of(cls, evaluations: Sequence[EvaluationResult]) -> Questions:
        """The questions of all evaluations, without duplicates."""
        union = {key: asked for evaluation in evaluations for key, asked in evaluation.questions.items()}
        return cls(tuple(evaluations), tuple(union.values()))

    def answers(self, asked: Asked) -> list[Answered | None]:
        """One answer per evaluation, None where it lacks the question."""
        return [evaluation.answers.get(asked.key) for evaluation in self.evaluations]


def by_worth(questions: Questions) -> list[int]:
    """Indices of the questions, most interesting first.

    First those where runs disagree, then failures (unasked and unread answers before wrong ones), then the rest.
    """

    def worth(place: int) -> tuple[int, int]:
        answers = [answer for answer in questions.answers(questions.asked[place]) if answer is not None]
        right = [answer.score >= RIGHT for answer in answers]
        unread = any(answer.error is not None or answer.read is None for answer in answers)
        rank = 0 if len(set(right)) > 1 else 1 if not all(right) and unread else 2 if not all(right) else 3
        return rank, place

    return sorted(range(len(questions.asked)), key=worth)


def text_of(questions: Questions, asked: Asked) -> dict[str, Any]:
    """All texts of a question and its answers."""
    return {
        "text": asked.text,
        "options": list(asked.options),
        "truth": asked.truth,
        "map": asked.true_map,
        "answers": [None if answer is None else _answer(answer) for answer in questions.answers(asked)],
    }


def _answer(answer: Answered) -> dict[str, Any]:
    entry = asdict(answer)
    entry.pop("score")
    completion = answer.completion
    if completion is not None and len(completion) > COMPLETION:
        entry["completion"] = completion[:COMPLETION]
        entry["cut"] = len(completion) - COMPLETION
    return entry


@dataclass(frozen=True)
class Texts:
    """Chunks of JSON, `CHUNK` questions each, their size in characters, and the number of questions left out."""

    chunks: tuple[str, ...]
    size: int
    left_out: int


def chunks(questions: Questions, room: int) -> Texts:
    """The texts of the questions, most interesting first, as far as they fit in `room` characters."""
    held: list[str] = ["null"] * len(questions.asked)
    left_out = 0
    for place in by_worth(questions):
        text = plain_json(text_of(questions, questions.asked[place]))
        if len(text) > room:
            left_out += 1
            continue
        room -= len(text)
        held[place] = text
    joined = tuple("[" + ",".join(held[i : i + CHUNK]) + "]" for i in range(0, len(held), CHUNK))
    return Texts(joined, sum(map(len, joined)), left_out)


def plain_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON that is safe to embed in a page: only ASCII, and no character that could end its element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
