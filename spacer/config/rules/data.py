"""Rules about data sets, benchmarks and how they are asked."""

from __future__ import annotations

from os.path import expanduser, isfile  # unlike Path, never raise: unreadable counts as absent

from spacer.config.choices import Control
from spacer.config.derived import (
    evaluates_heldout,
    holds_out,
    imitated,
    names_benchmarks,
    sections,
    trains,
)
from spacer.config.rules.rule import Rule
from spacer.config.settings import (
    MixSettings,
    RenderedSettings,
    Settings,
    VideoSettings,
)


def _videos(s: Settings) -> list[VideoSettings]:
    """The video settings of a run's data sets and benchmarks."""
    asked = [*s.benchmarks.values(), *([] if s.benchmark is None else [s.benchmark])]
    return [part.video for _, part in sections(s)] + [benchmark.video for benchmark in asked]


def prior_of_a_benchmark(s: Settings) -> str | None:
    if s.stage.name == "evaluate" and Control.prior in (s.evaluation.controls or ()) and names_benchmarks(s):
        return (
            "evaluation.controls: prior answers with constants of a training split, which a benchmark does not have: "
            "leave prior out"
        )
    return None


def controls_named_twice(s: Settings) -> str | None:
    named = s.evaluation.controls or ()
    if len(set(named)) < len(named):
        return "evaluation.controls names a control more than once: name each once"
    return None


def frames_of_videos(s: Settings) -> str | None:
    if any(video.min_frames > video.max_frames > 1 for video in _videos(s)):
        return (
            "video.min_frames exceeds video.max_frames, in dataset or benchmark: lower the former, or raise the latter"
        )
    return None


def pixels_of_videos(s: Settings) -> str | None:
    if any((video.min_pixels or 0) > video.max_pixels for video in _videos(s)):
        return (
            "video.min_pixels exceeds video.max_pixels, in dataset or benchmark: lower the former, to null for no "
            "bound, or raise the latter"
        )
    return None


def shares_of_a_mix(s: Settings) -> str | None:
    if isinstance(s.dataset, MixSettings) and (not s.dataset.parts or set(s.dataset.parts) != set(s.dataset.weights)):
        return (
            "dataset.parts and dataset.weights must name the same data sets, at least one: "
            "give each part its share of an epoch"
        )
    return None


def loading_of_a_mix(s: Settings) -> str | None:
    if any(
        (part.workers, part.questions_per_video) != (s.dataset.workers, s.dataset.questions_per_video)
        for _, part in sections(s)
    ):
        return (
            "dataset.parts: workers and questions_per_video are those of the whole mix: set dataset.workers and "
            "dataset.questions_per_video"
        )
    return None


def fresh_model_needs_rooms(s: Settings) -> str | None:
    if s.model.fresh and not isinstance(s.dataset, RenderedSettings):
        return "model.fresh makes a tokenizer from the questions of dataset=rooms: choose that"
    return None


def evaluation_without_heldout(s: Settings) -> str | None:
    if True in evaluates_heldout(s) and not holds_out(s):
        return (
            "the data holds no questions out to evaluate on: set stage.evaluate_before=false "
            "stage.evaluate_after=false, or dataset.heldout to a JSONL file of them"
        )
    return None


def _chooses(s: Settings) -> bool:
    """Whether the stage chooses among the training questions."""
    return trains(s) or s.stage.name == "generate"


def generated_is_a_file(s: Settings) -> str | None:
    if _chooses(s) and s.dataset.generated is not None and not isfile(expanduser(s.dataset.generated)):
        return (
            f"dataset.generated={s.dataset.generated} is not an existing file: set it to RUN/generated.jsonl, which "
            "stage=generate writes when all questions are asked"
        )
    return None


def generated_of_the_whole(s: Settings) -> str | None:
    if isinstance(s.dataset, MixSettings) and any(
        part.generated is not None or part.pass_rate is not None for part in s.dataset.parts.values()
    ):
        return (
            "dataset.parts: generated and pass_rate are of the whole mix, of which stage=generate writes a file: set "
            "dataset.generated and dataset.pass_rate"
        )
    return None


def generated_is_of_use(s: Settings) -> str | None:
    if s.dataset.pass_rate is not None and s.dataset.generated is None:
        return (
            f"dataset.pass_rate={list(s.dataset.pass_rate)} is of completions, and none are named: set "
            "dataset.generated=RUN/generated.jsonl, which stage=generate writes"
        )
    if s.dataset.generated is not None and s.stage.name in ("prepare", "curate"):
        return (
            f"dataset.generated={s.dataset.generated} chooses questions to train on, and stage.name={s.stage.name} "
            "makes them: leave it out"
        )
    if s.dataset.generated is not None and s.dataset.pass_rate is None and _chooses(s) and not imitated(s):
        return (
            f"dataset.generated={s.dataset.generated} changes nothing by itself: set dataset.pass_rate=[0.1,0.9], or "
            "stage=sft stage.targets=generated, or leave it out"
        )
    return None


def pass_rate_is_a_range(s: Settings) -> str | None:
    if s.dataset.pass_rate is not None and s.dataset.pass_rate[0] > s.dataset.pass_rate[1]:
        return f"dataset.pass_rate={list(s.dataset.pass_rate)} is no range: put the lower end first"
    return None


RULES: tuple[Rule, ...] = (
    prior_of_a_benchmark,
    controls_named_twice,
    frames_of_videos,
    pixels_of_videos,
    shares_of_a_mix,
    loading_of_a_mix,
    fresh_model_needs_rooms,
    evaluation_without_heldout,
    generated_is_a_file,
    generated_of_the_whole,
    generated_is_of_use,
    pass_rate_is_a_range,
)
