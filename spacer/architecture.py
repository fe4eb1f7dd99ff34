"""What is known of a published model without its weights: the facts in `conf/model/architecture/`.

Names and meanings are those of the model's config.json, which transformers documents for each `model_type`. This module
imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextArchitecture:
    """The language model. `rope_theta` is the base of its rotation, `mrope_section` its channels a position axis."""

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


@dataclass(frozen=True)
class VisionArchitecture:
    """The vision tower. `window_size` is in pixels; what one family alone has is null or empty for the other."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    window_size: int | None = None  # Qwen2.5-VL: all blocks but those of `fullatt_block_indexes` attend in windows
    fullatt_block_indexes: tuple[int, ...] = ()
    num_position_embeddings: int | None = None  # Qwen3-VL: learned positions, and features from within the tower
    deepstack_visual_indexes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """A published model. `parameters` is the number of its published weights, by which the rest is checked."""

    model_type: str
    source: str
    parameters: int
    tie_word_embeddings: bool
    text: TextArchitecture
    vision: VisionArchitecture
