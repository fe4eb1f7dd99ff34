"""Tiny random models of families without prefix trees, with processors of their own and a tokenizer made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

CLASSES = ("internvl", "gemma3", "gemma4", "glm4v", "qwen3_5")
VOCABULARY = 512
SIDE = 32  # pixels of a picture, four tokens or patches of 8

# tokens by the names that processors ask tokenizers for
_NAMED = {
    "internvl": {
        **{"start_image_token": "<img>", "end_image_token": "</img>"},
        **{"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
    },
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    "gemma4": {
        **{"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"},
        **{"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"},
    },
    "glm4v": {"image_token": "<|image|>", "video_token": "<|video|>"},
    "qwen3_5": {
        **{"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        **{"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"},
    },
}
# tokens that their processors and models find by themselves
_MORE = {
    "gemma4": ("<|video|>",),
    "glm4v": ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
}
_TURNS = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
# what stands for a picture and for a video
_SHOWN = {
    "internvl": ("<IMG_CONTEXT>\n", "<video>\n"),
    "gemma3": ("<start_of_image>", "\n"),
    "gemma4": ("<|image|>", "<|video|>"),
    "glm4v": ("<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>"),
    "qwen3_5": ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
}
_BEGINS = ("gemma3", "gemma4")  # whose prompts begin with a token of their own
_TEXT: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192},
}
_VISION: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
}
_DEEP: dict[str, Any] = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2}
_SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_SIZE = {"height": SIDE, "width": SIDE}


def make_tokenizer(kind: str) -> Any:
    """A byte-level tokenizer of a few merges, with the special tokens of its processor."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|turn|>", "<|end|>", "<|pad|>", *_NAMED[kind].values(), *_MORE.get(kind, ())]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 40,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    trained.train_from_iterator(["How many chairs are in the room?", "<think></think><answer>3</answer>"] * 4, trainer)
    begins = {"bos_token": "<|begin|>"} if kind in _BEGINS else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        extra_special_tokens=_NAMED[kind],
        **begins,
    )


def make_folder(folder: Path, kind: str) -> Path:
    """Writes an untrained model of the class with its processor, the same each time."""
    tokenizer = make_tokenizer(kind)
    token = tokenizer.convert_tokens_to_ids
    text = _TEXT | {name: token(said) for name, said in (("eos_token_id", "<|end|>"), ("pad_token_id", "<|pad|>"))}
    image, video = _SHOWN[kind]
    template = _TURNS.replace("IMAGE", image).replace("VIDEO", video)
    make = {"internvl": _internvl, "gemma3": _gemma3, "gemma4": _gemma4, "glm4v": _glm4v, "qwen3_5": _qwen3_5}[kind]
    processor, made, config = make(tokenizer, "{{ bos_token }}" * (kind in _BEGINS) + template, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = made(config)
        for value in model.parameters():
            if value.ndim > 1 and not value.any():  # Gemma 3's projector, by which untrained models see nothing
                torch.nn.init.normal_(value, std=0.02)
    # a penalty, which a run's own sampling leaves out
    model.generation_config = GenerationConfig(
        eos_token_id=token("<|end|>"), pad_token_id=token("<|pad|>"), repetition_penalty=1.5
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _internvl(tokenizer: Any, template: str, text: dict[str, Any]) -> tuple[Any, Any, Any]:
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=_SIZE, min_patches=1, max_patches=2),
        tokenizer,
        InternVLVideoProcessor(size=_SIZE),
        image_seq_length=4,
        chat_template=template,
    )
    config = InternVLConfig(
        text_config=text | {"model_type": "qwen2"},
        vision_config=_VISION | {"image_size": [SIDE, SIDE], "patch_size": [8, 8]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return processor, InternVLForConditionalGeneration, config


def _gemma3(tokenizer: Any, template: str, text: dict[str, Any]) -> tuple[Any, Any, Any]:
    token = tokenizer.convert_tokens_to_ids
    processor = Gemma3Processor(Gemma3ImageProcessor(size=_SIZE), tokenizer, chat_template=template, image_seq_length=4)
    config = Gemma3Config(
        text_config=text | _SLIDING,
        vision_config=_VISION | {"image_size": SIDE, "patch_size": 8},
        image_token_id=token("<image_soft_token>"),
        mm_tokens_per_image=4,
        boi_token_id=token("<start_of_image>"),
        eoi_token_id=token("<end_of_image>"),
    )
    return processor, Gemma3ForConditionalGeneration, config


def _gemma4(tokenizer: Any, template: str, text: dict[str, Any]) -> tuple[Any, Any, Any]:
    token = tokenizer.convert_tokens_to_ids
    patches = {"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 2}
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**patches),
        tokenizer,
        Gemma4VideoProcessor(**patches),
        chat_template=template,
        image_seq_length=70,
    )
    # as the small published models: embeddings of each layer's own, and layers that share keys and values
    text = text | _SLIDING | {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    text |= {"global_head_dim": 8, "num_kv_shared_layers": 2}
    text |= {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
    vision = _VISION | {"head_dim": 8, "num_key_value_heads": 2, "patch_size": 4, "pooling_kernel_size": 2}
    config = Gemma4Config(
        text_config=text,
        vision_config=vision | {"position_embedding_size": 64},
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        audio_token_id=token("<|audio|>"),
        boi_token_id=token("<|image>"),
        eoi_token_id=token("<image|>"),
        boa_token_id=token("<|audio>"),
        eoa_token_index=token("<audio|>"),
    )
    return processor, Gemma4ForConditionalGeneration, config


def _glm4v(tokenizer: Any, template: str, text: dict[str, Any]) -> tuple[Any, Any, Any]:
    token = tokenizer.convert_tokens_to_ids
    size = {"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 56 * 56}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(size=size), tokenizer, Glm4vVideoProcessor(size=size), chat_template=template
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}
    config = Glm4vConfig(
        text_config=text | {"rope_parameters": rope},
        vision_config=_DEEP | {"image_size": 56},
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
    )
    return processor, Glm4vForConditionalGeneration, config


def _qwen3_5(tokenizer: Any, template: str, text: dict[str, Any]) -> tuple[Any, Any, Any]:
    token = tokenizer.convert_tokens_to_ids
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=16), tokenizer, Qwen3VLVideoProcessor(), chat_template=template
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_interleaved": True}
    # linear attention next to full attention, as in the published models
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    text = text | linear | {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
    config = Qwen3_5Config(
        text_config=text | {"rope_parameters": rope | {"mrope_section": [1, 1, 0]}},
        vision_config=_DEEP | {"patch_size": 16, "num_position_embeddings": 16},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    return processor, Qwen3_5ForConditionalGeneration, config
