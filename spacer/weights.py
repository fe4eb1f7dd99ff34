"""Whether a model's files can be had, decided within seconds and before torch is imported.

    path_or_id = check_model(settings.model)    # or ConfigError with the remedies

Without it a mistyped name shows after the imports and the data, or as minutes of retries on a machine without internet.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from spacer.config import ConfigError
from spacer.implied import HUB_ID
from spacer.settings import ModelSettings

REQUEST_SECONDS = 5.0  # for each phase of the one request to the hub
ANSWER_SECONDS = 8.0  # for all of it: a name server that is silent knows no timeout
_INDEX = "model.safetensors.index.json"


def check_model(settings: ModelSettings) -> Path | str:
    """The folder of the model, or its hub id when that is cached or the hub answers. Raises ConfigError if neither."""
    name = settings.name_or_path
    folder = os.path.expanduser(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(folder):
        problem = _lacking(folder)
        if problem is None:
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
    """What a model's folder lacks, or None if nothing."""
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


def _unavailable(hub_id: str, revision: str | None) -> str | None:
    """Why a model on the hub cannot be had, or None if it is cached whole or the hub would send it."""
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
    """Asks the hub once for the model's config.json. What went wrong, or None."""
    from huggingface_hub import constants

    answers: list[str | None] = []
    # a daemon, so that a request that hangs keeps neither this call nor the interpreter waiting
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
