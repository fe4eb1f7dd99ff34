"""The stage that makes a Hugging Face folder of a training run's checkpoint."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from torch import Tensor

from spacer.choices import Checkpointing
from spacer.errors import UserError
from spacer.modeling import load_policy, load_processor, merge_adapters, plain, save_pretrained
from spacer.optimizer import without_frozen
from spacer.report.card import Origin, model_card, read_scores
from spacer.settings import Settings

log = logging.getLogger(__name__)
_POLICY = "policy."  # what the weights of the trained model are named with in a checkpoint
_LORA = ".lora_A."
_NAMED = 4  # weights that a message names


@dataclass(frozen=True)
class Weights:
    """A checkpoint's weights of the trained model by name, and after how many optimiser steps it was written."""

    tensors: Mapping[str, Tensor]
    steps: int


def export(settings: Settings, folder: Path) -> float:
    """Writes `model/` in the run's folder: the checkpoint's weights, adapters merged, and a model card.

    Returns the optimiser steps that the checkpoint was written after.

    Raises:
        UserError: the checkpoint cannot be read, is of another architecture or other adapters, or `model/` is there.
    """
    assert settings.ckpt_path is not None  # a rule of the configuration
    path, target = Path(settings.ckpt_path).expanduser(), folder / "model"
    if target.exists():
        raise UserError(f"{target} is there already: set hydra.run.dir to another folder, or move it away")
    run = path.resolve().parent.parent
    recorded = recorded_settings(run)
    scores = [entry for name in settings.runs for entry in read_scores(Path(name).expanduser())]
    weights = read_checkpoint(path)
    _check_adapters(settings, weights, recorded, path)
    policy = load_policy(replace(settings.model, gradient_checkpointing=Checkpointing.none))
    fill(policy, weights, path, settings.model.name_or_path)
    save_pretrained(merge_adapters(policy), load_processor(settings.model), target, settings.stage.save_dtype)
    origin = Origin(settings.model.name_or_path, path, weights.steps, recorded)
    (target / "README.md").write_text(model_card(origin, scores), encoding="utf-8")
    console = Console()
    for what, place in {"model (Hugging Face format)": target, "model card": target / "README.md"}.items():
        console.print(f"  {what}: {place}", markup=False, highlight=False, soft_wrap=True)
    return float(weights.steps)


def read_checkpoint(path: Path) -> Weights:
    """The weights of the trained model in a checkpoint, read as data, never unpickled.

    Raises:
        UserError: it is no checkpoint of this project's, or is cut short.
    """
    remedy = "name a file that stage=train or stage=sft wrote, such as ckpt_path=RUN/checkpoints/last.ckpt"
    try:
        # mapped: of the optimiser's state, which is twice as large as the weights, nothing is read
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"ckpt_path={path} cannot be read as a checkpoint ({reason}): {remedy}") from error
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not any(name.startswith(_POLICY) for name in state):
        raise UserError(f"ckpt_path={path} holds no weights of a policy: {remedy}")
    tensors = {name.removeprefix(_POLICY): value for name, value in state.items() if name.startswith(_POLICY)}
    return Weights(tensors, int(found.get("global_step", 0)))


def recorded_settings(run: Path) -> dict[str, Any] | None:
    """What `.hydra/config.yaml` of a training run says, interpolations filled in; None where there is none.

    Raises:
        UserError: the file is there and cannot be read.
    """
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = OmegaConf.load(path)
        config.output_dir = str(run)  # Hydra's own interpolation, which only a running job can fill in
        values = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}): mend it, or move it away to export without it") from error
    assert isinstance(values, dict)
    trained = (values.get("stage") or {}).get("name") in ("train", "sft")
    return {str(key): value for key, value in values.items()} if trained else None


def _check_adapters(settings: Settings, weights: Weights, recorded: Mapping[str, Any] | None, path: Path) -> None:
    """UserError where model.lora is not what the run was trained with, as far as that can be told."""
    given = settings.model.lora
    ranks = {value.shape[0] for name, value in weights.tensors.items() if _LORA in name}
    if not ranks:
        if given is not None:
            raise UserError(f"ckpt_path={path} holds no adapters, and model.lora is set: set model.lora=null")
        return
    rank = min(ranks)
    known = ((recorded or {}).get("model") or {}).get("lora") or {}
    alpha = known.get("alpha")  # which no weight tells
    if given is None or given.rank != rank or alpha not in (None, given.alpha):
        now = "null" if given is None else f"{{rank: {given.rank}, alpha: {given.alpha}}}"
        wanted = f"{{rank: {rank}, alpha: {'THEIRS' if alpha is None else alpha}}}"
        raise UserError(
            f"ckpt_path={path} holds adapters that model.lora={now} does not fit: set 'model.lora={wanted}'"
        )
    if alpha is None:
        log.warning("model.lora.alpha=%d is taken on trust: no configuration lies beside the checkpoint", given.alpha)


def fill(policy: Any, weights: Weights, path: Path, model: str) -> None:
    """Puts a checkpoint's weights into the model, in the checkpoint's own precision.

    Raises:
        UserError: they are of another architecture; some weights that tell are named.
    """
    known = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in weights.tensors.items()}
    other = [
        f"{name} {there[name]}, not {known[name]}" for name in there if known.get(name, there[name]) != there[name]
    ]
    kinds = {
        "missing": [name for name in without_frozen(policy, known) if name not in there],
        "unknown to the model": [name for name in there if name not in known],
        "of another shape": other,
    }
    if faults := [
        f"{_some(names)} {'is' if len(names) == 1 else 'are'} {kind}" for kind, names in kinds.items() if names
    ]:
        raise UserError(
            f"ckpt_path={path} is of another architecture than model.name_or_path={model}: {'; '.join(faults)}. "
            "Choose the model that the run was trained from, as its .hydra/config.yaml has it under model, what was "
            "frozen included"
        )
    policy.load_state_dict(weights.tensors, strict=False, assign=True)  # what is frozen is not in a checkpoint
    plain(policy).tie_weights()  # two names of one tensor stay one


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
