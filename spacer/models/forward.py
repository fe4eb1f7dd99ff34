"""The language model over packed rows: embeddings, explicit M-RoPE positions, tree attention → states.

Shape suffixes: L tokens of a row, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spacer.attention.interface import Attention
from spacer.attention.rows import row_attention
from spacer.cpu.lanes import at_once
from spacer.models.families import family_of
from spacer.models.unwrap import text_model, unwrap
from spacer.models.vision import VisionFeatures
from spacer.tree.packing import PackedRow


@dataclass(frozen=True)
class ComputeOptions:
    """How trees are computed: the attention over a row (`spacer.attention.rows.row_attention`), the tokens of a row,
    whether the vision tower keeps its features alone, and computes the rest again for its backward pass, and the
    attention of tokens that are written (`spacer.attention.kv_cache.LeafCache`)."""

    attention: str
    row_tokens: int
    vision_again: bool = False
    decoding: str = "torch"

    @property
    def lanes(self) -> int:
        """How many rows, or portions of pictures, to compute side by side (`spacer.cpu.lanes`)."""
        return at_once() if self.attention == "blocks" else 1


@dataclass(frozen=True)
class RowContext:
    """What packed rows are computed with.

    `vision` are the features that their vision tokens stand for, and `temperature` divides the logits.
    """

    vision: VisionFeatures
    compute: ComputeOptions
    temperature: float = 1.0


def attention_over(row: PackedRow, model: Any, context: RowContext) -> Attention:
    """What the model attends to the row with."""
    return row_attention(row, context.compute.attention, unwrap(model).lm_head.weight.device)


def row_states(model: Any, row: PackedRow, vision: VisionFeatures, attention: Attention) -> Tensor:
    """Final hidden states of a packed row, LH."""
    base = unwrap(model)
    embed = base.get_input_embeddings()
    device = embed.weight.device
    embeds_LH = embed(row.ids_L.to(device))
    extra: dict[str, Any] = {}
    seen = row.vision_L >= 0
    if vision.embeds_MH is not None and bool(seen.any()):
        places, features = seen.nonzero()[:, 0].to(device), row.vision_L[seen].to(device)
        embeds_LH = embeds_LH.index_put((places,), vision.embeds_MH[features].to(embeds_LH.dtype))
        if vision.deeper_MH:
            deeper_NH = [deeper_MH[features] for deeper_MH in vision.deeper_MH]
            extra = family_of(base.config).deeper_inputs(seen.to(device), deeper_NH)
    states: Tensor = text_model(base)(
        inputs_embeds=embeds_LH[None],
        position_ids=row.positions_3L[:, None].to(device),
        use_cache=False,
        tree=attention,
        **extra,
    ).last_hidden_state[0]
    return states
