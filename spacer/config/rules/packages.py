"""Rules about packages that a setting needs."""

from __future__ import annotations

from importlib.util import find_spec

from spacer.config.choices import OptimizerKind
from spacer.config.derived import (
    in_zero,
    optimizer_of,
)
from spacer.config.rules.rule import Rule
from spacer.config.settings import Settings


def tensorboard_is_installed(s: Settings) -> str | None:
    if s.logger.kind == "tensorboard" and find_spec("tensorboard") is None:
        return (
            "logger.kind=tensorboard needs a package that is not installed: pip install tensorboard, or choose "
            "logger=csv"
        )
    return None


def workspaces_are_installed(s: Settings) -> str | None:
    if s.stage.name == "dashboard" and find_spec("wandb_workspaces") is None:
        return "stage.name=dashboard needs a package that is not installed: pip install wandb-workspaces"
    return None


def flash_attention_is_installed(s: Settings) -> str | None:
    if s.model.attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        return (
            "model.attn_implementation=flash_attention_2 needs the package flash-attn, which is not installed: "
            "pip install -e '.[cuda]', or choose auto"
        )
    return None


def torchao_is_installed(s: Settings) -> str | None:
    if (
        (optimizer := optimizer_of(s)) is not None
        and optimizer.kind == OptimizerKind.adamw_8bit
        and find_spec("torchao") is None
    ):
        return (
            "stage.optimizer.kind=adamw_8bit needs the package torchao, which is not installed: "
            "pip install -e '.[adamw8bit]', or choose adamw"
        )
    return None


def deepspeed_is_installed(s: Settings) -> str | None:
    if in_zero(s) and find_spec("deepspeed") is None:
        return (
            "cluster.strategy=deepspeed_zero3 needs a package that is not installed: pip install -e '.[deepspeed]', "
            "or choose cluster=fsdp, which spreads out the same"
        )
    return None


RULES: tuple[Rule, ...] = (
    tensorboard_is_installed,
    workspaces_are_installed,
    flash_attention_is_installed,
    torchao_is_installed,
    deepspeed_is_installed,
)
