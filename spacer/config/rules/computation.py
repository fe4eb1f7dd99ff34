"""Rules about models that are computed plainly, without prefix trees."""

from __future__ import annotations

from spacer.config.choices import Computation, DecodingLoop, FrameTimes
from spacer.config.rules.rule import Rule
from spacer.config.settings import Settings


def beside_plain(s: Settings) -> str | None:
    """What the plain computation does not do, with the remedy; None if the settings ask for nothing of it."""
    if s.stage.name in ("vision", "plan"):
        return f"stage.name={s.stage.name} is for models with prefix trees: choose one of them, such as model=qwen7b"
    if s.model.lora is not None:
        return "model.lora puts adapters on models with prefix trees alone: set model.lora=null"
    if s.cluster.shards:
        return (
            f"cluster.strategy={s.cluster.strategy} spreads models with prefix trees alone over processes: choose "
            "cluster=local or cluster=ddp"
        )
    if s.stage.name == "train" and s.reward.temporal is not None:
        return "reward.temporal asks again with shuffled frames, which prefix trees do alone: set reward.temporal=null"
    if s.model.fresh:
        return "model.fresh=true makes a model with prefix trees, which is computed in them: set model.computation=auto"
    if s.model.decoding == DecodingLoop.graph:
        return "model.decoding=graph decodes prefix trees: set model.decoding=eager"
    if s.model.frame_times != FrameTimes.real:
        return f"model.frame_times={s.model.frame_times} is for prefix trees: set model.frame_times=real"
    return None


def plain_is_asked_for_what_it_does(s: Settings) -> str | None:
    if s.model.computation == Computation.plain and s.stage.needs_model and (fault := beside_plain(s)) is not None:
        return f"model.computation=plain: {fault}"
    return None


RULES: tuple[Rule, ...] = (plain_is_asked_for_what_it_does,)
