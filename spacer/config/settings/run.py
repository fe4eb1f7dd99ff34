"""All settings of a run."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from spacer.config.settings.asking import BenchmarkSettings, EvaluationSettings
from spacer.config.settings.data import Dataset
from spacer.config.settings.machine import Cluster, LoggerSettings, ReportSettings
from spacer.config.settings.model import ModelSettings
from spacer.config.settings.section import CONFIG, Section
from spacer.config.settings.stages import Stage
from spacer.config.settings.training import ObjectiveSettings, RewardSettings, TrainerSettings


@dataclass(frozen=True, config=CONFIG)
class Settings(Section):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    model: ModelSettings
    dataset: Dataset
    reward: RewardSettings
    objective: ObjectiveSettings
    evaluation: EvaluationSettings
    cluster: Cluster
    trainer: TrainerSettings
    logger: LoggerSettings
    report: ReportSettings
    stage: Stage
    output_dir: str
    ckpt_path: str | None = None
    overwrite: bool = False  # start over in a folder that holds a run, removing everything that the run wrote
    benchmark: BenchmarkSettings | None = None  # for stage=evaluate and stage=score
    benchmarks: dict[str, BenchmarkSettings] = field(default_factory=dict)  # benchmark=all: those with a root
    predictions: str | None = None  # for stage=score: JSON lines of {"id", "prediction"}
    run: str | None = None  # for stage=evaluate: a run's folder, whose model, data, prompts and rewards are taken
    runs: tuple[str, ...] = ()  # run folders, to be compared, reported or described in a model card
