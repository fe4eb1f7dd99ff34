"""The outcomes of benchmark runs, question by question, and comparisons of two runs.

A run's folder holds `per_question.jsonl`, one line per question: {"id", "task", "score": between 0 and 1, "truth": the
right answer, "cluster": what questions share (their video), …}; the last two are optional. If `scores.json` is
beside it, it names the "benchmark".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.statistics.intervals import Paired, paired
from spacer.statistics.metrics import grouped, mean

PER_QUESTION, SCORES = "per_question.jsonl", "scores.json"
OVERALL = "overall"
_NAMED = 5  # faults of a kind that are listed; the rest is counted


@dataclass(frozen=True)
class Outcome:
    """The outcome of one question. `truth` and `cluster` are None where the file lacks them."""

    task: str
    truth: str | None
    score: float
    cluster: str | None


@dataclass(frozen=True)
class Outcomes:
    """A run's folder, its benchmark (None if unknown), and its questions by id."""

    folder: Path
    benchmark: str | None
    questions: Mapping[str, Outcome]


@dataclass(frozen=True)
class Comparison:
    """Run b compared with run a, on their common questions; `only_a` and `only_b` count questions of one run alone.

    `metrics` are `overall`, the mean over questions, and `task/NAME`, the mean over a task. `unclustered` questions
    name no cluster and are each treated as their own.
    """

    a: Outcomes
    b: Outcomes
    only_a: int
    only_b: int
    unclustered: int
    metrics: Mapping[str, Paired]


def read_outcomes(folder: Path) -> Outcomes:
    """Reads a run's outcomes.

    Raises:
        UserError: a file cannot be read, or lines are malformed; they are listed.
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
    """A line's id and outcome. Raises ValueError with the fault."""
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
    """Compares run b with run a, on their common questions.

    Raises:
        UserError: the runs are of different benchmarks, share no question, or disagree on a question's fields.
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
    # a name that no file can contain: its questions' ids are unique, and none begins like this
    names = [f"\0{key}" if name is None else name for name, (key, _, _) in zip(clusters, both, strict=True)]
    tasks = grouped([one.task for _, one, _ in both])
    metrics = paired(
        [mean(OVERALL, range(len(both))), *(mean(f"task/{task}", of) for task, of in tasks.items())],
        [one.score for _, one, _ in both],
        [other.score for _, _, other in both],
        names,
        resamples=resamples,
        seed=seed,
    )
    return Comparison(a, b, len(a.questions) - len(both), len(b.questions) - len(both), clusters.count(None), metrics)


def compare_runs(folders: Sequence[Path], *, resamples: int, seed: int) -> list[Comparison]:
    """Compares each further run with the first. Raises UserError listing the faults of all runs."""
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
