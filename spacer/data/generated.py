"""`generated.jsonl`, which stage=generate writes → the questions to train on, and completions to imitate.

Each line is a question with its pass rate and completions, of which only those to be imitated are kept here.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.data.samples import Sample
from spacer.errors import UserError

log = logging.getLogger(__name__)
_UNREADABLE = "\ufffd"  # where a token's bytes are no text, which would be encoded as other tokens


@dataclass(frozen=True)
class Choice:
    """Which questions a run trains on: those whose share of right completions in `file` is within `pass_rate`, both
    ends included (None: any), and, if `targets` are wanted, those with a right completion; of which it imitates the
    best `targets`."""

    file: Path
    pass_rate: tuple[float, float] | None
    targets: int


@dataclass(frozen=True)
class Chosen:
    """The questions that are left, with their completions to imitate by id, best first; and the number of others: out
    of the range, without a right completion, and not in the file or not asked."""

    samples: tuple[Sample, ...]
    targets: Mapping[str, tuple[str, ...]]
    out_of_range: int = 0
    never_right: int = 0
    not_asked: int = 0


@dataclass(frozen=True)
class _Generated:
    """A question of the file: what identifies it, its pass rate, and completions to imitate."""

    asked: tuple[Any, ...]
    pass_rate: float | None
    targets: tuple[str, ...]


def choose(samples: Sequence[Sample], choice: Choice) -> Chosen:
    """The questions to train on, in their order.

    Raises:
        UserError: the file is damaged or of other questions, or no question is left.
    """
    found = {identity: question for identity, question in _read(choice)}
    for sample in samples:
        if sample.id in found and found[sample.id].asked != _asked(sample):
            raise _of_other_questions(choice.file, f"it has another question {sample.id}")
    left: list[Sample] = []
    out_of_range = never_right = not_asked = 0
    for sample in samples:
        question = found.get(sample.id)
        low, high = choice.pass_rate or (0.0, 1.0)
        if question is None or question.pass_rate is None:
            not_asked += 1
        elif not low <= question.pass_rate <= high:
            out_of_range += 1
        elif choice.targets and not question.targets:
            never_right += 1
        else:
            left.append(sample)
    if not_asked == len(samples):
        raise _of_other_questions(choice.file, f"it has none of the {len(samples)} questions to train on")
    targets = {sample.id: found[sample.id].targets for sample in left} if choice.targets else {}
    chosen = Chosen(tuple(left), targets, out_of_range, never_right, not_asked)
    _tell(samples, chosen, choice)
    if not left:
        raise UserError(
            f"dataset.generated={choice.file} leaves no question to train on: {_left_out(chosen)}. Widen "
            "dataset.pass_rate, or sample more completions with stage=generate"
        )
    return chosen


def best_targets(completions: Sequence[Mapping[str, Any]], count: int) -> tuple[str, ...]:
    """The completions to imitate, at most `count`, each text once: right, ended and readable; those of the highest
    total reward first, and of these the shortest in tokens, then the first.

    >>> def made(text: str, total: float, tokens: int, right: bool = True) -> dict:
    ...     beside = {"reward": {"total": total}, "completion_tokens": tokens, "right": right, "truncated": False}
    ...     return {"completion": text, **beside}
    >>> best_targets([made("a", 2, 9), made("b", 2, 8), made("c", 3, 9, False), made("b", 2, 8)], 2)
    ('b', 'a')
    """
    fit = [
        each
        for each in completions
        if each["right"] and not each["truncated"] and _UNREADABLE not in each["completion"]
    ]
    fit.sort(key=lambda each: (-each["reward"]["total"], each["completion_tokens"]))
    return tuple(dict.fromkeys(each["completion"] for each in fit))[:count]


def _read(choice: Choice) -> Iterator[tuple[str, _Generated]]:
    """Id and contents of each question of the file, line by line: its completions may not fit in memory."""
    with open(choice.file, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                asked = (row["question"], tuple(row["options"]), row["solution"], row["problem_type"])
                targets = best_targets(row["completions"], choice.targets) if choice.targets else ()
                rate = row["pass_rate"]
                if rate is not None and not 0 <= rate <= 1:
                    raise ValueError(f"pass_rate is {rate}")
                yield str(row["id"]), _Generated(asked, rate, targets)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"dataset.generated={choice.file}, line {number}, is not what stage=generate writes ({error!r}): "
                    "name the generated.jsonl of such a run, and run it again in its folder if the file is damaged"
                ) from error


def _asked(sample: Sample) -> tuple[Any, ...]:
    return (sample.problem, sample.options, sample.solution, sample.problem_type)


def _of_other_questions(file: Path, why: str) -> UserError:
    return UserError(
        f"dataset.generated={file} is of another data set: {why}. Run stage=generate with this run's dataset settings "
        "and seed, and name its generated.jsonl"
    )


def _tell(samples: Sequence[Sample], chosen: Chosen, choice: Choice) -> None:
    before, after = (Counter(sample.question_type for sample in some) for some in (samples, chosen.samples))
    by_type = ", ".join(f"{kind} {after[kind]} of {count}" for kind, count in sorted(before.items()))
    log.info("%d of %d questions to train on: %s", len(chosen.samples), len(samples), by_type)
    if len(chosen.samples) < len(samples):
        log.info("left out by %s: %s", choice.file.name, _left_out(chosen))


def _left_out(chosen: Chosen) -> str:
    why = {
        "outside dataset.pass_rate": chosen.out_of_range,
        "without a right completion that ended": chosen.never_right,
        "not asked": chosen.not_asked,
    }
    return ", ".join(f"{count} {reason}" for reason, count in why.items() if count)
