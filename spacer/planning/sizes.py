"""Derives the sizes that memory and FLOPs depend on from a model's architecture, built on the meta device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from spacer.config.families import FAMILIES, NAMES
from spacer.config.settings import ModelSettings
from spacer.config.settings.architecture import Architecture
from spacer.errors import UserError
from spacer.models.families import PlanTraits, family_of
from spacer.models.load import check_text_model

_EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "tiny"  # the architecture that model.fresh initialises


@dataclass(frozen=True)
class TextSizes:
    """The language model. Widths are channels per token: of the residual stream, of all query heads, of all key heads,
    of the MLP. Matrices are weights that a token is multiplied with, in all layers together."""

    layers: int
    width: int
    queries: int
    keys: int
    heads: int
    channels: int  # per head
    mlp: int
    vocabulary: int
    normed_heads: bool  # queries and keys have norms of their own
    matrices: int
    last_matrices: int  # the last matrix of each layer, which recomputation can skip
    adapted: int  # inputs + outputs of all matrices, from which adapter weights are counted


@dataclass(frozen=True)
class VisionSizes:
    """The vision tower. Widths are channels per patch; matrices as in `TextSizes`, per patch."""

    blocks: int
    width: int
    heads: int
    mlp: int
    gated: bool  # the MLP has a gate, and norms are RMS norms
    matrices: int
    last_matrices: int
    full_blocks: int  # attend to the whole frame
    window: int | None  # side, in tokens, of the other blocks' attention windows
    patch: int  # side in pixels
    patch_values: int  # values per patch
    patches_a_token: int
    merging: int  # weights of the merger, applied to a token's patches
    deeper: int  # additional features, for layers of the language model beyond the embeddings
    deeper_merging: int


@dataclass(frozen=True)
class Sizes:
    """A model in numbers. `parameters` counts weights: of the vision tower, the language model's layers, the embedding,
    and the head if it is untied."""

    text: TextSizes
    vision: VisionSizes
    parameters: dict[str, int]

    @property
    def total(self) -> int:
        """The total number of weights."""
        return sum(self.parameters.values())

    @property
    def largest(self) -> int:
        """The number of weights of the largest matrix: the embedding, or one of an MLP."""
        return max(self.parameters["embedding"], self.text.mlp * self.text.width)


def read_sizes(settings: ModelSettings) -> Sizes:
    """The sizes of the configured model, without reading its weights.

    Raises:
        UserError: the model has no folder here and no facts in `conf/model/architecture/`, or no supported family.
    """
    return count(config_of(settings))


def config_of(settings: ModelSettings) -> Any:
    """The transformers configuration of a model: from its folder or cache, else from the facts in the settings."""
    folder = Path(settings.name_or_path).expanduser()
    if settings.fresh:
        return AutoConfig.from_pretrained(_EMBEDDED)
    if folder.is_dir() or settings.architecture is None:
        try:
            return AutoConfig.from_pretrained(
                folder if folder.is_dir() else settings.name_or_path,
                revision=settings.revision,
                local_files_only=True,
                trust_remote_code=settings.trust_remote_code,
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.name_or_path={settings.name_or_path} has no config.json here, and model.architecture is null: "
                "set model.name_or_path=FOLDER that holds one, or choose model=qwen7b or another whose architecture "
                f"is in conf/model/architecture/ ({str(error).partition(chr(10))[0]})"
            ) from error
    return _from_facts(settings.architecture)


def _from_facts(facts: Architecture) -> Any:
    text, vision = (
        {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(part).items()}
        for part in (facts.text, facts.vision)
    )
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta"), "mrope_section": text.pop("mrope_section")}
    if text.pop("mrope_interleaved"):
        rope["mrope_interleaved"] = True
    return AutoConfig.for_model(
        facts.model_type,
        text_config={**text, "rope_parameters": rope},
        vision_config={name: value for name, value in vision.items() if value not in (None, [])},
        tie_word_embeddings=facts.tie_word_embeddings,
    )


def count(config: Any) -> Sizes:
    """The sizes of a model, which is built from its transformers configuration on the meta device, without memory.

    Raises:
        UserError: its family is not supported on trees.
    """
    if config.model_type not in FAMILIES:
        raise UserError(f"a model of type {config.model_type} cannot be planned: choose one of {NAMES}")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    check_text_model(model)
    family = family_of(config)
    language, visual, traits = family.text_model(model), family.vision_tower(model), family.plan_traits(model)
    head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
    return Sizes(
        _text(language, config.get_text_config(), traits),
        _vision(visual, config.vision_config, traits),
        {
            "vision": _weights(visual.parameters()),
            "language": _weights(language.parameters()) - embedding.numel(),
            "embedding": embedding.numel(),
            "head": 0 if head is embedding else head.numel(),
        },
    )


def _text(language: Any, config: Any, traits: PlanTraits) -> TextSizes:
    layer = language.layers[0]
    matrices = [m for m in language.layers.modules() if isinstance(m, nn.Linear)]
    attention = layer.self_attn
    return TextSizes(
        layers=len(language.layers),
        width=config.hidden_size,
        queries=attention.q_proj.out_features,
        keys=attention.k_proj.out_features,
        heads=config.num_attention_heads,
        channels=attention.head_dim,
        mlp=layer.mlp.down_proj.in_features,
        vocabulary=config.vocab_size,
        normed_heads=traits.normed_heads,
        matrices=_weights(m.weight for m in matrices),
        last_matrices=len(language.layers) * layer.mlp.down_proj.weight.numel(),
        adapted=sum(m.in_features + m.out_features for m in matrices),
    )


def _vision(visual: Any, config: Any, traits: PlanTraits) -> VisionSizes:
    block = visual.blocks[0]
    linears = [m for m in block.mlp.modules() if isinstance(m, nn.Linear)]
    return VisionSizes(
        blocks=len(visual.blocks),
        width=block.attn.qkv.in_features,
        heads=block.attn.num_heads,
        mlp=linears[0].out_features,
        gated=traits.gated_vision,
        matrices=_matrices(visual.blocks),
        last_matrices=len(visual.blocks) * linears[-1].weight.numel(),
        full_blocks=traits.full_blocks,
        window=traits.window,
        patch=config.patch_size,
        patch_values=visual.patch_embed.proj.weight[0].numel(),
        patches_a_token=config.spatial_merge_size**2,
        merging=_matrices(visual.merger),
        deeper=len(traits.deeper_mergers),
        deeper_merging=sum(map(_matrices, traits.deeper_mergers)),
    )


def _matrices(module: nn.Module) -> int:
    return _weights(m.weight for m in module.modules() if isinstance(m, nn.Linear))


def _weights(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
