"""Annotations of settings in words: what a value must be."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic.fields import FieldInfo

_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than", "multiple_of": "a multiple of"}


def options(hint: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The alternatives of an annotation, each with the metadata of its `Annotated`.

    >>> [option for option, _ in options(int | Annotated[str, "some"] | None)]
    [<class 'int'>, <class 'str'>, <class 'NoneType'>]
    """
    metadata: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *found = typing.get_args(hint)
        metadata = tuple(found)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            yield from options(option)
    else:
        yield hint, metadata


def sections(hint: Any) -> list[Any]:
    """The settings classes that an annotation allows."""
    return [option for option, _ in options(hint) if is_dataclass(option)]


def members(hint: Any) -> tuple[str, ...]:
    """The values that an annotation lists."""
    found: list[str] = []
    for option, _ in options(hint):
        if typing.get_origin(option) is Literal:
            found += map(str, typing.get_args(option))
        elif isinstance(option, type) and issubclass(option, Enum):
            found += (str(member.value) for member in option)
    return tuple(found)


def bound(metadata: Iterable[Any]) -> str:
    """The bounds of an annotation, and why they are there.

    >>> from pydantic import Field
    >>> bound([Field(ge=2, multiple_of=2, description="frames are read in pairs")])
    'at least 2 and a multiple of 2: frames are read in pairs'
    """
    words, why = [], []
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            why += [entry.description] if entry.description else []
        for single in entry.metadata if isinstance(entry, FieldInfo) else (entry,):
            words += [f"{word} {getattr(single, key)}" for key, word in _BOUNDS.items() if hasattr(single, key)]
    return ": ".join([" and ".join(words)] * bool(words) + why)


def describe(hint: Any) -> str:
    """
    >>> from pydantic import PositiveInt
    >>> describe(PositiveInt | None), describe(tuple[float, float])
    ('an integer (greater than 0) or null', 'a list [a number, a number]')
    """
    return " or ".join(_option(option, metadata) for option, metadata in options(hint))


def _option(option: Any, metadata: tuple[Any, ...]) -> str:
    origin, args = typing.get_origin(option), typing.get_args(option)
    listed = members(option)
    if listed:
        return "one of " * (len(listed) > 1) + ", ".join(listed)
    if is_dataclass(option):
        return f"a section with the keys {', '.join(field.name for field in fields(option))}"
    if origin is tuple and args[1:] == (...,):
        return f"a list, each {describe(args[0])}"
    if origin is tuple:
        return f"a list [{', '.join(map(describe, args))}]"
    if origin is dict:
        return f"a section of keys of your choice, each {describe(args[1])}"
    words = bound(metadata)
    return _NAMES[option] + (f" ({words})" if words else "")
