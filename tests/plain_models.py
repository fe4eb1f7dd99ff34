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
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)

CLASSES = ("internvl", "gemma3")
VOCABULARY = 512
SIDE = 32  # pixels of a picture, four tokens or patches of 8

# tokens by the names that processors ask tokenizers for
_NAMED = {
    "internvl": {
        **{"start_image_token": "<img>", "end_image_token": "</img>"},
        **{"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
    },
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
}
_TURNS = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
_TEMPLATES = {
    "internvl": _TURNS.replace("IMAGE", "<IMG_CONTEXT>\n").replace("VIDEO", "<video>"),
    "gemma3": "{{ bos_token }}" + _TURNS.replace("IMAGE", "<start_of_image>").replace("VIDEO", ""),
}
_TEXT: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192},
}
_VISION: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
}


def make_tokenizer(kind: str) -> Any:
    """A byte-level tokenizer of a few merges, with the special tokens of its processor."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|turn|>", "<|end|>", "<|pad|>", *_NAMED[kind].values()]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 40,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    trained.train_from_iterator(["How many chairs are in the room?", "<think></think><answer>3</answer>"] * 4, trainer)
    begins = {"bos_token": "<|begin|>"} if kind == "gemma3" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        extra_special_tokens=_NAMED[kind],
        **begins,
    )


def make_folder(folder: Path, kind: str) -> Path:
    """Writes an untrained model of the class with its processor, the same each time."""
    tokenizer, size = make_tokenizer(kind), {"height": SIDE, "width": SIDE}
    token = tokenizer.convert_tokens_to_ids
    text = _TEXT | {name: token(said) for name, said in (("eos_token_id", "<|end|>"), ("pad_token_id", "<|pad|>"))}
    processor: Any
    if kind == "internvl":
        processor = InternVLProcessor(
            GotOcr2ImageProcessor(size=size, min_patches=1, max_patches=2),
            tokenizer,
            InternVLVideoProcessor(size=size),
            image_seq_length=4,
            chat_template=_TEMPLATES[kind],
        )
        vision = _VISION | {"image_size": [SIDE, SIDE], "patch_size": [8, 8]}
        images = {"image_token_id": token("<IMG_CONTEXT>"), "image_seq_length": 4}
        config: Any = InternVLConfig(text_config=text | {"model_type": "qwen2"}, vision_config=vision, **images)
        made: Any = InternVLForConditionalGeneration
    else:
        processor = Gemma3Processor(
            Gemma3ImageProcessor(size=size), tokenizer, chat_template=_TEMPLATES[kind], image_seq_length=4
        )
        # a sliding window next to full attention, as in the published models
        text |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
        vision = _VISION | {"image_size": SIDE, "patch_size": 8}
        images = {
            **{"image_token_id": token("<image_soft_token>"), "mm_tokens_per_image": 4},
            **{"boi_token_id": token("<start_of_image>"), "eoi_token_id": token("<end_of_image>")},
        }
        config = Gemma3Config(text_config=text, vision_config=vision, **images)
        made = Gemma3ForConditionalGeneration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = made(config)
    # a penalty, which a run's own sampling leaves out
    model.generation_config = GenerationConfig(
        eos_token_id=token("<|end|>"), pad_token_id=token("<|pad|>"), repetition_penalty=1.5
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
