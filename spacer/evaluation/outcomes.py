"""The outcomes of runs, question by question, and comparisons of two runs.

A run's folder holds benchmarks (`per_question.jsonl`, one line per question: {"id", "task", "score": between 0 and 1,
"truth": the right answer, "cluster": what questions share, their video, …}; the last two are optional), in itself or in
a folder each, or answers to held-out questions (`predictions/before.jsonl`, `after.jsonl`, `rooms.jsonl` or
`heldout.jsonl`), scored by the answer's reward. If `scores.json` is beside the former, it names the "benchmark" and the
"protocol".
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.statistics.intervals import UNIT, Paired, paired
from spacer.statistics.metrics import grouped, mean

log = logging.getLogger(__name__)
PER_QUESTION, SCORES = "per_question.jsonl", "scores.json"
OVERALL = "overall"
BEFORE, AFTER = "held-out questions, before training", "held-out questions"
_HELD_OUT = {"before": BEFORE, "after": AFTER, "rooms": AFTER, "heldout": AFTER}  # file → subject
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
    """A run's folder, its benchmark and protocol (None if unknown), and its questions by id.

    `subject` is what pairs runs: a benchmark's name, or held-out questions before training or without (`BEFORE`,
    `AFTER`). `protocol` is a name and a digest.
    """

    folder: Path
    benchmark: str | None
    questions: Mapping[str, Outcome]
    protocol: str | None = None

    @property
    def subject(self) -> str:
        """What the questions are."""
        return self.benchmark or "questions"


@dataclass(frozen=True)
class Comparison:
    """Run b, the one at `place` (from 1), compared with run a, on their common questions; `only_a` and `only_b` count
    questions of one run alone.

    `metrics` are `overall`, the mean over questions, and `task/NAME`, the mean over a task. `unclustered` questions
    name no cluster and are each treated as their own.
    """

    a: Outcomes
    b: Outcomes
    only_a: int
    only_b: int
    unclustered: int
    metrics: Mapping[str, Paired]
    place: int = 1


def read_run(folder: Path) -> dict[str, Outcomes]:
    """All outcomes in a run's folder, by subject.

    Raises:
        UserError: there are none, or a file is faulty.
    """
    below = sorted(path.parent for path in folder.glob(f"*/{PER_QUESTION}"))
    places = [folder, *below] if (folder / PER_QUESTION).exists() else below
    found: dict[str, Outcomes] = {}

    def add(outcomes: Outcomes, where: Path) -> None:
        if outcomes.subject in found:
            raise UserError(
                f"{folder} holds several answers to {outcomes.subject}, one of them {where}: is it a folder of several "
                "runs? Name one of them in runs"
            )
        found[outcomes.subject] = outcomes

    for place in places:
        add(read_outcomes(place), place)
    for name, subject in _HELD_OUT.items():
        if (path := folder / "predictions" / f"{name}.jsonl").exists():
            add(Outcomes(folder, subject, _read(path, _heldout_outcome)), path)
    if not found:
        raise UserError(f"{folder} holds neither {PER_QUESTION} nor answers to held-out questions: evaluate that run")
    return found


def read_outcomes(folder: Path) -> Outcomes:
    """Reads a run's outcomes.

    Raises:
        UserError: a file cannot be read, or lines are malformed; they are listed.
    """
    benchmark, protocol = _told(folder / SCORES)
    return Outcomes(folder, benchmark, _read(folder / PER_QUESTION, _outcome), protocol)


def _read(path: Path, outcome_of: Callable[[Any], tuple[str, Outcome]]) -> dict[str, Outcome]:
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
            key, outcome = outcome_of(json.loads(line))
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
    return questions


def _heldout_outcome(row: Any) -> tuple[str, Outcome]:
    """A line of answers to held-out questions. Ids are unique within a data set only, so the question is in the key."""
    if not isinstance(row, dict) or not isinstance(row.get("reward"), dict):
        raise ValueError("must be an answer to a held-out question, with its reward")
    asked = json.dumps([row.get(name) for name in ("question", "solution", "options")])
    identity = f"{row.get('id')}#{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    score = row["reward"].get("answer")
    scored = {
        "id": identity,
        "task": row.get("question_type"),
        "truth": row.get("solution"),
        "cluster": row.get("scene"),
    }
    return _outcome(scored | {"score": score})


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


def _told(path: Path) -> tuple[str | None, str | None]:
    """The benchmark and the protocol, each None if it is not known."""
    if not path.exists():
        return None, None
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(scores, dict):
        return None, None
    name, protocol = scores.get("benchmark"), scores.get("protocol")
    how = f"{protocol.get('name')} {protocol.get('digest')}" if isinstance(protocol, dict) else None
    return None if name is None else str(name), how


def compare_outcomes(
    a: Outcomes, b: Outcomes, *, resamples: int, seed: int, any_protocol: bool = False, place: int = 1
) -> Comparison:
    """Compares run b with run a, on their common questions.

    Raises:
        UserError: the runs are of different benchmarks, were asked by different protocols (unless `any_protocol`),
            share no question, or disagree on a question's fields.
    """
    pair = f"{a.folder} and {b.folder}"
    if a.benchmark and b.benchmark and a.benchmark != b.benchmark:
        raise UserError(
            f"{pair} are of different benchmarks, {a.benchmark} and {b.benchmark}: compare runs of the same"
        )
    if a.protocol and b.protocol and a.protocol != b.protocol and not any_protocol:
        raise UserError(
            f"{pair} were asked {a.subject} by different protocols, {a.protocol} and {b.protocol}, by which scores of "
            "one model differ too: evaluate both by the same, or compare them all the same with stage.any_protocol=true"
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
        scale=UNIT,
        resamples=resamples,
        seed=seed,
    )
    return Comparison(
        a, b, len(a.questions) - len(both), len(b.questions) - len(both), clusters.count(None), metrics, place
    )


def compare_runs(folders: Sequence[Path], *, resamples: int, seed: int, any_protocol: bool = False) -> list[Comparison]:
    """Compares each further run with the first, in each subject that both have. Raises UserError listing the faults of
    all runs."""
    read: list[dict[str, Outcomes]] = []
    faults: list[str] = []
    for folder in folders:
        try:
            read.append(read_run(folder))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    found = []
    first, how = read[0], {"resamples": resamples, "seed": seed}
    for place, other in enumerate(read[1:], 1):
        if alone := [*(f"{folders[0]}: {one}" for one in first if one not in other)]:
            log.warning("not compared, since only one of the runs has it: %s", ", ".join(alone))
        pairs = [(first[subject], other[subject]) for subject in first if subject in other]
        for a, b in pairs or [(next(iter(first.values())), next(iter(other.values())))]:
            try:
                found.append(compare_outcomes(a, b, any_protocol=any_protocol, place=place, **how))
            except UserError as error:
                faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return sorted(found, key=lambda one: list(first).index(one.a.subject))
