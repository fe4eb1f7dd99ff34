"""Tiny random model folders of each family, with its own processor and the embedded tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from spacer.models.tiny import CHAT_TEMPLATE

EMBEDDED = Path(__file__).resolve().parents[1] / "spacer/assets/tiny"
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# what the processors that are published with Qwen3-VL have in place of the defaults
_OF_QWEN3: dict[str, Any] = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLASSES: dict[str, Any] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
    "qwen2_5_vl": {
        **{"depth": 2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2},
        **{"window_size": 112, "fullatt_block_indexes": [1], "tokens_per_second": 2},
    },
    "qwen3_vl": {
        **{"depth": 3, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2},
        **{"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16, "patch_size": 16},
    },
}


def make_processor(family: str) -> Any:
    """The family's processor, as its published models have it, with the embedded tokenizer and template."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    if family == "qwen3_vl":
        images, videos = Qwen2VLImageProcessor(**_OF_QWEN3), Qwen3VLVideoProcessor()
        return Qwen3VLProcessor(images, tokenizer, videos, chat_template=CHAT_TEMPLATE)
    made = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}[family]
    return made(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def make_config(family: str, tokenizer: Any) -> Any:
    """A configuration of two small layers."""
    token = tokenizer.convert_tokens_to_ids
    rope = (
        {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
        if family == "qwen3_vl"
        else {"mrope_section": [1, 1, 2]}
    )
    text = {
        **{"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32_768},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **rope},
        **{"bos_token_id": token("<|endoftext|>"), "pad_token_id": token("<|endoftext|>")},
        "eos_token_id": token("<|im_end|>"),
    }
    return _CLASSES[family][0](
        text_config=text,
        vision_config=_VISION[family],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def make_folder(folder: Path, family: str) -> Path:
    """Writes an untrained model of the family with its processor, the same each time."""
    processor = make_processor(family)
    token = processor.tokenizer.convert_tokens_to_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = _CLASSES[family][1](make_config(family, processor.tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")], pad_token_id=token("<|endoftext|>")
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
