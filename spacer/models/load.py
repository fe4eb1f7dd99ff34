"""A model and its processor, loaded from a folder or the hub, and saved."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacer.attention.interface import TREE, WINDOWS
from spacer.attention.rows import register
from spacer.config.choices import Checkpointing
from spacer.config.settings import ModelSettings
from spacer.cpu.products import use_faster_products
from spacer.errors import UserError
from spacer.models.families import family_of
from spacer.models.probe import AGAIN, check_loaded

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor
from spacer.models.unwrap import unwrap, vision_tower
from spacer.models.vision import PatchProjection

register()


def load_policy(settings: ModelSettings, vision_attention: str = WINDOWS, empty: bool = False) -> Any:
    """The model with its weights: trainable as `settings` say, wrapped by peft where adapters are asked for.

    An `empty` one has read no weights and holds memory that nothing was written to, which takes up none. It gets those
    of the first process when it is sharded (`spacer.distributed.sharding.shard_firsts`).

    Raises:
        UserError: the files cannot be read, or hold other tensors than the model's, or numbers that are none; or the
            text model attends in sliding windows, which trees do not.
    """
    attention = {"text_config": TREE, "vision_config": "sdpa"}
    model = _empty(settings) if empty else _loaded(settings, attention)
    check_text_model(model)
    model.set_attn_implementation({"vision_config": vision_attention})  # WINDOWS would not pass as an argument above
    family = family_of(model.config)
    tower = family.vision_tower(model)
    embed = tower.patch_embed
    embed.proj = PatchProjection.of(embed.proj)
    use_faster_products(model)
    if settings.gradient_checkpointing == Checkpointing.all:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.freeze_vision:
        tower.requires_grad_(False)
    if settings.lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora.rank,
                lora_alpha=settings.lora.alpha,
                lora_dropout=settings.lora.dropout,
                target_modules=family.lora_targets,
            ),
        )
    return model


def _loaded(settings: ModelSettings, attention: Any) -> Any:
    """The model as transformers loads it, whole."""
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            settings.name_or_path,
            revision=settings.revision,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=attention,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told of below
        )
    except ImportError as error:
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: models of its type need a package that is not installed "
            f"({said}): install it, or choose another model"
        ) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: its weights cannot be loaded ({type(error).__name__}: "
            f"{said}): {AGAIN}"
        ) from error
    model, info = loaded
    check_loaded(settings, model, info)
    return model


def _empty(settings: ModelSettings) -> Any:
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForImageTextToText

    code = settings.trust_remote_code
    config = AutoConfig.from_pretrained(settings.name_or_path, revision=settings.revision, trust_remote_code=code)
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForImageTextToText.from_config(
            config,
            dtype=getattr(torch, settings.dtype),
            attn_implementation={"text_config": TREE, "vision_config": "sdpa"},
            trust_remote_code=code,
        )
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            blank = torch.empty_like(parameter, device="cpu")
            setattr(module, name, torch.nn.Parameter(blank, parameter.requires_grad))
    model.tie_weights()
    return model.eval()  # as a loaded one is


def load_plain(settings: ModelSettings, attention: str = "auto") -> Any:
    """A model of any family with its weights, trainable as `settings` say, as transformers computes it.

    Raises:
        UserError: as of `load_policy`; or its vision tower is to be frozen and cannot be told.
    """
    model = _loaded(settings, None if attention == "auto" else attention)
    if settings.gradient_checkpointing != Checkpointing.none:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.freeze_vision:
        vision_tower(model).requires_grad_(False)
    return model


def check_text_model(model: Any) -> None:
    """UserError for a model whose layers do not all attend to everything before them."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            f"model.name_or_path={model.config.name_or_path}: its layers are {', '.join(sorted(kinds))}; "
            "prefix trees need full attention in each: in its config.json, under text_config if there is one, "
            "take layer_types out and set use_sliding_window to false"
        )


def load_reference(
    settings: ModelSettings, vision_attention: str = WINDOWS, empty: bool = False, plain: bool = False
) -> Any:
    """A frozen copy of the weights that training starts from; `empty` as in `load_policy`, `plain` as of
    `load_plain`."""
    whole = replace(settings, lora=None, gradient_checkpointing=Checkpointing.none)
    model = load_plain(whole, vision_attention) if plain else load_policy(whole, vision_attention, empty)
    return model.requires_grad_(False).eval()


def refill(settings: ModelSettings, state: dict[str, Tensor]) -> Any:
    """A model as `load_policy` makes it, with the tensors of a state dict in place of its own."""
    model = load_policy(replace(settings, gradient_checkpointing=Checkpointing.none))
    model.load_state_dict(state, assign=True)
    unwrap(model).tie_weights()  # two names of one tensor stay one
    return model


def merge_adapters(model: Any) -> Any:
    """The model with its adapters, if any, merged into the weights; what is given is taken apart for it."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def save_pretrained(model: Any, processor: Qwen2_5_VLProcessor, folder: Path, dtype: str | None = None) -> None:
    """Writes an ordinary Hugging Face folder of a model without adapters, in place of what is there, whole or not."""
    state = model.state_dict()
    if dtype is not None:
        # tied weights are one tensor under two names, and must stay one to be written once
        cast: dict[int, Tensor] = {}
        for name, value in state.items():
            state[name] = cast.setdefault(value.data_ptr(), value.to(getattr(torch, dtype)))
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        model.save_pretrained(work, state_dict=state)
        processor.save_pretrained(work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
