"""Turns a benchmark's questions into samples, and their answers into rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Kind, Question
from spacer.benchmarks.subtitles import subtitles
from spacer.config.choices import Control, OnBad, Subtitles, TooLong
from spacer.config.settings import BenchmarkSettings, DatasetSettings
from spacer.data.captions import Caption
from spacer.data.controls import with_other_media
from spacer.data.samples import Fault, Sample
from spacer.errors import UserError
from spacer.evaluation.kept import Answer, Row
from spacer.rewards.maps import map_text

PROBLEM_TYPES = {Kind.choice: "multiple choice", Kind.number: "numerical", Kind.text: "free-form"}
Subtitled = Callable[[Path, float], tuple[Caption, ...]]  # the signature of `spacer.benchmarks.subtitles.subtitles`
_UNANSWERED: Row = {"prediction": "", "completion_tokens": 0, "thinking": None, "map": None}
_SHOWN = 10  # missing files that an error lists; the rest is counted


def as_samples(questions: Sequence[Question], settings: BenchmarkSettings) -> tuple[Sample, ...]:
    """Samples in the order of the questions, with subtitles where `settings` asks for them and they exist."""
    read = cache(subtitles)  # one file serves all questions about its video
    return tuple(
        Sample(
            id=question.id,
            problem=question.text,
            problem_type=PROBLEM_TYPES[question.kind],
            options=question.options,
            solution=question.truth,
            data_type="image" if question.video is None else "video",
            path=question.video or Path(question.id),
            source=settings.name,
            scene=question.cluster,
            question_type=question.task,
            reasoning=None,
            true_map=None,
            images=question.images,
            captions=() if settings.subtitles == Subtitles.none else _captions(question, read),
            captioned=settings.subtitles,
        )
        for question in questions
    )


def _captions(question: Question, read: Subtitled) -> tuple[Caption, ...]:
    return () if question.subtitles is None else read(question.subtitles, question.subtitles_from)


def media_settings(settings: BenchmarkSettings) -> DatasetSettings:
    """How the benchmark's media and prompts are processed. A prompt that is too long loses video frames, not tokens."""
    return DatasetSettings(
        video=settings.video,
        image_max_pixels=settings.image_max_pixels,
        max_prompt_length=settings.max_prompt_length,
        too_long=TooLong.thin,
        prompts=settings.prompts,
        workers=settings.workers,
        on_bad=OnBad.skip,
    )


def check_media(questions: Sequence[Question], settings: BenchmarkSettings) -> list[Fault]:
    """The missing videos and images, as faults; their questions count as wrong.

    Raises:
        UserError: their share of the files exceeds `settings.max_missing`, or the truths are for another number of
            frames than is shown.
    """
    for question in questions:
        shown = (settings.video.min_frames, settings.video.max_frames)
        if question.frames is not None and shown != (question.frames, question.frames):
            raise UserError(
                f"benchmark.video.max_frames={shown[1]}: the truths in {settings.root} are for {question.frames}: "
                f"set benchmark.video.max_frames={question.frames} benchmark.video.min_frames={question.frames}, or "
                f"take the files for {shown[1]}"
            )
    files = {file for question in questions if question.fault is None for file in question.files}
    missing = sorted(str(path) for path in files if not path.is_file())
    if missing and len(missing) > settings.max_missing * len(files):
        kind = "videos" if all(question.video for question in questions) else "files"
        listed = "\n".join(f"  {path}" for path in missing[:_SHOWN])
        more = f"\n  … and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"{len(missing)} of {len(files)} {kind} of {settings.name} are missing, more than "
            f"benchmark.max_missing={settings.max_missing} of them\n{listed}{more}\n"
            "Fetch them, or raise benchmark.max_missing: their questions count as wrong."
        )
    return [Fault(path, "missing file", "its questions count as wrong") for path in missing]


def check_controls(questions: Sequence[Question], settings: BenchmarkSettings, controls: Sequence[Control]) -> None:
    """Raises UserError, before anything is asked, where a control has no other media for a question."""
    if Control.other_video in controls:
        with_other_media(as_samples([question for question in questions if question.fault is None], settings))


def answered_row(item: Sample, answer: Answer, by_id: Mapping[str, Question], name: str) -> Row:
    """The row of an answered question: the prediction that is scored, and fields for inspection.

    Of several answers, the majority vote over the extracted answers is scored; of a tie, the first.
    """
    question = by_id[item.id]
    chosen = vote(question, answer.texts, name)
    text = answer.texts[chosen]
    thought = text.partition("<think>")[2].partition("</think>")[0].strip()
    row = _row(item) | {
        "prediction": text,
        "completion_tokens": answer.lengths[chosen],
        "thinking": thought or None,
        "map": map_text(text),
    }
    return row if len(answer.texts) == 1 else row | {"samples": list(answer.texts)}


def vote(question: Question, texts: Sequence[str], name: str) -> int:
    """The index of the completion with the most common extracted answer; unreadable completions do not vote."""
    if len(texts) == 1:
        return 0
    read = [benchmark(name).grade(question, text).answer for text in texts]
    counts = Counter(answer for answer in read if answer is not None)
    if not counts:
        return 0
    most = max(counts.values())
    return next(i for i, answer in enumerate(read) if answer is not None and counts[answer] == most)


def failed_row(item: Sample, fault: Fault) -> Row:
    """The row of a question that could not be asked: wrong, with the reason."""
    return _row(item) | _UNANSWERED | {"error": f"{fault.kind}: {fault.detail}"}


def malformed_row(question: Question) -> Row:
    """The row of a question that is malformed in the benchmark's file: wrong, with the reason."""
    asked = {"id": question.id, "task": question.task, "question": question.text, "options": list(question.options)}
    return asked | _UNANSWERED | {"error": f"malformed row: {question.fault}"}


def _row(item: Sample) -> Row:
    return {"id": item.id, "task": item.question_type, "question": item.problem, "options": list(item.options)}
