"""`benchmark/protocol=NAME` in the command line, for whichever benchmarks are asked, there or in a file of
experiments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from spacer.config.load import ConfigError

GROUPS = ("benchmark/protocol", "benchmark/prompts")
FILES = ("experiments", "sweeps")  # groups whose files choose from others


def placed(words: Sequence[str], conf: Path) -> list[str]:
    """The words, in which a protocol or prompts chosen for all benchmarks are chosen for each of them.

    Hydra places a group by the section that it fills: `benchmark/protocol@benchmark` for one benchmark, and one such
    choice for each of `benchmark=all`. A protocol that has a file for a benchmark, `protocol/NAME/BENCHMARK.yaml`, is
    that file there.

    Args:
        words: the command line.
        conf: the folder of the configuration, beside those of experiments and sweeps, whose files may choose the
            benchmark in place of the command line.

    Raises:
        ConfigError: a protocol's name is set by hand; or a sweep is over benchmarks, or over the protocols of several,
            so that its jobs would not be asked as named.
    """
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    name = chosen.get("benchmark") or _chosen_in_files(chosen, conf.parent)
    parts = _parts(conf / "benchmark" / f"{name}.yaml")
    for word in words:
        key, _, option = word.lstrip("+").partition("=")
        if re.fullmatch(r"benchmark(s\.\w+)?\.protocol", key):
            raise ConfigError(
                [f"{key}={option} would change a protocol's name alone: choose benchmark/protocol={option}"]
            )
    for group in GROUPS:
        options = chosen.get(group, "")
        if (options and "," in name) or (parts and "," in options):
            raise ConfigError(
                [f"benchmark={name} {group}={options} would mix protocols in a sweep: give a command for each of them"]
            )
    found: list[str] = []
    for word in words:
        group, _, option = word.partition("=")
        if group not in GROUPS or (group == GROUPS[1] and not parts):
            found.append(word)
        elif parts:
            below = ".prompts" if group == GROUPS[1] else ""
            found += [f"{group}@benchmarks.{part}{below}={_options(conf, group, option, part)}" for part in parts]
        else:
            found.append(f"{group}@benchmark={_options(conf, group, option, name)}")
    return found


def _chosen_in_files(chosen: Mapping[str, str], root: Path) -> str:
    """The benchmark that the files of `experiments=NAME` and `sweeps=NAME` choose; "" if they choose none."""
    found = [_chosen_in(root / group / f"{chosen[group]}.yaml") for group in FILES if group in chosen]
    return next((name for name in reversed(found) if name), "")


def _chosen_in(file: Path) -> str:
    """The benchmark that a file chooses, or else the last of those in its folder that it builds on."""
    defaults = _defaults(file)
    named = [entry.get("override /benchmark") for entry in defaults if isinstance(entry, dict)]
    built_on = [entry for entry in defaults if isinstance(entry, str) and entry not in ("_self_", file.stem)]
    below = [_chosen_in(file.with_name(f"{entry}.yaml")) for entry in built_on]
    return next((str(name) for name in reversed([*below, *named]) if name), "")


def _parts(file: Path) -> list[str]:
    """The benchmarks that a file puts together; none for one benchmark, or without the file."""
    return [str(entry).rpartition("@benchmarks.")[2] for entry in _defaults(file) if "@benchmarks." in str(entry)]


def _defaults(file: Path) -> list[Any]:
    """The defaults list of a file; empty without one."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # Hydra says what is wrong with it
    listed = found.get("defaults") if isinstance(found, dict) else None
    return listed if isinstance(listed, list) else []


def _options(conf: Path, group: str, options: str, benchmark: str) -> str:
    return ",".join(_variants(conf, group, options.split(","), benchmark))


def _variants(conf: Path, group: str, options: Sequence[str], benchmark: str) -> Iterator[str]:
    for option in options:
        own = benchmark and (conf / group / option / f"{benchmark}.yaml").is_file()
        yield f"{option}/{benchmark}" if own else option
