"""Settings of how questions are asked, held-out ones and those of benchmarks."""

from __future__ import annotations

from dataclasses import field

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from spacer.config import choices
from spacer.config.settings.data import Pixels, VideoSettings, Workers
from spacer.config.settings.section import CONFIG, PositiveShare, Section, Share


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class AskingSettings(Section):
    """How questions are asked: how many, how answers are decoded, and the batch size."""

    limit: PositiveInt | None = None  # asks only the first `limit` questions; null: all
    temperature: NonNegativeFloat = 0.0  # 0 is greedy
    top_p: PositiveShare = 1.0  # nucleus sampling; 1: all tokens
    max_new_tokens: PositiveInt = 1024  # per answer
    batch_size: PositiveInt = 64  # maximum questions per batch …
    batch_tokens: PositiveInt = 65_536  # … and maximum tokens, of prompts and answers, counting a shared video once


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EvaluationSettings(AskingSettings):
    """How held-out questions are asked, and how the intervals of all scores are computed."""

    temperature: NonNegativeFloat = 1.0  # as in training, so that evaluation measures what training improves
    top_p: PositiveShare = 0.95
    resamples: PositiveInt = 10_000  # bootstrap resamples
    # asked besides the questions, after training and by stage=evaluate; null: as `spacer.config.derived.controls_of`
    controls: tuple[choices.Control, ...] | None = None
    every_n_steps: NonNegativeInt = 0  # optimizer steps between evaluations during training, step 0 included; 0: none
    subset: PositiveInt | None = 64  # of these: held-out questions, evenly spread; null: all
    metric: str = "reward/total"  # of these: what the best checkpoint and early stopping go by
    keep_best: bool = True  # of these: keeps the best checkpoint, checkpoints/best.ckpt, beside the last
    patience: PositiveInt | None = None  # of these: stops training after so many without an improvement; null: never


@dataclass(frozen=True, config=CONFIG)
class BenchmarkSettings(AskingSettings):
    """A benchmark's files, the selection of its questions, and how they are asked."""

    name: str
    protocol: str = "spacer"  # the preset of all that follows from `video` on, by name
    root: str | None = None  # the benchmark's files, as distributed
    tasks: tuple[str, ...] | None = None  # tasks to ask; null: all
    video: VideoSettings = field(default_factory=lambda: VideoSettings(32, 1.0, 448 * 448, 448))
    image_max_pixels: Pixels = 448 * 448  # per image; larger ones are scaled down
    max_prompt_length: PositiveInt = 16_384  # in tokens; longer prompts lose video frames
    subtitles: choices.Subtitles = choices.Subtitles.none
    prompts: dict[str, str] = field(default_factory=dict)
    workers: Workers = 2  # decoding processes
    max_missing: Share = 0.02  # share of missing videos above which the run stops
    samples: PositiveInt = 1  # answers per question; the most common one counts
