"""Qwen2-VL (arXiv 2409.12191): positions count a video's frame pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spacer.config.choices import FrameTimes, Positions
from spacer.config.families import FAMILIES, Family
from spacer.errors import UserError
from spacer.models.families.protocol import PlanTraits
from spacer.tree.mrope import PositionRule


class Qwen2VL:
    """Qwen2-VL, and what later Qwen families have in common with it."""

    facts: Family = FAMILIES["qwen2_vl"]
    lora_targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"

    def position_rule(self, config: Any, positions: Positions, frame_times: FrameTimes) -> PositionRule:
        """As of `ModelFamily`."""
        if frame_times != FrameTimes.real:
            raise UserError(
                f"model.frame_times={frame_times} is for models whose positions tell the seconds between frames, and "
                f"those of {self.facts.name} do not: set model.frame_times=real"
            )
        return PositionRule(
            merge=config.vision_config.spatial_merge_size,
            tokens_per_second=None,
            split_frames=False,
            original=positions == Positions.original,
        )

    def vision_tower(self, model: Any) -> Any:
        """As of `ModelFamily`."""
        return model.model.visual

    def text_model(self, model: Any) -> Any:
        """As of `ModelFamily`."""
        return model.model.language_model

    def features(self, encoded: Any) -> tuple[Tensor, ...]:
        """As of `ModelFamily`."""
        return (torch.cat(encoded.pooler_output),)

    def deeper_inputs(self, is_vision_L: Tensor, deeper_NH: Sequence[Tensor]) -> dict[str, Any]:
        """None: the embeddings are all that the language model takes in."""
        return {}

    def sharded_parts(self, model: Any) -> list[nn.Module]:
        """Each vision block, the tower and each decoder layer."""
        tower = self.vision_tower(model)
        return [*tower.blocks, tower, *self.text_model(model).layers]

    def plan_traits(self, model: Any) -> PlanTraits:
        """As of `ModelFamily`."""
        return PlanTraits(False, False, full_blocks=len(self.vision_tower(model).blocks), window=None)


FAMILY = Qwen2VL()
