"""The embedded model before any training: a real Qwen2.5-VL of three million parameters with its own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from spacer.files import whole_folder

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = 1024
EMBEDDINGS = 0.1  # standard deviation of fresh embeddings; stage=vision gives its features the same scale
RESIDUAL = 0.3  # scale of the layers that write to the residual stream

# What Qwen's template does for one user turn with text, images and videos, without a system turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_processor(corpus: Iterable[str]) -> Qwen2_5_VLProcessor:
    """Qwen's processor with a byte-level BPE of `VOCABULARY` tokens trained on `corpus`."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    learned = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,  # type: ignore[arg-type]  # pairs are taken too
        eos_token="<|im_end|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """The architecture with fresh weights, drawn from torch's global generator.

    Linear weights are normal with standard deviation 1/√fan_in: the default of .02 is far too small for layers this
    narrow to learn from. Those that write to the residual stream of the text model are smaller, so that embeddings,
    and among them what the vision tower sees, are not drowned in what layers add at first.
    """
    token = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_heads": 4,
            "out_hidden_size": 192,
            "window_size": 112,
            "fullatt_block_indexes": [2],
            "tokens_per_second": 2,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
                module.weight.normal_(std=module.in_features**-0.5)
            elif isinstance(module, torch.nn.Conv3d):
                module.weight.normal_(std=module.weight[0].numel() ** -0.5)
        model.model.language_model.embed_tokens.weight.normal_(std=EMBEDDINGS)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(RESIDUAL)
            layer.mlp.down_proj.weight.mul_(RESIDUAL)
    model.generation_config = GenerationConfig(
        eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"), bos_token_id=token("<|endoftext|>")
    )
    return model


def build(folder: Path, corpus: Iterable[str], seed: int) -> None:
    """Writes an untrained model with its processor to `folder`, in the ordinary Hugging Face form."""
    processor = make_processor(corpus)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(processor)
    with whole_folder(folder) as work:
        model.save_pretrained(work)
        processor.save_pretrained(work)
