"""All settings, as typed dataclasses that pydantic checks: one for each section of the files in `conf/`.

This package imports nothing heavy, so that configurations are checked before torch is loaded. Defaults here are the
published ones (SpaceR, arXiv 2504.01805); the YAML files state every value that a run uses.
"""

from spacer.config.settings.asking import AskingSettings, BenchmarkSettings, EvaluationSettings
from spacer.config.settings.data import (
    ArchivedSettings,
    DatasetSettings,
    JsonlSettings,
    LayoutsSettings,
    LoadingSettings,
    MixSettings,
    RenderedSettings,
    RoomsSettings,
    ScansSettings,
    StillsSettings,
    VideoSettings,
)
from spacer.config.settings.machine import ClusterSettings, LoggerSettings, ReportSettings, SlurmSettings
from spacer.config.settings.model import CompletionSettings, EndpointSettings, LoraSettings, ModelSettings
from spacer.config.settings.run import Settings
from spacer.config.settings.stages import (
    CompareStage,
    CurateStage,
    DashboardStage,
    EvaluateStage,
    ExportStage,
    GuessSettings,
    PlanSettings,
    PlanStage,
    PrepareStage,
    ReportStage,
    ScoreStage,
    SftStage,
    StageSettings,
    TrainingStage,
    TrainStage,
    VisionStage,
)
from spacer.config.settings.training import (
    LengthBonusSettings,
    ObjectiveSettings,
    OptimizerSettings,
    RewardFunctionSettings,
    RewardSettings,
    TemporalBonusSettings,
    TrainerSettings,
)

__all__ = [
    "ArchivedSettings",
    "AskingSettings",
    "BenchmarkSettings",
    "ClusterSettings",
    "CompareStage",
    "CompletionSettings",
    "CurateStage",
    "DashboardStage",
    "DatasetSettings",
    "EndpointSettings",
    "EvaluateStage",
    "EvaluationSettings",
    "ExportStage",
    "GuessSettings",
    "JsonlSettings",
    "LayoutsSettings",
    "LengthBonusSettings",
    "LoadingSettings",
    "LoggerSettings",
    "LoraSettings",
    "MixSettings",
    "ModelSettings",
    "ObjectiveSettings",
    "OptimizerSettings",
    "PlanSettings",
    "PlanStage",
    "PrepareStage",
    "RenderedSettings",
    "ReportSettings",
    "ReportStage",
    "RewardFunctionSettings",
    "RewardSettings",
    "RoomsSettings",
    "ScansSettings",
    "ScoreStage",
    "Settings",
    "SftStage",
    "SlurmSettings",
    "StageSettings",
    "StillsSettings",
    "TemporalBonusSettings",
    "TrainStage",
    "TrainerSettings",
    "TrainingStage",
    "VideoSettings",
    "VisionStage",
]
