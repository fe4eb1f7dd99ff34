"""Trains the vision tower on what merged tokens show."""

from __future__ import annotations

from pathlib import Path

from spacer.config.settings import StillsSettings, VisionStage
from spacer.data.scenes import stills
from spacer.data.scenes.views import View
from spacer.models.forward import ComputeOptions
from spacer.stages.running import Run
from spacer.stages.summary import mean_reward, report_training
from spacer.training.readout import VisionModule


def vision(run: Run) -> float:
    """Trains the vision tower and its merger through read-outs of what pictures show. Asks nothing, so returns NaN."""
    assert isinstance(run.compute, ComputeOptions)  # ensured by `spacer.models.computation`
    settings, stage = run.settings, run.settings.stage
    assert isinstance(stage, VisionStage)
    loader = run.loader(stage.batch_size)
    views: dict[Path, View] = {}
    for data in run.splits:
        assert isinstance(data.settings, StillsSettings)  # ensured by a config rule
        views |= stills.read_views(data.settings)
    module = VisionModule(run.policy, run.compute, run.training(loader), views)

    def scale() -> None:
        if stage.feature_rms is not None:
            module.scale_features(stage.feature_rms)

    loggers = run.fit(module, loader, scale)
    if run.reports:
        report_training(settings, run.folder, None, None, run.data_usage(), run.seconds, loggers)
    return mean_reward(None)
