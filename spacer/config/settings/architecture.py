"""Facts about published models that are known without their weights, from `conf/model/architecture/`.

Names and meanings follow the model's config.json, which transformers documents for each `model_type`. This module
imports nothing heavy.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from spacer.config.settings.section import CONFIG, Section


@dataclass(frozen=True, config=CONFIG)
class TextArchitecture(Section):
    """The language model. `rope_theta` is the RoPE base, `mrope_section` the number of channels per position axis."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    mrope_section: tuple[int, int, int]
    mrope_interleaved: bool = False


@dataclass(frozen=True, config=CONFIG)
class VisionArchitecture(Section):
    """The vision tower. `window_size` is in pixels; fields specific to one family are null or empty in the other."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    window_size: int | None = None  # Qwen2.5-VL: all blocks except `fullatt_block_indexes` use window attention
    fullatt_block_indexes: tuple[int, ...] = ()
    num_position_embeddings: int | None = None  # Qwen3-VL: learned position embeddings, and features from inside it
    deepstack_visual_indexes: tuple[int, ...] = ()


@dataclass(frozen=True, config=CONFIG)
class Architecture(Section):
    """A published model. `parameters` is its published parameter count, against which the rest is checked."""

    model_type: str
    source: str
    parameters: int
    tie_word_embeddings: bool
    text: TextArchitecture
    vision: VisionArchitecture
