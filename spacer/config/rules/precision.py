"""Rules about the precision that is computed and kept in."""

from __future__ import annotations

from spacer.config.derived import (
    computes_in_16_bits,
    trains,
)
from spacer.config.rules.rule import Rule
from spacer.config.settings import Settings

_NARROW = ("bf16-true", "16-true")


def flash_attention_in_16_bits(s: Settings) -> str | None:
    if s.model.attn_implementation == "flash_attention_2" and not computes_in_16_bits(s):
        return (
            "model.attn_implementation=flash_attention_2 computes in 16 bits only, and "
            f"trainer.precision={s.trainer.precision} does not: set trainer.precision=bf16-mixed, or choose auto"
        )
    return None


def no_loss_scaling(s: Settings) -> str | None:
    if trains(s) and s.trainer.precision in ("16-mixed", "16"):
        return (
            f"trainer.precision={s.trainer.precision} scales its losses, which training on trees does not: "
            "choose bf16-mixed"
        )
    return None


def trained_weights_in_16_bits(s: Settings) -> str | None:
    if (
        trains(s)
        and s.model.lora is None
        and (s.model.dtype in ("bfloat16", "float16") or s.trainer.precision in _NARROW)
    ):
        return (
            f"model.dtype={s.model.dtype} trainer.precision={s.trainer.precision} would keep the trained weights in "
            "16 bits, where steps of a usual learning rate are rounded away: set model.dtype=float32 "
            "trainer.precision=bf16-mixed, or train adapters (model.lora)"
        )
    return None


RULES: tuple[Rule, ...] = (
    flash_attention_in_16_bits,
    no_loss_scaling,
    trained_weights_in_16_bits,
)
