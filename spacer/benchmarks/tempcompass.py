"""TempCompass (Liu et al., arXiv 2403.00476): five dimensions of temporal perception, asked in four formats.

Multiple choice, yes/no and caption matching are scored by rule, as in the authors' code without its judge model
(github.com/llyx97/TempCompass); captioning needs that model and is not scored. Metrics are accuracies over questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, json_file
from spacer.benchmarks.metrics import by_group, by_task, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.rewards.options import read_choice, read_yes_no
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric

SECOND = "spacer_eval"
NOTE = "The format captioning is not scored: it needs a judge model."
FORMATS = ("multi-choice", "yes_no", "caption_matching")
DIMENSIONS = ("action", "speed", "direction", "order", "attribute_change")
_OPTION = re.compile(r"\s*([A-D])\.\s*(\S.*)")  # a few options in the files have no space there, or one in front
_LINE = re.compile(r"((?:Option|Sentence|Caption) [AB12]):\s*(\S.*)")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `questions/{format}.json`, about `videos/{video_id}.mp4`. An id is
    `{format}/{video_id}/{dimension}/{n}`, n from 0 in the order of the file."""
    faults: list[Fault] = []
    media = Media(root)
    asked: list[tuple[BenchmarkRow, Question]] = []
    for format in FORMATS:
        content = json_file(root, f"questions/{format}.json", dict, faults)
        asked += [(row, _question(row, media, format, *at)) for row, at in _rows(content, format)]
    return unique(asked, faults), faults


def _rows(content: Mapping[str, Any], format: str) -> Iterator[tuple[BenchmarkRow, tuple[str, str, str]]]:
    """Yields rows with their video, dimension and number. An entry that holds no questions counts as one faulty row."""
    file = f"questions/{format}.json"
    for video, by_dimension in content.items():
        if not isinstance(by_dimension, dict):
            yield BenchmarkRow(file, 0, by_dimension, f"{video!r}, "), (video, "", "0")
            continue
        for dimension, entries in by_dimension.items():
            for n, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                row = BenchmarkRow(file, n, entry, f"{video!r}, {dimension}, ")
                if dimension not in DIMENSIONS:
                    row.fail(dimension, f"must be one of {', '.join(DIMENSIONS)}")
                yield row, (video, dimension if dimension in DIMENSIONS else "", str(n))


def _question(row: BenchmarkRow, media: Media, format: str, video: str, dimension: str, n: str) -> Question:
    text, *lines = row.text("question").split("\n")
    truth = row.text("answer")
    options: tuple[str, ...] = ()
    if format == "multi-choice":
        options = _parsed(row, lines, _OPTION, "{}. {}")
        truth = row.letter("answer", options)
    elif format == "caption_matching":
        options = _parsed(row, lines, _LINE, "{}: {}")
        if truth and truth not in options:
            row.fail("answer", f"is {truth!r}, not one of the lines of the question")
    else:
        truth = row.one_of("answer", ("yes", "no"))
        text = "\n".join([text, *lines])
    return Question(
        id=f"{format}/{video}/{dimension}/{n}",
        task=dimension,
        kind=Kind.choice if format == "multi-choice" else Kind.text,
        text=text,
        options=options,
        truth=truth,
        cluster=video,
        video=row.media("question", media.video(("videos", "video"), video)),
        groups={"format": format, "dimension": dimension},
    )


def _parsed(row: BenchmarkRow, lines: Sequence[str], form: re.Pattern[str], template: str) -> tuple[str, ...]:
    found = [form.fullmatch(line.rstrip()) for line in lines]
    if len(found) < 2 or not all(found):
        row.fail("question", f"must be followed by two or more lines of options, not {list(lines)!r}")
        return ()
    return tuple(template.format(*match.groups()) for match in found if match)


def grade(question: Question, text: str) -> Grade:
    """Whether the answer is right, by the rule for the question's format."""
    said, given = final_text(text), release.answer(text)
    true = truth = question.truth
    if question.kind is Kind.choice:
        answer = read_choice(said, question.options)
        true = question.options[answers.letters(question.options).index(truth)]
    elif question.options:
        answer = answers.labelled_line(said, question.options)
        truth = truth.partition(":")[0]
    else:
        answer = read_yes_no(said)
    return Grade(answer, float(answer == truth), float(release.tempcompass_choice(given, true)))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all scored questions, by dimension (the task, here) and by format."""
    dimensions = by_group(questions, "dimension", DIMENSIONS)
    return [micro(questions), *by_group(questions, "format", FORMATS), *dimensions, *by_task(questions, DIMENSIONS)]


def released(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions: the release has no other metric. It reads answers of any format as a choice."""
    return [micro(questions)]
