"""Supervised fine-tuning on worked completions, or on a model's own right ones."""

from __future__ import annotations

from spacer.config.choices import Targets
from spacer.config.settings import GuessSettings, SftStage
from spacer.data.loading import Target
from spacer.data.prompts import GeneratedTarget, ShownTarget
from spacer.stages.asking import ask_controls, ask_heldout
from spacer.stages.running import Run
from spacer.stages.summary import mean_reward, report_training
from spacer.training.sft import SftModule


def sft(run: Run) -> float:
    """Supervised fine-tuning on worked or generated completions. Returns the held-out total reward after it."""
    settings, stage = run.settings, run.settings.stage
    assert isinstance(stage, SftStage)
    before = ask_heldout(run, "before") if run.asks(stage.evaluate_before) else None
    loader = run.loader(stage.batch_size, target=_target(run, stage))
    loggers = run.fit(SftModule(run.policy, run.compute, run.training(loader)), loader)
    after = ask_heldout(run, "after") if run.asks(stage.evaluate_after) else None
    controls = ask_controls(run, "after") if after else {}
    if run.reports:
        report_training(settings, run.folder, before, after, run.data_usage(), run.seconds, loggers, controls)
    return mean_reward(after)


def _target(run: Run, stage: SftStage) -> Target:
    """What is imitated."""
    if stage.targets == Targets.generated:
        targets = {identity: texts for data in run.splits for identity, texts in data.train.targets.items()}
        return GeneratedTarget(targets, run.probe.prompt_opens)
    guesses = stage.guesses or GuessSettings(share=0.0)
    shown = tuple(sample for data in run.splits for sample in data.train.samples)
    return ShownTarget(shown, guesses.share, guesses.after, run.probe.prompt_opens)
