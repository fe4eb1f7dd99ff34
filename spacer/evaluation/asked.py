"""A benchmark's questions → samples to be asked like any others, and the lines that their answers become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Kind, Question
from spacer.benchmarks.subtitles import subtitles
from spacer.choices import OnBad, Subtitles, TooLong
from spacer.data.captions import Caption
from spacer.data.samples import Fault, Sample
from spacer.errors import UserError
from spacer.evaluation.predict import Answer, Row
from spacer.rewards.maps import map_text
from spacer.settings import BenchmarkSettings, DatasetSettings

PROBLEM_TYPES = {Kind.choice: "multiple choice", Kind.number: "numerical", Kind.text: "free-form"}
Subtitled = Callable[[Path, float], tuple[Caption, ...]]  # as `spacer.benchmarks.subtitles.subtitles`
_SHOWN = 10  # missing files that an error lists before it only counts


def as_samples(questions: Sequence[Question], settings: BenchmarkSettings) -> tuple[Sample, ...]:
    """Samples in the order of the questions, those with subtitles where `settings` wants them and they are there."""
    read = cache(subtitles)  # a file serves all questions about its video
    return tuple(
        Sample(
            id=question.id,
            problem=_said_before(question, settings, read) + question.text,
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
            captions=_captions(question, read) if settings.subtitles == Subtitles.between else (),
        )
        for question in questions
    )


def _said_before(question: Question, settings: BenchmarkSettings, read: Subtitled) -> str:
    if settings.subtitles != Subtitles.before or question.subtitles is None:
        return ""
    return "Subtitles of the video:\n" + "\n".join(caption.text for caption in _captions(question, read)) + "\n\n"


def _captions(question: Question, read: Subtitled) -> tuple[Caption, ...]:
    return () if question.subtitles is None else read(question.subtitles, question.subtitles_from)


def media_settings(settings: BenchmarkSettings) -> DatasetSettings:
    """How the benchmark's media and prompts are processed. A video too long for the prompt loses frames, not tokens."""
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
    """The videos that are missing, as faults; their questions count as wrong.

    Raises:
        UserError: they are more than the share `settings.max_missing` of the videos.
    """
    videos = {question.video for question in questions if question.video is not None}
    missing = sorted(str(path) for path in videos if not path.is_file())
    if missing and len(missing) > settings.max_missing * len(videos):
        listed = "\n".join(f"  {path}" for path in missing[:_SHOWN])
        more = f"\n  … and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"{len(missing)} of {len(videos)} videos of {settings.name} are missing, more than "
            f"benchmark.max_missing={settings.max_missing} of them\n{listed}{more}\n"
            "Fetch them, or raise benchmark.max_missing: their questions count as wrong."
        )
    return [Fault(path, "missing file", "its questions count as wrong") for path in missing]


def answered_row(item: Sample, answer: Answer, by_id: Mapping[str, Question], name: str) -> Row:
    """The line of a question that was answered: the prediction that is scored, and what there is to look at.

    Of several answers the commonest by what is read from it is scored, of equally common ones the first.
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
    """Which of the completions gives the commonest answer; those of which none can be read have no vote."""
    if len(texts) == 1:
        return 0
    read = [benchmark(name).grade(question, text).answer for text in texts]
    counts = Counter(answer for answer in read if answer is not None)
    if not counts:
        return 0
    most = max(counts.values())
    return next(i for i, answer in enumerate(read) if answer is not None and counts[answer] == most)


def failed_row(item: Sample, fault: Fault) -> Row:
    """The line of a question that could not be asked, which is wrong, with the reason."""
    nothing = {"prediction": "", "completion_tokens": 0, "thinking": None, "map": None}
    return _row(item) | nothing | {"error": f"{fault.kind}: {fault.detail}"}


def _row(item: Sample) -> Row:
    return {"id": item.id, "task": item.question_type, "question": item.problem, "options": list(item.options)}
