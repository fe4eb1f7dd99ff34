"""From a composed Hydra config to typed `Settings`, with every mistake reported at once.

Three kinds are looked for: what the dataclasses of `spacer.settings` do not allow (read off their fields and
annotations), values out of range (`spacer.checks`), and values that contradict each other (`spacer.rules`). Nothing
heavy is imported, so that a mistake shows within a second. `spacer.weights` checks the model's files.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spacer.checks import CHECKS, NEED_NO_DATA
from spacer.errors import UserError
from spacer.faults import PROMPTS_RULE, prompt_faults, run_faults
from spacer.implied import asked_benchmarks, sections
from spacer.rules import DATASET_RULES, RULES
from spacer.settings import Settings

T = TypeVar("T")


class ConfigError(UserError):
    """Every mistake found in a config, in `problems`.

    >>> print(ConfigError(["seed: must be set: add seed=…"]))
    1 mistake in the configuration:
      1. seed: must be set: add seed=…
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)  # not the text: a pickled error is made again from these arguments
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{count} mistake{'' if count == 1 else 's'} in the configuration:"]
        for number, problem in enumerate(self.problems, 1):
            lines.append(f"{number:3}. " + problem.replace("\n", "\n     "))
        return "\n".join(lines)


def forgiving(words: list[str], groups: set[str]) -> list[str]:
    """The command line with `key=value` as `++key=value`, so that Hydra lets an unknown key pass.

    Hydra would stop at the first; `load_settings` then names all of them together with what else is wrong. Not so in
    a sweep, where `++seed=7` would stand beside the `seed=0,1,2` of its file and not in its place.

    >>> forgiving(["reward=grpo", "objective.bta=0", "hydra.run.dir=x"], {"reward"})
    ['reward=grpo', '++objective.bta=0', 'hydra.run.dir=x']
    >>> forgiving(["-m", "objective.bta=0"], {"reward"})
    ['-m', 'objective.bta=0']
    """
    if any(word in ("-m", "--multirun") or word.startswith("sweeps=") for word in words):
        return words

    def is_value(word: str) -> bool:
        key, equals, _ = word.partition("=")
        return bool(equals) and key[:1] not in "+~-" and "/" not in key and key not in groups and key[:6] != "hydra."

    return [f"++{word}" if is_value(word) else word for word in words]


def load_settings(cfg: DictConfig) -> Settings:
    """Resolves and checks a composed config. Raises ConfigError that lists all mistakes."""
    reader = _Reader()
    values = reader.resolve(_without_data(cfg), "")
    reader.read_prompts(values.get("dataset"), "dataset")
    settings = reader.section(values, (Settings,), "")
    problems = reader.problems

    for broken, message in RULES:
        if _readable(broken, settings):
            problems.append(message.format(s=settings))
    problems += _readable(run_faults, settings) or ()
    for at, dataset in _readable(sections, settings) or ():
        for breaks, said in DATASET_RULES:
            if _readable(breaks, dataset, settings):
                problems.append(said.format(s=settings, d=dataset, at=at))
        problems += [f"{at}.prompts: {fault}. {PROMPTS_RULE}" for fault in _readable(prompt_faults, dataset) or ()]
    for at, benchmark in _readable(asked_benchmarks, settings) or ():
        found = _readable(prompt_faults, benchmark) or ()
        problems += [f"{at}.prompts: {fault}. {PROMPTS_RULE}" for fault in found]
        if benchmark.root is None or not os.path.isdir(os.path.expanduser(benchmark.root)):
            problems.append(
                f"{at}.root={benchmark.root} is not an existing folder: set {at}.root=DIR to the benchmark's files, "
                "as its authors distribute them"
            )
    if problems:
        raise ConfigError(problems)
    assert isinstance(settings, Settings)
    return settings


def _without_data(cfg: DictConfig) -> DictConfig:
    """The config with `dataset.root` empty where it must be set but the stage needs no data."""
    if OmegaConf.select(cfg, "stage.name") not in NEED_NO_DATA:
        return cfg
    cfg = copy.deepcopy(cfg)
    dataset = cfg.get("dataset")
    parts = dataset.get("parts") if isinstance(dataset, DictConfig) else None
    for part in (dataset, *(parts.values() if isinstance(parts, DictConfig) else ())):
        if isinstance(part, DictConfig) and OmegaConf.is_missing(part, "root"):
            part.root = ""
    return cfg


class _Unreadable(AttributeError):  # so that hasattr and inspect get along with what raises it
    """A rule looked at a value that could not be read."""


def _readable(function: Callable[..., T], *arguments: Any) -> T | None:
    """What the function returns; None where it looks at what could not be read, which is among the problems already."""
    try:
        return function(*arguments)
    except _Unreadable:
        return None


class _Bad:
    """Stands where a value could not be read, so that all others are still checked: a rule that uses it is skipped."""

    def __repr__(self) -> str:
        return "???"

    def _use(self, *_: object) -> NoReturn:
        raise _Unreadable

    __getattr__ = __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _use
    __contains__ = __iter__ = __len__ = __mod__ = __rmod__ = __format__ = __fspath__ = _use


_BAD: Any = _Bad()
# what holds for a data set holds for one in a mix, and for a benchmark for one of several
_PART = re.compile(r"^(?:(dataset)\.parts|(benchmark)s)\.[^.]+\.")
_DEEPEST = 16  # a section nested deeper contains itself, by an interpolation


class _Reader:
    """Reads OmegaConf's nodes into dataclasses as their annotations say, and collects problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def fail(self, path: str, message: str) -> Any:
        self.problems.append(f"{path}: {message}")
        return _BAD

    def resolve(self, node: DictConfig | ListConfig, path: str) -> Any:
        """Plain dicts, lists and values; a missing value or a failing interpolation is a problem."""
        if isinstance(node, DictConfig):
            return {str(key): self._item(node, key, _join(path, key)) for key in node}
        return [self._item(node, index, f"{path}[{index}]") for index in range(len(node))]

    def _item(self, node: DictConfig | ListConfig, key: Any, path: str) -> Any:
        if OmegaConf.is_missing(node, key):
            return self.fail(path, f"must be set: add {path}=…")
        if path.count(".") > _DEEPEST:
            return self.fail(path, "an interpolation makes this section contain itself")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            # the first line says what happened; the others are about OmegaConf's types
            return self.fail(path, "its interpolation fails: " + str(error).partition("\n")[0])
        return self.resolve(value, path) if isinstance(value, DictConfig | ListConfig) else value

    def read_prompts(self, values: Any, path: str) -> None:
        """Puts the templates of `prompts_file`, here or in a mix's parts, in the place of `prompts`."""
        if not isinstance(values, dict):
            return
        parts = values.get("parts")
        for name, part in (parts if isinstance(parts, dict) else {}).items():
            self.read_prompts(part, f"{path}.parts.{name}")
        file = values.get("prompts_file")
        if isinstance(file, str):
            try:
                templates = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                values["prompts"] = self.fail(f"{path}.prompts_file", f"{file} cannot be read as YAML: {error}")
                return
            if not isinstance(templates, dict):
                values["prompts"] = self.fail(f"{path}.prompts_file", f"{file} must hold names and templates")
                return
            values["prompts"] = templates

    def section(self, values: dict[str, Any], classes: tuple[Any, ...], path: str) -> Any:
        """An instance of that one of `classes` which `_target_` names; needless where there is only one."""
        # looked up among the annotated classes, never imported: a config cannot run code
        by_target = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}
        only = next(iter(by_target)) if len(by_target) == 1 else None
        target = values.get("_target_", only)
        if target is _BAD:
            return _BAD
        if not isinstance(target, str) or target not in by_target:
            given = "must be set" if target is None else f"{target!r} is not allowed{_did_you_mean(target, by_target)}"
            self.fail(_join(path, "_target_"), f"{given}. Valid here: {', '.join(by_target)}")
            if only is None:
                return _BAD
            target = only
        cls = by_target[target]
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in fields and key != "_target_":
                known = f"Valid keys here: {', '.join(fields)}"
                self.fail(_join(path, key), f"unknown key{_did_you_mean(key, fields)}. {known}")
        arguments = {}
        for name, field in fields.items():
            if name in values:
                arguments[name] = self.value(values[name], hints[name], _join(path, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                arguments[name] = self.fail(_join(path, name), f"must be set: add {_join(path, name)}=…")
        return cls(**arguments)

    def value(self, value: Any, hint: Any, path: str) -> Any:
        """`value` as the annotation `hint` wants it."""
        options = _options(hint)
        if value is _BAD or (value is None and type(None) in options):
            return value
        sections = tuple(option for option in options if dataclasses.is_dataclass(option))
        if sections and isinstance(value, dict):
            return self.section(value, sections, path)
        for option in options:
            origin, args = typing.get_origin(option), typing.get_args(option)
            if origin is dict and isinstance(value, dict):
                return {key: self.value(item, args[1], _join(path, key)) for key, item in value.items()}
            if origin is tuple and args[1:] == (...,) and isinstance(value, list):
                return tuple(self.value(item, args[0], f"{path}[{i}]") for i, item in enumerate(value))
            if origin is tuple and isinstance(value, list) and len(value) == len(args):
                return tuple(self.value(item, args[i], f"{path}[{i}]") for i, item in enumerate(value))
            if (read := _scalar(value, option)) is not _BAD:
                check = CHECKS.get(_PART.sub(r"\1\2.", path.partition("[")[0]))
                if check and not check.passes(read):
                    self.fail(path, f"is {_show(value)}{_did_you_mean(read, check.names)}, must be {check.words}")
                return read  # also when out of range, so that the rules still see it
        members = [str(member.value) for option in options if _is_enum(option) for member in option]
        quote = f": quote it, {path}='\"…\"'" if str in options and isinstance(value, bool | int | float) else ""
        return self.fail(path, f"is {_show(value)}{_did_you_mean(value, members)}, must be {_describe(options)}{quote}")


def _scalar(value: Any, hint: Any) -> Any:
    """`value` if it is of the type `hint`, else _BAD. Types are exact, since to Python a bool is an int."""
    if _is_enum(hint):
        return next((member for member in hint if value in (member, member.value)), _BAD)
    if hint is float:
        return float(value) if type(value) in (int, float) and not math.isnan(value) else _BAD
    return value if type(value) is hint else _BAD


def _options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of `A | B`."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def _describe(options: Iterable[Any]) -> str:
    """
    >>> _describe([int, type(None)]), _describe([tuple[float, float]])
    ('an integer or null', 'a list [a number, a number]')
    """
    words = []
    for option in options:
        origin, args = typing.get_origin(option), typing.get_args(option)
        if _is_enum(option):
            words.append("one of " + ", ".join(str(member.value) for member in option))
        elif dataclasses.is_dataclass(option):
            words.append(f"a section with the keys {', '.join(field.name for field in dataclasses.fields(option))}")
        elif origin is tuple and args[1:] == (...,):
            words.append(f"a list, each {_describe(_options(args[0]))}")
        elif origin is tuple:
            words.append(f"a list [{', '.join(_describe(_options(arg)) for arg in args)}]")
        elif origin is dict:
            words.append(f"a section of keys of your choice, each {_describe(_options(args[1]))}")
        else:
            assert option in _NAMES, f"spacer.config reads no settings annotated {option}: teach it, or annotate anew"
            words.append(_NAMES[option])
    return " or ".join(words)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _did_you_mean(word: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
