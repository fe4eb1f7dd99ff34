"""Qwen2.5-VL (arXiv 2502.13923): positions advance with the seconds between frame pairs, the vision tower attends in
windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spacer.config.choices import FrameTimes, Positions
from spacer.config.families import FAMILIES, Family
from spacer.models.families.protocol import PlanTraits
from spacer.models.families.qwen2_vl import Qwen2VL
from spacer.tree.mrope import PositionRule


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL."""

    facts: Family = FAMILIES["qwen2_5_vl"]

    def position_rule(self, config: Any, positions: Positions, frame_times: FrameTimes) -> PositionRule:
        """As of `ModelFamily`; frames that count as taken at other times are a second apart in pairs."""
        return replace(
            super().position_rule(config, positions, FrameTimes.real),
            tokens_per_second=config.vision_config.tokens_per_second,
            step_seconds=1.0 if frame_times == FrameTimes.processor else None,
        )

    def plan_traits(self, model: Any) -> PlanTraits:
        """As of `ModelFamily`."""
        vision = model.config.vision_config
        window = vision.window_size // vision.patch_size // vision.spatial_merge_size
        return PlanTraits(False, True, full_blocks=len(vision.fullatt_block_indexes), window=window)


FAMILY = Qwen25VL()
