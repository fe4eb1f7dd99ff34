"""Checks within seconds, before torch is imported, whether a model's files are available.

    path_or_id = check_model(settings.model)    # or ConfigError with the remedies

Without it, a mistyped name shows only after imports and data, or as minutes of retries on a machine without internet.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from spacer.config.choices import Computation
from spacer.config.derived import HUB_ID
from spacer.config.families import FAMILIES, NAMES
from spacer.config.load import ConfigError
from spacer.config.settings import ModelSettings
from spacer.errors import refused

REQUEST_SECONDS = 5.0  # for each phase of the single request to the hub
ANSWER_SECONDS = 8.0  # in total: a silent name server has no timeout
_INDEX = "model.safetensors.index.json"
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_TOKENIZERS = ("tokenizer.json", "vocab.json")
_JSON = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *(*_PROCESSORS, "video_preprocessor_config.json"),
)
_ADAPTERS = (
    "it holds adapters for another model (adapter_config.json), and no model of its own: merge them into the model "
    "that they were trained for (peft's merge_and_unload) and name the folder of the result"
)
_AGAIN = "copy it again from its source, or download the model again"
_POINTER = "it is a pointer of Git LFS: run git lfs pull"
_NO_TOKENIZER = "it has no tokenizer.json: copy the tokenizer's files there from the model that it was made from"
_NO_PROCESSOR = (
    f"it has neither {_PROCESSORS[0]} nor {_PROCESSORS[1]}, which say how pictures are shown to it: copy the "
    "processor's files there from the model that it was made from"
)


def check_model(settings: ModelSettings) -> Path | str:
    """The model's folder, or its hub id if it is cached or the hub has it. Raises ConfigError otherwise."""
    name = settings.name_or_path
    folder = os.path.expanduser(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(folder):
        if os.path.isfile(os.path.join(folder, "adapter_config.json")):
            raise ConfigError([f"model.name_or_path={name}: {_ADAPTERS}"])
        problem = _lacking(folder)
        if problem is None:
            if damage := _damage(Path(folder), settings.computation):
                raise ConfigError([f"model.name_or_path={name}: {damage}"])
            return Path(folder)
    elif HUB_ID.fullmatch(name) is None:
        problem = "it is neither an existing folder nor a hub id such as Qwen/Qwen2.5-VL-7B-Instruct"
    else:
        problem = _unavailable(name, settings.revision)
        if problem is None:
            return name
    raise ConfigError(
        [
            f"model.name_or_path={name}: {problem}. Remedies:\n"
            "- set model.name_or_path=/path/to/folder that holds config.json and *.safetensors;\n"
            "- or go online (unset HF_HUB_OFFLINE), and run `hf auth login` for a gated or private model;\n"
            "- or set HF_HOME to the cache of a machine that has downloaded it;\n"
            "- or choose model=tiny, which needs no download."
        ]
    )


def _lacking(folder: str | Path) -> str | None:
    """What is missing from a model's folder, or None."""
    path = Path(folder)
    if not os.path.isdir(path):
        return "there is no such folder" if not os.path.exists(path) else "it is a file, not a folder"
    config, index = path / "config.json", path / _INDEX
    missing = [] if os.path.isfile(config) else [config.name]
    try:
        if os.path.isfile(index):
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            missing += [shard for shard in shards if not os.path.isfile(path / shard)]
        elif not any(map(os.path.isfile, path.glob("*.safetensors"))):
            missing.append("*.safetensors weights")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:  # ValueError: not JSON, or not text
        return f"its {_INDEX} cannot be read ({type(error).__name__}: {error})"
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f"the folder lacks {shown}" if missing else None


def _damage(folder: Path, computation: Computation) -> str | None:
    """What cannot be loaded in a folder that has weights and a configuration, with the remedy; None if nothing."""
    checks: tuple[Callable[[], str | None], ...] = (
        *(partial(_damaged_json, folder / name) for name in _JSON),
        *(partial(_damaged_weights, path) for path in sorted(folder.glob("*.safetensors"))),
        partial(_unsupported, folder / "config.json", computation),
        lambda: None if any(os.path.isfile(folder / name) for name in _TOKENIZERS) else _NO_TOKENIZER,
        lambda: None if any(os.path.isfile(folder / name) for name in _PROCESSORS) else _NO_PROCESSOR,
    )
    return next((problem for check in checks if (problem := check()) is not None), None)


def _damaged_json(path: Path) -> str | None:
    """Why an existing JSON file is invalid, or None."""
    try:
        if not os.path.isfile(path) or isinstance(json.loads(path.read_bytes()), dict):
            return None
        fault = "it holds no object"
    except (OSError, ValueError, RecursionError) as error:
        if withheld := _withheld(path):
            return withheld
        fault = _POINTER if _is_pointer(path) else str(error)
    return f"its {path.name} cannot be read ({fault}): {_AGAIN}"


def _damaged_weights(path: Path) -> str | None:
    """Why a weights file is truncated or invalid, or None; reads only its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        if withheld := _withheld(path):
            return withheld
        fault = _POINTER if _is_pointer(path) else _first_line(error)
    return f"its {path.name} is cut short or damaged ({fault}): {_AGAIN}"


def _withheld(path: Path) -> str | None:
    """Why the system refuses to read an existing file, or None."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        known = refused(error, path)
        return None if known is None else f"its {path.name} cannot be read: {known}"
    return None


def _is_pointer(path: Path) -> bool:
    """Whether the file is a Git LFS pointer."""
    try:
        with open(path, "rb") as file:
            return file.read(30).startswith(b"version https://git-lfs")
    except OSError:
        return False


def _unsupported(config: Path, computation: Computation) -> str | None:
    """Why a model with this configuration is not supported, or None."""
    found = json.loads(config.read_bytes()).get("model_type")
    if found in FAMILIES or (found is not None and computation != Computation.tree):
        return None
    if found is None:
        return f"its config.json names no type of model: choose a model with prefix trees, {NAMES}, or another with one"
    return (
        f"its config.json names a model of type {found}, and model.computation=tree is for {NAMES}: set "
        "model.computation=plain, or auto"
    )


def _unavailable(hub_id: str, revision: str | None) -> str | None:
    """Why a model on the hub is unavailable, or None if it is fully cached or can be downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError as error:
        return f"it is neither an existing folder nor a hub id: {_first_line(error)}"
    lacking = _lacking(Path(cached).parent) if isinstance(cached, str) else "there is no config.json"
    if lacking is None:
        return None
    problem = _ask_hub(hub_id, revision)
    if problem is None:
        return None
    return f"no folder of that name here; in the cache {HF_HUB_CACHE} {lacking}; and {problem}"


def _ask_hub(hub_id: str, revision: str | None) -> str | None:
    """Asks the hub once for the model's config.json. Returns the error, or None."""
    from huggingface_hub import constants

    answers: list[str | None] = []
    # a daemon, so that a hanging request blocks neither this call nor the interpreter's exit
    thread = threading.Thread(target=lambda: answers.append(_request(hub_id, revision)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return answers[0] if answers else f"{constants.ENDPOINT} did not answer within {ANSWER_SECONDS:g} s"


def _request(hub_id: str, revision: str | None) -> str | None:
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined, unused-ignore]  # of its HTTP library

    hub = constants.ENDPOINT
    try:
        get_hf_file_metadata(hf_hub_url(hub_id, "config.json", revision=revision), timeout=REQUEST_SECONDS)
    except errors.OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set, so that the hub is not asked"
    except errors.GatedRepoError:
        return f"on {hub} it is gated: your account must be granted access, and you must be logged in"
    except errors.RepositoryNotFoundError:
        return f"{hub} has no such model, or it is private and you are not logged in"
    except errors.RevisionNotFoundError:
        return f"{hub} has no model.revision={revision} of it"
    except errors.EntryNotFoundError:
        return f"on {hub} it holds no config.json, so that it is not a transformers model"
    except (HTTPError, OSError) as error:
        return f"{hub} cannot be reached or refused ({type(error).__name__}: {_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
