"""Settings of training: rewards, the objective, the optimizer, the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from spacer.config import choices
from spacer.config.settings.section import CONFIG, PositiveShare, Section, Share, ShareBelowOne


@dataclass(frozen=True, config=CONFIG)
class LengthBonusSettings(Section):
    """Bonus for completions within a length range, in groups with at least two good answers."""

    bonus: NonNegativeFloat = 0.2  # added to the total
    min_tokens: NonNegativeInt = 320
    max_tokens: PositiveInt = 512
    min_answer: Share = 0.1  # exclusive


@dataclass(frozen=True, config=CONFIG)
class TemporalBonusSettings(Section):
    """T-GRPO: bonus if the ordered video scores at least `margin` times as well as shuffled frames."""

    bonus: NonNegativeFloat = 0.3  # added to the total
    margin: NonNegativeFloat = 0.8
    min_answer: Share = 0.1  # exclusive


@dataclass(frozen=True, config=CONFIG)
class OverlongSettings(Section):
    """DAPO's soft overlong punishment: completions lose reward over the last `buffer` of their maximum length."""

    max_tokens: PositiveInt = 1024  # at which the whole penalty is due
    buffer: PositiveShare = 0.2  # share of max_tokens over which it grows, from 0
    penalty: NonNegativeFloat = 0.5  # subtracted from the total


@dataclass(frozen=True, config=CONFIG)
class RewardFunctionSettings(Section):
    """A reward from the user's own file, besides the published ones."""

    path: str  # FILE.py:FUNCTION; the file is relative to the folder that the command runs in
    weight: float = 1.0  # of the function's value in the total

    @property
    def file(self) -> Path:
        """The file, absolute."""
        return Path(self.path.rpartition(":")[0]).expanduser().absolute()

    @property
    def function(self) -> str:
        """The function's name, by which its term goes too."""
        return self.path.rpartition(":")[2]


@dataclass(frozen=True, config=CONFIG)
class RewardSettings(Section):
    """Which rewards count. `None` disables a bonus."""

    format: bool = True  # includes the format reward
    map: bool = True  # includes the map's score, if the answer is right
    zero_map_cancels_answer: bool = True
    map_min_answer: Share = 0.5  # numerical answers must score above it for the map to count
    strict: bool = True  # parses answers as published: a bare letter, the first number; false: as in evaluation
    length: LengthBonusSettings | None = None  # null: no length bonus
    temporal: TemporalBonusSettings | None = None  # null: no temporal bonus
    overlong: OverlongSettings | None = None  # null: no penalty for long completions
    functions: tuple[RewardFunctionSettings, ...] = ()  # rewards of your own, beside these


@dataclass(frozen=True, config=CONFIG)
class ObjectiveSettings(Section):
    """Group-relative policy optimisation and its variants."""

    group_size: Annotated[int, Field(ge=2, description="to compare a group's completions, such as 8")] = 8
    prompts_per_rollout: PositiveInt = 1
    row_tokens: PositiveInt = 16_384
    temperature: Annotated[float, Field(gt=0, description="greedy completions would all be equal")] = 1.0
    top_p: PositiveShare = 0.95
    max_completion_length: PositiveInt = 1024
    rollout_parts: PositiveInt = 1
    updates_per_rollout: PositiveInt = 1
    beta: NonNegativeFloat = 0.04
    kl_clamp: PositiveFloat = 10.0
    advantage: choices.Advantage = choices.Advantage.std
    advantage_eps: NonNegativeFloat = 1e-4
    loss_mean: choices.LossMean = choices.LossMean.completion
    ratio: choices.Ratio = choices.Ratio.token
    surrogate: choices.Surrogate = choices.Surrogate.ppo
    sapo_tau_positive: PositiveFloat = 1.0  # surrogate=sapo: sharpness if the advantage is above 0 …
    sapo_tau_negative: PositiveFloat = 1.05  # … and otherwise
    kl: choices.KlEstimate = choices.KlEstimate.k3
    clip_low: Share | None = None
    clip_high: NonNegativeFloat | None = None
    drop_zero_variance: bool = False
    # DAPO's dynamic sampling: up to so many times the prompts of a step, until enough groups teach; null: no more
    dynamic_sampling: Annotated[int, Field(ge=2, description="a multiple of the prompts of a step")] | None = None
    mask_truncated: bool = False


@dataclass(frozen=True, config=CONFIG)
class OptimizerSettings(Section):
    """AdamW, or Muon with AdamW, with warm-up and a schedule."""

    kind: choices.OptimizerKind = choices.OptimizerKind.adamw
    learning_rate: ShareBelowOne = 1e-6  # peak
    muon_learning_rate: ShareBelowOne = 0.02  # kind=muon: for hidden matrices; all else uses `learning_rate`
    vision_scale: PositiveFloat = 1.0  # multiplier on the vision tower's learning rates
    weight_decay: NonNegativeFloat = 0.01  # on matrices; norms and biases have none
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    warmup_steps: NonNegativeInt = 0  # steps of linear warm-up
    schedule: choices.Schedule = choices.Schedule.cosine


Limit = Literal[-1] | PositiveInt
Duration = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$", description="DD:HH:MM:SS, such as 00:12:00:00")]
Precision = Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true", "32", "bf16", "16", "64"]


@dataclass(frozen=True, config=CONFIG)
class TrainerSettings(Section):
    """Arguments of `pytorch_lightning.Trainer`, and the checkpoint interval."""

    max_steps: Limit = -1  # optimizer steps; -1: no limit
    max_epochs: Limit | None = 1  # passes over the data; -1: no limit; null: max_steps decides
    max_time: Duration | None = None  # after which training ends
    precision: Precision = "32-true"  # of the computation, by Lightning's names
    accumulate_grad_batches: PositiveInt = 1  # batches whose gradients are accumulated for a step
    gradient_clip_val: NonNegativeFloat | None = 5.0  # gradient norm for clipping; null: no clipping
    log_every_n_steps: PositiveInt = 1
    checkpoint_every_n_steps: PositiveInt = 50
    deterministic: bool | None = None  # kernels that give the same bits; null: on CPUs alone
    enable_progress_bar: bool = True  # on a terminal; log files get lines
    fast_dev_run: bool = False  # runs one batch, to try a configuration
    self_check: bool = True  # compares the first batch's log-probabilities with the unpacked computation
