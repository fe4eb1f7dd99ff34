"""What runs of a benchmark left, question by question, and two of them side by side.

A run's folder holds `per_question.jsonl`, a line a question: {"id", "task", "score": between 0 and 1, "truth": the
right answer, "cluster": what questions share (their video), …}; the last two may be lacking. Where `scores.json` lies
beside it, it names the "benchmark".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.evaluation.intervals import Paired, paired
from spacer.evaluation.metrics import grouped, mean

PER_QUESTION, SCORES = "per_question.jsonl", "scores.json"
OVERALL = "overall"
_NAMED = 5  # faults of a kind that are named; of the others only how many


@dataclass(frozen=True)
class Outcome:
    """How one question went. `truth` and `cluster` are None where the file does not tell them."""

    task: str
    truth: str | None
    score: float
    cluster: str | None


@dataclass(frozen=True)
class Outcomes:
    """A run's folder, the benchmark that it was asked (None where nothing says), and its questions by id."""

    folder: Path
    benchmark: str | None
    questions: Mapping[str, Outcome]


@dataclass(frozen=True)
class Comparison:
    """Run b against run a. Only questions of both count; `only_a` and `only_b` are how many are of one alone.

    `figures` are `overall`, the mean over questions, and `task/NAME`, the mean over a task's. `unclustered` questions
    name no cluster and are taken for one each.
    """

    a: Outcomes
    b: Outcomes
    only_a: int
    only_b: int
    unclustered: int
    figures: Mapping[str, Paired]


def read_outcomes(folder: Path) -> Outcomes:
    """A run's outcomes.

    Raises:
        UserError: a file cannot be read, or lines are not as they should be; the faulty lines are named.
    """
    path = folder / PER_QUESTION
    questions: dict[str, Outcome] = {}
    faults = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key, outcome = _outcome(json.loads(line))
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{number}: is not JSON ({error.msg}): the run may have been cut off here; redo it")
            continue
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
            continue
        if key in questions:
            faults.append(f"{path}:{number}: question {key!r} was there before: each may stand there once")
        questions[key] = outcome
    if not questions and not faults:
        faults.append(f"{path}: holds no questions")
    if faults:
        more = [f"and {len(faults) - _NAMED} more faulty lines in {path}"] if len(faults) > _NAMED else []
        raise UserError("\n".join([*faults[:_NAMED], *more]))
    return Outcomes(folder, _benchmark(folder / SCORES), questions)


def _outcome(row: Any) -> tuple[str, Outcome]:
    """A line's id and outcome. ValueError says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError("must be an object {…}")
    if lacking := [name for name in ("id", "task", "score") if row.get(name) is None]:
        raise ValueError(f"lacks {', '.join(lacking)}")
    score, truth, cluster = row["score"], row.get("truth"), row.get("cluster")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"score is {score!r}, must be a number between 0 and 1")
    told = [None if value is None else str(value) for value in (truth, cluster)]
    return str(row["id"]), Outcome(str(row["task"]), told[0], float(score), told[1])


def _benchmark(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    name = scores.get("benchmark") if isinstance(scores, dict) else None
    return None if name is None else str(name)


def compare_outcomes(a: Outcomes, b: Outcomes, *, resamples: int, seed: int) -> Comparison:
    """Run b against run a, on the questions of both.

    Raises:
        UserError: the runs are of different benchmarks, share no question, or differ on what a question is.
    """
    pair = f"{a.folder} and {b.folder}"
    if a.benchmark and b.benchmark and a.benchmark != b.benchmark:
        raise UserError(
            f"{pair} are of different benchmarks, {a.benchmark} and {b.benchmark}: compare runs of the same"
        )
    both = [(key, one, b.questions[key]) for key, one in a.questions.items() if key in b.questions]
    if not both:
        raise UserError(f"{pair} have no question in common: compare runs of the same benchmark")
    faults = []
    for field in ("truth", "task", "cluster"):
        pairs = [(key, getattr(one, field), getattr(other, field)) for key, one, other in both]
        if differ := [entry for entry in pairs if entry[1] != entry[2] and None not in entry]:
            key, one, other = differ[0]
            faults.append(
                f"{pair}: {field} differs for {len(differ)} questions, such as {key!r}: {one!r} and {other!r}: "
                "they were asked different versions of the benchmark; evaluate both on the same files"
            )
    if faults:
        raise UserError("\n".join(faults))
    clusters = [one.cluster or other.cluster for _, one, other in both]
    # a name that no file can give: its questions' ids are unique, and none begins so
    names = [f"\0{key}" if name is None else name for name, (key, _, _) in zip(clusters, both, strict=True)]
    tasks = grouped([one.task for _, one, _ in both])
    figures = paired(
        [mean(OVERALL, range(len(both))), *(mean(f"task/{task}", of) for task, of in tasks.items())],
        [one.score for _, one, _ in both],
        [other.score for _, _, other in both],
        names,
        resamples=resamples,
        seed=seed,
    )
    return Comparison(a, b, len(a.questions) - len(both), len(b.questions) - len(both), clusters.count(None), figures)


def compare_runs(folders: Sequence[Path], *, resamples: int, seed: int) -> list[Comparison]:
    """Each further run against the first. Raises UserError with everything that is wrong with any of them."""
    read: list[Outcomes] = []
    faults: list[str] = []
    for folder in folders:
        try:
            read.append(read_outcomes(folder))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    found = []
    for other in read[1:]:
        try:
            found.append(compare_outcomes(read[0], other, resamples=resamples, seed=seed))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return found
