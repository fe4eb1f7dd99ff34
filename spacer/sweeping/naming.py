"""Names of sweeps and jobs, by which the same command line finds its earlier results (pure).

A sweep is named after its option and the other overrides of the command line, a job after the values that the sweep
gives it. The same line maps to the same folders; lines that train differently map to others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

# settings of where a run computes and logs, which change no result and so are not in names …
_FREE = ("cluster", "logger", "report", "output_dir", "ckpt_path", "overwrite")
# … except these, which set the number of processes
_COMPUTES = tuple(f"cluster.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy"))
_LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


@dataclass(frozen=True)
class Axes:
    """The keys that a command line sweeps, and the values that it fixes for all jobs, as `key=value`."""

    swept: tuple[str, ...]
    fixed: tuple[str, ...]


def axes(params: Mapping[str, Any], line: Sequence[str]) -> Axes:
    """The axes of a sweep from its `hydra.sweeper.params` and the overrides of the command line, in any order.

    Raises:
        OverrideParseException (hydra): an override is malformed.

    >>> axes({"reward": "accuracy,grpo", "seed": "0,1,2"}, ["sweeps=x", "++trainer.max_steps=5", "seed=7"])
    Axes(swept=('reward',), fixed=('seed=7', 'trainer.max_steps=5'))
    """
    parser = OverridesParser.create()
    said = {_key(override): override for override in parser.parse_overrides(list(line))}
    of_key = {_key(override): override for override in parser.parse_overrides([f"{k}={v}" for k, v in params.items()])}
    of_key |= said
    return Axes(
        tuple(sorted(key for key, override in of_key.items() if override.is_sweep_override())),
        tuple(
            sorted(
                f"{key}={override.get_value_element_as_str()}"
                for key, override in said.items()
                if not override.is_sweep_override() and key != "sweeps" and not is_free(key)
            )
        ),
    )


def sweep_name(option: str | None, line: Axes, time: str) -> str:
    """The name of a sweep's folder; the time if nothing is swept, as for a single run.

    >>> sweep_name("reward_ablation", Axes(("reward", "seed"), ("trainer.max_steps=5",)), "12-00-00")
    'reward_ablation,trainer.max_steps=5'
    >>> sweep_name(None, Axes(("seed",), ()), "12-00-00"), sweep_name(None, Axes((), ("seed=1",)), "12-00-00")
    ('seed', '12-00-00')
    """
    if option is None and not line.swept:
        return time
    return folder_name([option or "+".join(line.swept), *line.fixed])


def job_name(overrides: Iterable[str], swept: Sequence[str]) -> str:
    """The name of a job's folder inside its sweep's; `.` if the sweep has only this job.

    >>> job_name(["sweeps=x", "reward=grpo", "++trainer.max_steps=5", "seed=0"], ["reward", "seed"])
    'reward=grpo,seed=0'
    """
    return folder_name(chosen(overrides, swept)) or "."


def chosen(overrides: Iterable[str], swept: Sequence[str]) -> tuple[str, ...]:
    """The overrides of a job that its sweep varies, as `key=value`.

    >>> chosen(["++seed=0", "sweeps=x", "reward='grpo'"], ["reward", "seed"])
    ('reward=grpo', 'seed=0')
    """
    values = {key: value.strip("\"'") for key, _, value in (text.lstrip("+").partition("=") for text in overrides)}
    return tuple(f"{key}={values[key]}" for key in swept if key in values)


def folder_name(words: Iterable[str]) -> str:
    """Joins the words for people to read: of a path the last part, of other values what fits a file name, and of many
    words the first. A digest keeps names from which something is missing distinct.

    >>> folder_name(["reward=grpo", "seed=0"])
    'reward=grpo,seed=0'
    >>> folder_name(["dataset.root=/data/my rooms", "model.lora={rank: 16, alpha: 32}"])
    'dataset.root=my-rooms,model.lora=rank-16-alpha-32-20ae80ff'
    >>> folder_name(["dataset.root=/data/a b"]) == folder_name(["dataset.root=a-b"])
    False
    """
    said = list(words)
    whole = ",".join(said)
    parts = [_readable(word) for word in said]
    name, left = ",".join(parts), len(parts)
    if name == whole and len(name) <= _LONGEST:
        return name
    while len(name) > _LONGEST - 9 and left > 1:
        left -= 1
        name = f"{','.join(parts[:left])},and-{len(parts) - left}-more"
    return f"{name[: _LONGEST - 9].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _readable(word: str) -> str:
    key, equals, value = word.partition("=")
    if re.fullmatch(r"[\w.,=+-]+", word, flags=re.ASCII):
        return word
    shown = PurePosixPath(value).name if re.fullmatch(r"[^\[{]*/[^\[{]*", value) else value
    return key + equals + re.sub(r"[^\w.+-]+", "-", shown, flags=re.ASCII).strip("-")


def resolve_sweep_name(time: str, *, _root_: DictConfig) -> str:
    """The resolver `${sweep_name:TIME}` of `conf/config.yaml`, which reads the composed configuration at `_root_`."""
    hydra = _root_.hydra
    line = axes(hydra.sweeper.get("params") or {}, hydra.overrides.task)
    return sweep_name(hydra.runtime.choices.get("sweeps"), line, time)


def is_free(key: str) -> bool:
    """Whether a setting changes no result.

    >>> [is_free(key) for key in ("cluster.partition", "cluster.devices", "seed")]
    [True, False, False]
    """
    return key.partition(".")[0] in _FREE and key not in _COMPUTES


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")
