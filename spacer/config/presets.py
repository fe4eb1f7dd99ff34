"""`benchmark/protocol=NAME` in the command line, for whichever benchmarks are asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from spacer.config.load import ConfigError

GROUPS = ("benchmark/protocol", "benchmark/prompts")


def placed(words: Sequence[str], conf: Path) -> list[str]:
    """The words, in which a protocol or prompts chosen for all benchmarks are chosen for each of them.

    Hydra places a group by the section that it fills: `benchmark/protocol@benchmark` for one benchmark, and one such
    choice for each of `benchmark=all`. A protocol that has a file for a benchmark, `protocol/NAME/BENCHMARK.yaml`, is
    that file there.

    Args:
        words: the command line.
        conf: the folder of the configuration.

    Raises:
        ConfigError: a protocol's name is set by hand; or a sweep is over benchmarks, or over the protocols of several,
            so that its jobs would not be asked as named.
    """
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    name = chosen.get("benchmark", "")
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


def _parts(file: Path) -> list[str]:
    """The benchmarks that a file puts together; none for one benchmark, or without the file."""
    try:
        defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", ())
    except (OSError, ValueError, yaml.YAMLError):
        return []  # Hydra says what is wrong with it
    return [str(entry).rpartition("@benchmarks.")[2] for entry in defaults if "@benchmarks." in str(entry)]


def _options(conf: Path, group: str, options: str, benchmark: str) -> str:
    return ",".join(_variants(conf, group, options.split(","), benchmark))


def _variants(conf: Path, group: str, options: Sequence[str], benchmark: str) -> Iterator[str]:
    for option in options:
        own = benchmark and (conf / group / option / f"{benchmark}.yaml").is_file()
        yield f"{option}/{benchmark}" if own else option
