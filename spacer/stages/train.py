"""GRPO: evaluate, train, evaluate, compare."""

from __future__ import annotations

from spacer.config.settings import TrainStage
from spacer.distributed.strategies import loads_weights
from spacer.models.load import load_reference
from spacer.rewards import Scorer
from spacer.stages.asking import ask_controls, ask_heldout
from spacer.stages.running import Run
from spacer.stages.summary import mean_reward, report_training
from spacer.training.grpo import GrpoModule


def train(run: Run) -> float:
    """GRPO: evaluate, train, evaluate, compare. Returns the held-out total reward after training."""
    settings, stage = run.settings, run.settings.stage
    assert isinstance(stage, TrainStage)
    before = ask_heldout(run, "before") if run.asks(stage.evaluate_before) else None
    objective = settings.objective
    loader = run.loader(
        objective.prompts_per_rollout, objective.rollout_parts, shuffle_frames=settings.reward.temporal is not None
    )
    needs_reference = objective.beta > 0 and settings.model.lora is None
    module = GrpoModule(
        run.policy,
        load_reference(settings.model, run.attention.vision, not loads_weights(settings.cluster), run.is_plain)
        if needs_reference
        else None,
        run.probe,
        objective,
        Scorer(settings.reward),
        run.compute,
        run.training(loader, objective.rollout_parts * objective.updates_per_rollout),
        settings.seed,
    )
    loggers = run.fit(module, loader)
    after = ask_heldout(run, "after") if run.asks(stage.evaluate_after) else None
    controls = ask_controls(run, "after") if after else {}
    if run.reports:
        report_training(settings, run.folder, before, after, run.data_usage(), run.seconds, loggers, controls)
    return mean_reward(after)
