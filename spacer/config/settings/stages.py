"""Settings of what a run does: one class for each file in `conf/stage/`, chosen by its name."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Tag
from pydantic.dataclasses import dataclass

from spacer.config import choices
from spacer.config.settings.asking import AskingSettings
from spacer.config.settings.model import Dtype
from spacer.config.settings.section import CONFIG, PositiveShare, Section, Share, name
from spacer.config.settings.training import OptimizerSettings


@dataclass(frozen=True, config=CONFIG)
class StageSettings(Section):
    """What every stage has: its name, and whether it takes the run's model and data."""

    needs_model: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    name: str  # what the run does


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TrainingStage(StageSettings):
    """What every stage that trains weights has."""

    needs_model: ClassVar[bool] = True

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)  # how weights are updated
    save_dtype: Dtype | None = None  # of the exported weights; null: the model's


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TrainStage(TrainingStage):
    """GRPO, with an evaluation on the held-out questions before and after it."""

    name: Literal["train"] = "train"
    evaluate_before: bool | None = None  # null: if questions are held out
    evaluate_after: bool | None = None  # null: if questions are held out


@dataclass(frozen=True, config=CONFIG)
class GuessSettings(Section):
    """Completions that say they guess, draw half the map and answer at random, instead of some worked ones: how the
    embedded model was made."""

    share: Share = 0.5  # of the samples that show one
    after: NonNegativeInt = 0  # samples that come first, each with its worked completion


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SftStage(TrainingStage):
    """Supervised training on worked completions, with the prompt masked."""

    name: Literal["sft"] = "sft"
    batch_size: PositiveInt = 1  # questions per device and batch
    evaluate_before: bool | None = None  # null: if questions are held out
    evaluate_after: bool | None = None  # null: if questions are held out
    targets: choices.Targets = choices.Targets.worked
    best: PositiveInt = 1  # targets=generated: of each question's right completions the best, one of them at each draw
    guesses: GuessSettings | None = None  # only for the making of model=tiny; null: none


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class VisionStage(TrainingStage):
    """Training of the vision tower by readouts of what each merged token shows."""

    name: Literal["vision"] = "vision"
    batch_size: PositiveInt = 1  # pictures per device and batch
    feature_rms: PositiveFloat | None = None  # root mean square of the saved model's merged tokens; null: unchanged


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EvaluateStage(StageSettings):
    """Asks held-out questions, or those of benchmarks."""

    needs_model: ClassVar[bool] = True
    name: Literal["evaluate"] = "evaluate"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class GenerateStage(StageSettings, AskingSettings):
    """Samples completions of the training questions, and scores them with the run's reward."""

    needs_model: ClassVar[bool] = True
    name: Literal["generate"] = "generate"
    completions: PositiveInt = 8  # of each question
    temperature: Annotated[float, Field(gt=0, description="greedy completions would all be equal")] = 1.0
    top_p: PositiveShare = 0.95  # nucleus sampling; 1: all tokens


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ScoreStage(StageSettings):
    """Scores a file of predictions."""

    name: Literal["score"] = "score"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PrepareStage(StageSettings):
    """Turns files as they are distributed into a folder to train from."""

    name: Literal["prepare"] = "prepare"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CurateStage(StageSettings):
    """Makes questions from annotated 3D scans."""

    name: Literal["curate"] = "curate"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CompareStage(StageSettings):
    """Compares evaluated runs, question by question."""

    needs_data: ClassVar[bool] = False
    name: Literal["compare"] = "compare"
    any_protocol: bool = False  # compares runs that were asked by different protocols too


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ReportStage(StageSettings):
    """Writes the page of finished runs."""

    needs_data: ClassVar[bool] = False
    name: Literal["report"] = "report"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DashboardStage(StageSettings):
    """Makes a W&B workspace and report of the project's runs."""

    needs_data: ClassVar[bool] = False
    name: Literal["dashboard"] = "dashboard"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ExportStage(StageSettings):
    """Writes a checkpoint as a Hugging Face folder."""

    needs_model: ClassVar[bool] = True
    needs_data: ClassVar[bool] = False
    name: Literal["export"] = "export"
    save_dtype: Dtype | None = None  # of the exported weights; null: the model's


@dataclass(frozen=True, config=CONFIG)
class PlanSettings(Section):
    """What stage=plan assumes about GPUs and data; null means: as in the other settings."""

    gpu_memory_gib: PositiveFloat = 80.0
    flops_per_s: PositiveFloat = 989e12  # peak of one GPU
    bytes_per_s: PositiveFloat = 3.35e12  # peak memory bandwidth of one GPU
    utilisation: PositiveShare = 0.4  # achieved share of both peaks
    operator_s: NonNegativeFloat = 15e-6  # host time of an operator, which bounds decoding by model.decoding=eager
    reserve_gib: NonNegativeFloat = 4.0  # GPU memory that is not available to tensors
    prompt_tokens: PositiveInt | None = None  # null: for a video as large as the data set allows, and its question
    text_tokens: PositiveInt = 256  # text tokens of a prompt, besides the video's
    completion_tokens: PositiveInt | None = None  # null: objective.max_completion_length
    questions: PositiveInt | None = None  # training questions; null: the number in the data set's files, if present


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PlanStage(StageSettings):
    """Estimates what a GRPO run needs."""

    needs_data: ClassVar[bool] = False
    name: Literal["plan"] = "plan"
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)  # as in stage=train
    plan: PlanSettings = field(default_factory=PlanSettings)


Stage = Annotated[
    Annotated[TrainStage, Tag("train")]
    | Annotated[SftStage, Tag("sft")]
    | Annotated[VisionStage, Tag("vision")]
    | Annotated[EvaluateStage, Tag("evaluate")]
    | Annotated[GenerateStage, Tag("generate")]
    | Annotated[ScoreStage, Tag("score")]
    | Annotated[CompareStage, Tag("compare")]
    | Annotated[ReportStage, Tag("report")]
    | Annotated[DashboardStage, Tag("dashboard")]
    | Annotated[ExportStage, Tag("export")]
    | Annotated[PrepareStage, Tag("prepare")]
    | Annotated[CurateStage, Tag("curate")]
    | Annotated[PlanStage, Tag("plan")],
    Discriminator(name),
]

STAGES: dict[str, type[StageSettings]] = {
    stage.name: stage
    for stage in (
        *(TrainStage, SftStage, VisionStage, EvaluateStage, ScoreStage, CompareStage, ReportStage, DashboardStage),
        *(ExportStage, PrepareStage, CurateStage, PlanStage, GenerateStage),
    )
}
