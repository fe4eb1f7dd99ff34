"""Loading Qwen2.5-VL, and the two things asked of it: the embeddings of a prompt, and log-probabilities after it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacer.data.processing import PromptBatch
from spacer.objective import token_logps
from spacer.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

log = logging.getLogger(__name__)


def load_processor(settings: ModelSettings) -> Qwen2_5_VLProcessor:
    """The processor that lies with the weights."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(
        settings.name_or_path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )


def load_policy(settings: ModelSettings) -> Any:
    """The model with its weights: trainable as `settings` say, wrapped by peft where adapters are asked for."""
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(
        settings.name_or_path,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype),
        attn_implementation=None if settings.attn_implementation == "auto" else settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
    )
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.freeze_vision:
        model.model.visual.requires_grad_(False)
    if settings.lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora.rank,
                lora_alpha=settings.lora.alpha,
                lora_dropout=settings.lora.dropout,
                target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
            ),
        )
    return model


def load_reference(settings: ModelSettings) -> Any:
    """A frozen copy of the weights that training starts from."""
    from dataclasses import replace

    model = load_policy(replace(settings, lora=None, gradient_checkpointing=False))
    return model.requires_grad_(False).eval()


def eos_ids(processor: Qwen2_5_VLProcessor) -> tuple[int, ...]:
    """Tokens that end a completion."""
    return (processor.tokenizer.eos_token_id,)


def embed(model: Any, batch: PromptBatch) -> Tensor:
    """Prompt embeddings, BLH: each image and video goes through the vision tower once."""
    embeds = model.get_input_embeddings()(batch.ids_BL)
    config = model.config
    for pixels, grids, token, features in (
        (batch.image_pixels, batch.image_grids, config.image_token_id, model.get_image_features),
        (batch.video_pixels, batch.video_grids, config.video_token_id, model.get_video_features),
    ):
        if pixels is not None:
            vision = torch.cat(features(pixels, grids, return_dict=True).pooler_output).to(embeds.dtype)
            embeds = embeds.masked_scatter((batch.ids_BL == token).unsqueeze(-1), vision)
    return embeds


def completion_logps(
    model: Any, embeds_BLH: Tensor, mask_BL: Tensor, positions_3BL: Tensor, ids_BC: Tensor, mask_BC: Tensor
) -> Tensor:
    """Log-probabilities BC (float32) of completions after their prompts; rows line up with the prompts'.

    The positions of a completion follow its prompt's last on all three axes.
    """
    steps = torch.arange(1, ids_BC.shape[1] + 1, device=ids_BC.device)
    positions = torch.cat([positions_3BL, positions_3BL[:, :, -1:] + steps], dim=-1)
    embeds = torch.cat([embeds_BLH, model.get_input_embeddings()(ids_BC)], dim=1)
    logits = model(
        inputs_embeds=embeds,
        attention_mask=torch.cat([mask_BL, mask_BC.to(mask_BL.dtype)], dim=1),
        position_ids=positions,
        use_cache=False,
        logits_to_keep=ids_BC.shape[1] + 1,
    ).logits
    return token_logps(logits[:, :-1], ids_BC)


def save_pretrained(model: Any, processor: Qwen2_5_VLProcessor, folder: Path, dtype: str | None = None) -> Any:
    """Writes an ordinary Hugging Face folder, adapters merged into the weights; returns the model to go on with."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()  # this takes the wrapped model apart, hence the return
    state = model.state_dict()
    if dtype is not None:
        # tied weights are one tensor under two names, and must stay one to be written once
        cast: dict[int, Tensor] = {}
        for name, value in state.items():
            state[name] = cast.setdefault(value.data_ptr(), value.to(getattr(torch, dtype)))
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)
    return model
