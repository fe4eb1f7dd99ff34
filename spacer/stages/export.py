"""The stage that exports a training run's checkpoint as a Hugging Face folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from spacer.config.choices import Checkpointing, Computation
from spacer.config.settings import ExportStage, Settings
from spacer.distributed.checkpoint_files import read
from spacer.distributed.checkpoint_parts import whole_weights
from spacer.errors import UserError
from spacer.files import read_ordinary, refuse_bombs
from spacer.models.computation import choose_computation
from spacer.models.load import load_plain, load_policy, merge_adapters, save_pretrained
from spacer.models.probe import probe_model
from spacer.models.trainable import without_frozen
from spacer.models.unwrap import unwrap
from spacer.report.card import Origin, model_card, read_scores
from spacer.terminal.masking import masked_values
from spacer.terminal.screen import screen

log = logging.getLogger(__name__)
_POLICY = "policy."  # prefix of the trained model's weights in a checkpoint
_LORA = ".lora_A."
_NAMED = 4  # weights that a message lists


@dataclass(frozen=True)
class Weights:
    """The trained model's weights in a checkpoint, by name, and the optimiser step at which it was written."""

    tensors: Mapping[str, Tensor]
    steps: int


def export(settings: Settings, folder: Path) -> float:
    """Writes `model/` in the run's folder: the checkpoint's weights, adapters merged, and a model card.

    Returns the optimiser step at which the checkpoint was written.

    Raises:
        UserError: the checkpoint cannot be read, has another architecture or other adapters, or `model/` exists.
    """
    assert settings.ckpt_path is not None  # ensured by a config rule
    path, target = Path(settings.ckpt_path).expanduser(), folder / "model"
    if target.exists():
        raise UserError(f"{target} is there already: set hydra.run.dir to another folder, or move it away")
    stage, run = settings.stage, path.resolve().parent.parent
    assert isinstance(stage, ExportStage)
    recorded = recorded_settings(run)
    scores = [entry for name in settings.runs for entry in read_scores(Path(name).expanduser())]
    weights = read_checkpoint(path)
    _check_adapters(settings, weights, recorded, path)
    plain = choose_computation(settings) == Computation.plain
    probe = probe_model(settings.model, plain)
    policy = (load_plain if plain else load_policy)(replace(settings.model, gradient_checkpointing=Checkpointing.none))
    fill(policy, weights, path, settings.model.name_or_path)
    save_pretrained(merge_adapters(policy), probe.processor, target, stage.save_dtype)
    origin = Origin(settings.model.name_or_path, path, weights.steps, recorded)
    (target / "README.md").write_text(model_card(origin, scores), encoding="utf-8")
    console = screen()
    for what, place in {"model (Hugging Face format)": target, "model card": target / "README.md"}.items():
        console.print(f"  {what}: {place}", soft_wrap=True)
    return float(weights.steps)


def read_checkpoint(path: Path) -> Weights:
    """Reads the trained model's weights from a checkpoint, as data, without unpickling.

    Raises:
        UserError: it is not a checkpoint of this project, or is not whole.
    """
    # memory-mapped, so that the optimiser state, twice the size of the weights, is hardly loaded
    found = read(path, mmap=True)
    if not any(name.startswith(_POLICY) for name in found["state_dict"]):
        raise UserError(
            f"ckpt_path={path} holds no weights of a policy: name a file that stage=train or stage=sft wrote, such as "
            "ckpt_path=RUN/checkpoints/last.ckpt"
        )
    state = whole_weights(path, found)
    tensors = {name.removeprefix(_POLICY): value for name, value in state.items() if name.startswith(_POLICY)}
    return Weights(tensors, int(found.get("global_step", 0)))


def recorded_settings(run: Path) -> dict[str, Any] | None:
    """The settings in `.hydra/config.yaml` of a training run, with interpolations resolved; None if it does not exist.

    Secrets stay unresolved.

    Raises:
        UserError: the file exists but cannot be read.
    """
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        return None
    try:
        refuse_bombs(read_ordinary(path).decode())
        config = OmegaConf.load(path)
        config.output_dir = str(run)  # Hydra's own interpolation, which only a running job can resolve
        values = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}): mend it, or move it away to export without it") from error
    assert isinstance(values, dict)
    trained = (values.get("stage") or {}).get("name") in ("train", "sft", "vision")
    return {str(key): masked_values(value) for key, value in values.items()} if trained else None


def _check_adapters(settings: Settings, weights: Weights, recorded: Mapping[str, Any] | None, path: Path) -> None:
    """Raises UserError if model.lora differs from what the run was trained with, as far as the files tell."""
    given = settings.model.lora
    ranks = {value.shape[0] for name, value in weights.tensors.items() if _LORA in name}
    if not ranks:
        if given is not None:
            raise UserError(f"ckpt_path={path} holds no adapters, and model.lora is set: set model.lora=null")
        return
    rank = min(ranks)
    known = ((recorded or {}).get("model") or {}).get("lora") or {}
    alpha = known.get("alpha")  # the weights do not tell alpha
    if given is None or given.rank != rank or alpha not in (None, given.alpha):
        now = "null" if given is None else f"{{rank: {given.rank}, alpha: {given.alpha}}}"
        wanted = f"{{rank: {rank}, alpha: {'THEIRS' if alpha is None else alpha}}}"
        raise UserError(
            f"ckpt_path={path} holds adapters that model.lora={now} does not fit: set 'model.lora={wanted}'"
        )
    if alpha is None:
        log.warning("model.lora.alpha=%d is taken on trust: no configuration lies beside the checkpoint", given.alpha)


def fill(policy: Any, weights: Weights, path: Path, model: str) -> None:
    """Loads a checkpoint's weights into the model, in the checkpoint's precision.

    Raises:
        UserError: they are of another architecture; some mismatched weights are listed.
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
    policy.load_state_dict(weights.tensors, strict=False, assign=True)  # frozen weights are not in a checkpoint
    unwrap(policy).tie_weights()  # tied weights stay one tensor


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
