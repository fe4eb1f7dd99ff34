"""Supervised fine-tuning on worked completions."""

from __future__ import annotations

from spacer.config.settings import GuessSettings, SftStage
from spacer.data.prompts import ShownTarget
from spacer.stages.asking import ask_controls, ask_heldout
from spacer.stages.running import Run
from spacer.stages.summary import mean_reward, report_training
from spacer.training.sft import SftModule


def sft(run: Run) -> float:
    """Supervised fine-tuning on worked completions. Returns the held-out total reward after it."""
    settings, stage = run.settings, run.settings.stage
    assert isinstance(stage, SftStage)
    guesses = stage.guesses or GuessSettings(share=0.0)
    before = ask_heldout(run, "before") if run.asks(stage.evaluate_before) else None
    shown = tuple(sample for data in run.splits for sample in data.train.samples)
    target = ShownTarget(shown, guesses.share, guesses.after, run.probe.prompt_opens)
    loader = run.loader(stage.batch_size, target=target)
    loggers = run.fit(SftModule(run.policy, run.compute, run.training(loader)), loader)
    after = ask_heldout(run, "after") if run.asks(stage.evaluate_after) else None
    controls = ask_controls(run, "after") if after else {}
    if run.reports:
        report_training(settings, run.folder, before, after, run.data_usage(), run.seconds, loggers, controls)
    return mean_reward(after)
