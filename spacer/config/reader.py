"""Reads a composed config into the settings classes, by pydantic, and collects what they do not allow."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Discriminator, Tag, ValidationError
from pydantic_core import ErrorDetails

from spacer.config.describe import describe, members, options, sections
from spacer.config.settings import Settings
from spacer.config.settings.section import AsIs
from spacer.files import parse_yaml, read_ordinary

T = TypeVar("T")


class _Unreadable(AttributeError):  # so that hasattr and inspect handle it
    """Raised when a rule uses a value that could not be read."""


def readable(function: Callable[..., T], *arguments: Any) -> T | None:
    """The function's result; None if it uses an unreadable value, which is already among the problems."""
    try:
        return function(*arguments)
    except _Unreadable:
        return None


class _Bad:
    """Placeholder for an unreadable value, so that all others are still checked; rules that use it are skipped."""

    def __repr__(self) -> str:
        return "???"

    def _use(self, *_: object) -> NoReturn:
        raise _Unreadable

    __getattr__ = __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _use
    __contains__ = __iter__ = __len__ = __mod__ = __rmod__ = __format__ = __fspath__ = _use


_BAD: Any = _Bad()
_DEEPEST = 16  # a section nested deeper than this contains itself, through an interpolation
# mistakes after which the rules across fields still see the value
_OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of")


@dataclass(frozen=True)
class _Place:
    """Where in a config a mistake is: at `path`, in the `field` of the section `within`, which is read as a `cls`."""

    path: str
    hint: Any  # the annotation there; None: there is no such field
    within: dict[str, Any]
    field: str
    cls: Any
    choice: Any  # the annotation by which `cls` was chosen among several


class Reader:
    """Reads OmegaConf nodes into the settings classes, and collects problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def fail(self, path: str, message: str) -> AsIs:
        self.problems.append(f"{path}: {message}")
        return AsIs(_BAD)

    def resolve(self, node: DictConfig | ListConfig, path: str) -> Any:
        """Plain dicts, tuples and values; a missing value or a failing interpolation is recorded as a problem."""
        if isinstance(node, DictConfig):
            return {str(key): self._item(node, key, _join(path, key)) for key in node}
        return tuple(self._item(node, index, f"{path}[{index}]") for index in range(len(node)))

    def _item(self, node: DictConfig | ListConfig, key: Any, path: str) -> Any:
        if OmegaConf.is_missing(node, key):
            return self.fail(path, f"must be set: add {path}=…")
        if path.count(".") > _DEEPEST:
            return self.fail(path, "an interpolation makes this section contain itself")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            # the first line says what happened; the rest is about OmegaConf's types
            return self.fail(path, "its interpolation fails: " + str(error).partition("\n")[0])
        return self.resolve(value, path) if isinstance(value, DictConfig | ListConfig) else value

    def read_prompts(self, values: Any, path: str) -> None:
        """Replaces `prompts`, here or in a mix's parts, by the templates in `prompts_file`."""
        if not isinstance(values, dict):
            return
        parts = values.get("parts")
        for name, part in (parts if isinstance(parts, dict) else {}).items():
            self.read_prompts(part, f"{path}.parts.{name}")
        file = values.get("prompts_file")
        if isinstance(file, str):
            try:
                templates = parse_yaml(read_ordinary(Path(file).expanduser()).decode())
            except (OSError, ValueError) as error:
                values["prompts"] = self.fail(f"{path}.prompts_file", f"{file} cannot be read as YAML: {error}")
                return
            if not isinstance(templates, dict):
                values["prompts"] = self.fail(f"{path}.prompts_file", f"{file} must hold names and templates")
                return
            values["prompts"] = {str(name): text for name, text in templates.items()}  # to YAML, `on` is true

    def refuse_nameless(self, values: dict[str, Any], path: str) -> None:
        """If settings are given to a benchmark although none is chosen, says where they belong."""
        given = values.get(path)
        if isinstance(given, dict) and "name" not in given:
            values[path] = None
            self.fail(
                path,
                f"{', '.join(f'{path}.{key}' for key in given)} set, and no benchmark is chosen: choose "
                f"{path}=vsi_bench or another; how held-out questions are asked is under evaluation "
                "(evaluation.temperature=0), what is never trained on under dataset (dataset.guard, dataset.exclude)",
            )

    def read(self, values: dict[str, Any]) -> Settings:
        """The settings; what could not be read is unreadable in them, see `readable`."""
        while True:
            try:
                return Settings(**values)
            except ValidationError as error:
                self._set_aside(values, error.errors(include_url=False))

    def _set_aside(self, values: dict[str, Any], mistakes: list[ErrorDetails]) -> None:
        """Reports mistakes, once for each place, and changes `values` so that all else can be read."""
        seen: set[str] = set()
        places = [_place(values, mistake["loc"]) for mistake in mistakes]
        assert not any(isinstance(place.within.get(place.field), AsIs) for place in places), mistakes
        misplaced = self._refuse_other_kinds(values, [place for place in places if place.hint is None])
        for place, mistake in zip(places, mistakes, strict=True):
            if _section(place) in misplaced:
                continue
            if place.path not in seen and not isinstance(mistake["input"], AsIs):  # which was reported before
                self.problems += _said(place, mistake)
            seen.add(place.path)
            if place.hint is None:
                del place.within[place.field]
                continue
            given = place.within.get(place.field)
            kept = mistake["type"] in _OUT_OF_BOUNDS
            place.within[place.field] = given if isinstance(given, AsIs) else AsIs(given if kept else _BAD)

    def _refuse_other_kinds(self, values: dict[str, Any], unknown: list[_Place]) -> set[str]:
        """Reports, in one message per section, several keys that only other kinds of it have; returns those sections.

        The keys are removed. If the kind itself was set by hand, the section becomes unreadable.
        """
        keys: dict[str, list[_Place]] = {}
        for place in unknown:
            if _kinds_with(place, [place.field]):
                keys.setdefault(_section(place), []).append(place)
        refused = {section: strangers for section, strangers in keys.items() if len(strangers) > 1}
        for section, strangers in refused.items():
            first, names = strangers[0], [place.field for place in strangers]
            key, _ = _chosen_by(first.choice)
            others = _kinds_with(first, names)
            if whole := [tag for tag in others if set(_keys(_kinds(first.choice)[tag])) <= first.within.keys()]:
                self.fail(
                    f"{section}.{key}",
                    f"is {_show(first.within[key])} beside the settings of {whole[0]}: choose {section}=NAME of that "
                    f"kind, which sets {section}.{key} and all that belongs to it; python run.py --help lists names",
                )
                *above, last = section.split(".")
                reduce(dict.__getitem__, above, values)[last] = AsIs(_BAD)
                continue
            self.fail(
                section,
                f"{', '.join(names)} are unknown keys where {section}.{key}={first.within[key]}, though keys of "
                + ", ".join(others or _kinds_with(first, names[:1]))
                + ": leave them out, or where a file sets them, take them away with "
                + " ".join(f"~{place.path}" for place in strangers),
            )
            for place in strangers:
                del place.within[place.field]
        return set(refused)


def _place(values: dict[str, Any], steps: tuple[int | str, ...]) -> _Place:
    """Where pydantic's steps lead. Some are not keys but names of alternatives: `devices`, then `int`."""
    place = _Place("", Settings, values, "", Settings, None)
    value: Any = values
    for step in steps:
        hint, path = place.hint, f"{place.path}.{step}" if place.path else str(step)
        found = sections(hint)
        kept = next((option for option, _ in options(hint) if typing.get_origin(option) in (dict, tuple)), None)
        if len(found) > 1:
            chosen = next(option for option, metadata in options(hint) if Tag(str(step)) in metadata)
            place = replace(place, hint=chosen, choice=hint)
        elif found:
            choice = place.choice if place.hint in sections(place.choice) else None
            known = str(step) in _keys(found[0])
            inner = typing.get_type_hints(found[0], include_extras=True)[str(step)] if known else None
            place = _Place(path, inner, value, str(step), found[0], choice)
            value = value.get(step)
        elif typing.get_origin(kept) is dict:
            place, value = replace(place, path=path, hint=typing.get_args(kept)[1]), value[step]
        elif kept is not None:
            assert isinstance(step, int)
            if step >= len(value):  # the list is too short
                break
            arguments = typing.get_args(kept)
            inner = arguments[0 if arguments[1:] == (...,) else step]
            place, value = replace(place, path=f"{place.path}[{step}]", hint=inner), value[step]
    return place


def _said(place: _Place, mistake: ErrorDetails) -> list[str]:
    """The message for a mistake: the value, the rule and the remedy."""
    value = mistake["input"]
    if place.hint is None:
        return [f"{place.path}: unknown key{_where_known(place)}. Valid keys here: {', '.join(_keys(place.cls))}"]
    if mistake["type"] == "missing" and place.field not in place.within:
        return [f"{place.path}: must be set: add {place.path}=…"]
    if mistake["type"] in ("union_tag_invalid", "union_tag_not_found") and isinstance(value, dict):
        key, names = _chosen_by(place.hint)
        given = value.get(key)
        if isinstance(given, AsIs):
            return []
        said = f"is {_show(given)}{_did_you_mean(given, names)}, must be" if key in value else "must be set:"
        return [f"{place.path}.{key}: {said} one of {', '.join(names)}"]
    if mistake["type"] == "finite_number":
        return [f"{place.path}: is {_show(value)}, must be finite"]
    several = len(sections(place.hint)) > 1
    words = f"a section with the key {_chosen_by(place.hint)[0]}" if several else describe(place.hint)
    takes_text = any(option is str for option, _ in options(place.hint))
    quote = f": quote it, {place.path}='\"…\"'" if takes_text and isinstance(value, bool | int | float) else ""
    return [f"{place.path}: is {_show(value)}{_did_you_mean(value, members(place.hint))}, must be {words}{quote}"]


def _where_known(place: _Place) -> str:
    """A key that is close to an unknown one, or the other kinds of section that have it."""
    kinds = _kinds_with(place, [place.field])
    if not kinds:
        return _did_you_mean(place.field, _keys(place.cls))
    section, (key, _) = _section(place), _chosen_by(place.choice)
    return (
        f" where {section}.{key}={place.within[key]}, though one of {', '.join(kinds)}: leave it out, or where a file "
        f"sets it, take it away with ~{place.path}"
    )


def _chosen_by(union: Any) -> tuple[str, list[str]]:
    """The key that chooses among several sections, and its values."""
    chosen: Any = next(entry for entry in typing.get_args(union) if isinstance(entry, Discriminator))
    return chosen.discriminator.__name__, list(_kinds(union))


def _kinds(union: Any) -> dict[str, Any]:
    """The sections that can be chosen, by the value of the key that chooses."""
    return {entry.tag: option for option, metadata in options(union) for entry in metadata if isinstance(entry, Tag)}


def _kinds_with(place: _Place, names: Iterable[str]) -> list[str]:
    """The kinds of the section at hand that have all of these keys."""
    return [tag for tag, cls in _kinds(place.choice).items() if set(names) <= set(_keys(cls))]


def _section(place: _Place) -> str:
    """The path of the section that a key stands in."""
    return place.path.removesuffix(f".{place.field}")


def _keys(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]


def _show(value: Any) -> str:
    if value is None:
        return "null"
    value = list(value) if isinstance(value, tuple) else value
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _did_you_mean(word: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
