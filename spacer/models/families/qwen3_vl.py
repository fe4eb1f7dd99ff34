"""Qwen3-VL (arXiv 2511.21631): times are text between the frame pairs, and features from inside the vision tower are
added to the first layers of the language model (DeepStack, arXiv 2406.04334)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spacer.config.choices import FrameTimes, Positions
from spacer.config.families import FAMILIES, Family
from spacer.models.families.protocol import PlanTraits
from spacer.models.families.qwen2_vl import Qwen2VL
from spacer.tree.mrope import PositionRule


class Qwen3VL(Qwen2VL):
    """Qwen3-VL."""

    facts: Family = FAMILIES["qwen3_vl"]

    def position_rule(self, config: Any, positions: Positions, frame_times: FrameTimes) -> PositionRule:
        """As of `ModelFamily`; each frame pair is a block of its own."""
        return replace(super().position_rule(config, positions, frame_times), split_frames=True)

    def features(self, encoded: Any) -> tuple[Tensor, ...]:
        """The embeddings, and a tensor for each of the first layers of the language model."""
        return (*super().features(encoded), *(torch.cat(layer) for layer in encoded.deepstack_features))

    def deeper_inputs(self, is_vision_L: Tensor, deeper_NH: Sequence[Tensor]) -> dict[str, Any]:
        """As of `ModelFamily`."""
        return {"visual_pos_masks": is_vision_L[None], "deepstack_visual_embeds": list(deeper_NH)}

    def plan_traits(self, model: Any) -> PlanTraits:
        """As of `ModelFamily`."""
        tower = self.vision_tower(model)
        return PlanTraits(True, False, len(tower.blocks), None, tuple(tower.deepstack_merger_list))


FAMILY = Qwen3VL()
