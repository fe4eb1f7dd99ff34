"""A model's architecture → the sizes that memory and FLOPs are worked out from, counted on the meta device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from spacer.architecture import Architecture
from spacer.errors import UserError
from spacer.modeling import check_text_model
from spacer.settings import ModelSettings

_EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "tiny"  # what model.fresh makes anew


@dataclass(frozen=True)
class TextSizes:
    """The language model. Widths are channels of a token: of the stream, of all query heads, of all key heads, of the
    MLP. Matrices are weights that a token is multiplied with, in all layers together."""

    layers: int
    width: int
    queries: int
    keys: int
    heads: int
    channels: int  # of a head
    mlp: int
    vocabulary: int
    normed_heads: bool  # queries and keys have norms of their own (Qwen3-VL)
    matrices: int
    last_matrices: int  # of these, each layer's last, which recomputing a layer can leave out
    adapted: int  # inputs + outputs of all matrices, by which the weights of adapters are counted


@dataclass(frozen=True)
class VisionSizes:
    """The vision tower. Widths are channels of a patch; matrices as of the text, for a patch."""

    blocks: int
    width: int
    heads: int
    mlp: int
    gated: bool  # the MLP has a gate, and norms are RMS (Qwen2.5-VL)
    matrices: int
    last_matrices: int
    full_blocks: int  # that attend to a whole frame
    window: int | None  # side, in tokens, of the windows that the others attend in
    patch: int  # side in pixels
    patch_values: int  # numbers that a patch is made of
    patches_a_token: int
    merging: int  # weights that a token's patches are multiplied with on leaving the tower
    deeper: int  # more features, for the first layers of the language model (Qwen3-VL)
    deeper_merging: int


@dataclass(frozen=True)
class Sizes:
    """A model in numbers. `parameters` counts weights: of the vision tower, the language model's layers, the embedding,
    and the head where it has weights of its own."""

    text: TextSizes
    vision: VisionSizes
    parameters: dict[str, int]

    @property
    def total(self) -> int:
        """All weights."""
        return sum(self.parameters.values())

    @property
    def largest(self) -> int:
        """Weights of the largest matrix: the embedding, or one of an MLP."""
        return max(self.parameters["embedding"], self.text.mlp * self.text.width)


def read_sizes(settings: ModelSettings) -> Sizes:
    """The sizes of the model that the settings name; its weights are not read.

    Raises:
        UserError: the model has no folder here and no facts in `conf/model/architecture/`, or is of no known family.
    """
    return count(config_of(settings))


def config_of(settings: ModelSettings) -> Any:
    """transformers' configuration of a model: of its folder or cache, else from the facts that the settings hold."""
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
    """The sizes of the model of a transformers configuration, which is built on the meta device, without memory.

    Raises:
        UserError: it is of no family that trains on trees.
    """
    if config.model_type not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        raise UserError(
            f"a model of type {config.model_type} cannot be planned: choose a Qwen2-VL, Qwen2.5-VL or Qwen3-VL model"
        )
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    check_text_model(model)
    language, visual = model.model.language_model, model.model.visual
    head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
    return Sizes(
        _text(language, config.get_text_config()),
        _vision(visual, config.vision_config),
        {
            "vision": _weights(visual.parameters()),
            "language": _weights(language.parameters()) - embedding.numel(),
            "embedding": embedding.numel(),
            "head": 0 if head is embedding else head.numel(),
        },
    )


def _text(language: Any, config: Any) -> TextSizes:
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
        normed_heads=hasattr(attention, "q_norm"),
        matrices=_weights(m.weight for m in matrices),
        last_matrices=len(language.layers) * layer.mlp.down_proj.weight.numel(),
        adapted=sum(m.in_features + m.out_features for m in matrices),
    )


def _vision(visual: Any, config: Any) -> VisionSizes:
    block = visual.blocks[0]
    linears = [m for m in block.mlp.modules() if isinstance(m, nn.Linear)]
    gated = hasattr(block.mlp, "gate_proj")
    windowed = getattr(config, "window_size", None) is not None
    deeper = getattr(visual, "deepstack_merger_list", [])
    patch, merge = config.patch_size, config.spatial_merge_size
    return VisionSizes(
        blocks=len(visual.blocks),
        width=block.attn.qkv.in_features,
        heads=block.attn.num_heads,
        mlp=linears[0].out_features,
        gated=gated,
        matrices=_matrices(visual.blocks),
        last_matrices=len(visual.blocks) * linears[-1].weight.numel(),
        full_blocks=len(config.fullatt_block_indexes) if windowed else len(visual.blocks),
        window=config.window_size // patch // merge if windowed else None,
        patch=patch,
        patch_values=visual.patch_embed.proj.weight[0].numel(),
        patches_a_token=merge**2,
        merging=_matrices(visual.merger),
        deeper=len(deeper),
        deeper_merging=sum(map(_matrices, deeper)),
    )


def _matrices(module: nn.Module) -> int:
    return _weights(m.weight for m in module.modules() if isinstance(m, nn.Linear))


def _weights(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
