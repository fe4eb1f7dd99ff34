"""Tiny random models of each family, prompts of random tokens and pictures for them, and the plain computation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from spacer.attention.interface import TREE, WINDOWS
from spacer.attention.rows import register
from spacer.config.choices import Positions
from spacer.data.processing import MIXED, Prompt
from spacer.data.samples import Medium, Sample
from spacer.models.families import position_rule

register()

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
VOCABULARY, IMAGE_TOKEN, VIDEO_TOKEN, EOS = 61, 59, 60, 58
PATCH = 3 * 2 * 4 * 4  # channels, frames, height and width of a patch

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
}
_TOKENS: dict[str, Any] = {
    "image_token_id": IMAGE_TOKEN,
    "video_token_id": VIDEO_TOKEN,
    "vision_start_token_id": 57,
    "vision_end_token_id": 56,
    "tie_word_embeddings": False,
}


def make(family: str, dtype: torch.dtype = torch.float64, head_dim: int = 8) -> Any:
    """An untrained model, the same each time, that attends in trees."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(11)
        model = _FAMILY[family](head_dim // 8)
        for parameter in model.parameters():  # large enough that pictures and positions matter
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.8 * parameter[0].numel() ** -0.5)
            else:
                torch.nn.init.normal_(parameter, mean=float(parameter.mean()), std=0.1)
        # none writes a token that stands for a picture: the plain computation would look for the picture
        model.lm_head.weight[[IMAGE_TOKEN, VIDEO_TOKEN]] = 0
        bias = torch.zeros(VOCABULARY).index_fill(0, torch.tensor([IMAGE_TOKEN, VIDEO_TOKEN]), -1e4)
        bias[EOS] = 1.0  # some completions end early
        model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    model.set_attn_implementation({"text_config": TREE, "vision_config": WINDOWS})
    return model.to(dtype).eval()


@contextlib.contextmanager
def exact(model: Any) -> Iterator[None]:
    """Lets a float64 model compute in float64 throughout.

    transformers takes norms and the vision tower's rotation in float32 whatever the model is in. Two computations that
    are equal to 1e-16 then round to either side now and then, and differ by 1e-8, which would hide what is compared.
    """
    rotation = "apply_rotary_pos_emb_vision"
    modules = [sys.modules[f"transformers.models.{family}.modeling_{family}"] for family in FAMILIES]
    before = [getattr(module, rotation) for module in modules]
    for module in modules:
        setattr(module, rotation, _rotate)
    for part in model.modules():
        if type(part).__name__.endswith("RMSNorm"):
            part.forward = partial(_norm, part)
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            setattr(module, rotation, function)


def _norm(module: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = cos.unsqueeze(-2).to(q.dtype), sin.unsqueeze(-2).to(q.dtype)

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat([-second, first], -1)

    return q * cos + turned(q) * sin, k * cos + turned(k) * sin


def _text_config(times: int, sections: list[int], **rope: Any) -> dict[str, Any]:
    """Heads of 8 channels, so many times."""
    rope |= {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [times * n for n in sections]}
    sizes = {"hidden_size": 32 * times, "intermediate_size": 48 * times, "head_dim": 8 * times}
    return {**_TEXT, **sizes, "rope_parameters": rope}


def _vision_config(times: int) -> dict[str, Any]:
    sizes = {"hidden_size": 16 * times, "intermediate_size": 24 * times, "out_hidden_size": 32 * times}
    return {**sizes, "num_heads": 2, "patch_size": 4}


def _qwen2_vl(times: int) -> Any:
    vision = {"depth": 2, "embed_dim": 16 * times, "hidden_size": 32 * times, "num_heads": 2, "mlp_ratio": 2}
    text = _text_config(times, [1, 1, 2])
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=text, vision_config={**vision, "patch_size": 4}, **_TOKENS)
    )


def _qwen2_5_vl(times: int) -> Any:
    vision = {"depth": 2, "window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    text = _text_config(times, [1, 1, 2])
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config={**_vision_config(times), **vision}, **_TOKENS)
    )


def _qwen3_vl(times: int) -> Any:
    vision = {"depth": 3, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
    text = _text_config(times, [2, 1, 1], mrope_interleaved=True)
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(text_config=text, vision_config={**_vision_config(times), **vision}, **_TOKENS)
    )


_FAMILY = {"qwen2_vl": _qwen2_vl, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl}


def make_prompts(
    family: str, model: Any, rng: np.random.Generator, kind: str, questions: int, dtype: torch.dtype
) -> list[Prompt]:
    """Questions about one new medium: "video", "image", "images" (several), "mixed" (an image, a video
    and an image, with text between them) or "text" (a medium without pictures)."""
    if kind == "mixed":
        return _mixed_prompts(family, model, rng, questions, dtype)
    grids: list[tuple[int, int, int]] = []
    if kind == "video":
        grids = [(int(rng.integers(1, 4)), 2 * int(rng.integers(1, 3)), 2 * int(rng.integers(1, 3)))]
    elif kind != "text":
        grids = [
            (1, 2 * int(rng.integers(1, 3)), 2 * int(rng.integers(1, 4))) for _ in range(1 if kind == "image" else 3)
        ]
    head = _text(rng, int(rng.integers(0, 4)))
    shown = (
        head + [run for grid in grids for run in _block(family, rng, kind, grid)] + _text(rng, int(rng.integers(0, 3)))
    )
    pixels = torch.from_numpy(rng.normal(size=(sum(t * h * w for t, h, w in grids), PATCH))).to(dtype)
    path = Path(f"/nowhere/{rng.integers(2**40)}")
    rule = position_rule(model.config, Positions.original)
    prompts = []
    for _ in range(questions):
        tokens = shown + _text(rng, int(rng.integers(1, 6)))
        ids, types = torch.tensor([token for token, _ in tokens]), torch.tensor([kind for _, kind in tokens])
        is_video = kind == "video"
        seconds = [1.5] * len(grids) if is_video else []
        positions = rule.positions(types, [] if is_video else grids, grids if is_video else [], seconds)
        grid_thw = torch.tensor(grids) if grids else None
        sample = Sample(
            **{"id": str(rng.integers(2**40)), "problem": "?", "problem_type": "free-form", "options": ()},
            **{"solution": "", "data_type": "video" if is_video else "image", "path": path, "source": ""},
            **{"scene": "", "question_type": "", "reasoning": None, "true_map": None},
        )
        frame = np.zeros((1, 1, 3), np.uint8)
        prompts.append(
            Prompt(
                *(sample, sample.data_type if grids else "text", ids, types, positions),
                *(pixels if grids else None, grid_thw, None, frame),
            )
        )
    return prompts


def _mixed_prompts(
    family: str, model: Any, rng: np.random.Generator, questions: int, dtype: torch.dtype
) -> list[Prompt]:
    images = [(1, 2 * int(rng.integers(1, 3)), 2 * int(rng.integers(1, 4))) for _ in range(2)]
    video = (int(rng.integers(1, 4)), 2, 4)
    shown = _block(family, rng, "image", images[0]) + _text(rng, 2) + _block(family, rng, "video", video)
    shown += _text(rng, 1) + _block(family, rng, "image", images[1])
    pixels, films = (
        torch.from_numpy(rng.normal(size=(sum(t * h * w for t, h, w in grids), PATCH))).to(dtype)
        for grids in (images, [video])
    )
    media = tuple(Medium(kind, Path(f"/nowhere/{rng.integers(2**40)}")) for kind in ("image", "video", "image"))
    rule = position_rule(model.config, Positions.original)
    prompts = []
    for _ in range(questions):
        tokens = shown + _text(rng, int(rng.integers(1, 6)))
        ids, types = torch.tensor([token for token, _ in tokens]), torch.tensor([kind for _, kind in tokens])
        sample = Sample(
            **{"id": str(rng.integers(2**40)), "problem": "?", "problem_type": "free-form", "options": ()},
            **{"solution": "", "data_type": "image", "path": media[0].path, "source": "", "media": media},
            **{"scene": "", "question_type": "", "reasoning": None, "true_map": None},
        )
        positions = rule.positions(types, images, [video], [1.5])
        frame, shapes = np.zeros((1, 1, 3), np.uint8), [torch.tensor(grids) for grids in (images, [video])]
        prompts.append(
            Prompt(sample, MIXED, ids, types, positions, pixels, shapes[0], None, frame, None, films, shapes[1])
        )
    return prompts


def _text(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    return [(int(token), 0) for token in rng.integers(0, 50, count)]


def _block(family: str, rng: np.random.Generator, kind: str, grid: tuple[int, int, int]) -> list[tuple[int, int]]:
    t, h, w = grid
    if kind != "video":
        return [(IMAGE_TOKEN, 1)] * (h * w // 4) + _text(rng, 1)
    if family == "qwen3_vl":  # each frame after its time, in text
        return [run for _ in range(t) for run in _text(rng, 2) + [(VIDEO_TOKEN, 2)] * (h * w // 4)]
    return [(VIDEO_TOKEN, 2)] * (t * h * w // 4)


def plain_logps(model: Any, prompt: Prompt, ids_C: Tensor) -> Tensor:
    """Log-probabilities of one completion: one row, pixels and all, through transformers' own forward."""
    ids = torch.cat([prompt.ids_L, ids_C])[None]
    following = prompt.positions_3L[:, -1:] + torch.arange(1, len(ids_C) + 1)
    names = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}
    given = [(names[kind], prompt.of_kind(kind)) for kind in names]
    pictures = {name: value for pair, values in given if values for name, value in zip(pair, values, strict=True)}
    with plain_attention(model):
        logits = model(
            input_ids=ids,
            position_ids=torch.cat([prompt.positions_3L, following], 1)[:, None],
            use_cache=False,
            **pictures,
        ).logits[0]
    start = len(prompt.ids_L)
    return torch.stack([logits[start + t - 1].log_softmax(-1)[token] for t, token in enumerate(ids_C.tolist())])


@contextlib.contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """transformers' own attention; not the eager one, which takes its softmax in float32."""
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": TREE, "vision_config": WINDOWS})
