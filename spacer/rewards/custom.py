"""Rewards from a user's own file, called as TRL calls its reward functions: by keyword, a list for each field."""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from spacer.config.settings import RewardFunctionSettings
from spacer.errors import UserError
from spacer.rewards.extract import thinking_text
from spacer.rewards.maps import has_map, written_map
from spacer.rewards.reading import final_text

_SHOWN = 300  # characters of a completion that an error shows


class Question(Protocol):
    """What rewards read of the question that the completions answer."""

    @property
    def id(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def problem_type(self) -> str: ...
    @property
    def question_type(self) -> str: ...
    @property
    def options(self) -> Sequence[str]: ...
    @property
    def solution(self) -> str: ...
    @property
    def true_map(self) -> Mapping[str, Sequence[Sequence[float]]] | None: ...


def _drawn(question: Question, completion: str) -> dict[str, list[tuple[int, int]]] | None:
    return written_map(completion, question.true_map or ()) if has_map(completion) else None


# keyword → its value for one completion; `completions` and `tokens` come beside them
FIELDS: Mapping[str, Callable[[Question, str], Any]] = {
    "id": lambda question, _: question.id,
    "question": lambda question, _: question.problem,
    "question_type": lambda question, _: question.question_type,
    "problem_type": lambda question, _: question.problem_type,
    "options": lambda question, _: list(question.options),
    "solution": lambda question, _: question.solution,
    "true_map": lambda question, _: question.true_map,
    "map": _drawn,
    "thinking": lambda _, completion: thinking_text(completion),
    "answer": lambda _, completion: final_text(completion),
}
KEYWORDS = ("completions", "tokens", *FIELDS)


@dataclass(frozen=True)
class CustomReward:
    """A function of the user's with its weight; `name` is that of its term."""

    name: str
    weight: float
    file: str
    function: Callable[..., Any]

    def __call__(self, question: Question, completions: Sequence[str], tokens: Sequence[int]) -> list[float | None]:
        """What the function adds to the reward of each completion of a question, None where it does not apply.

        Raises:
            UserError: the function raises, or gives anything but a finite number or None for each completion.
        """
        taken = inspect.signature(self.function).parameters
        whole = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        given: dict[str, list[Any]] = {}
        for keyword in KEYWORDS if whole else taken.keys() & set(KEYWORDS):
            field = FIELDS.get(keyword)
            whole_group = tokens if keyword == "tokens" else completions
            given[keyword] = list(whole_group) if field is None else [field(question, text) for text in completions]
        try:
            found = self.function(**given)
        except Exception as error:
            raise UserError(f"{self._blame(error)}: {_said(error)}{_about(question, completions)}") from error
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(completions):
            raise UserError(
                f"{self._at}: gave {_short(found)} for {len(completions)} completions: it must give a list with a "
                f"number, or None, for each{_about(question, completions)}"
            )
        return [self._weighted(value, question, text) for value, text in zip(found, completions, strict=True)]

    def _weighted(self, value: Any, question: Question, completion: str) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{self._at}: gave {_short(value)}: it must be a finite number, or None where the reward does not "
                f"apply{_about(question, [completion])}"
            )
        return self.weight * number

    @property
    def _at(self) -> str:
        return f"{self.file}:{self.function.__code__.co_firstlineno}: reward {self.name}"

    def _blame(self, error: Exception) -> str:
        """The last line of the user's own file that the error passed through."""
        line = _line_of(error, self.file)
        if line is None:
            return self._at
        code = linecache.getline(self.file, line).strip()
        return f"{self.file}:{line}: reward {self.name}: `{code}`"


def load_custom(functions: Sequence[RewardFunctionSettings]) -> tuple[CustomReward, ...]:
    """Imports the files of the user's reward functions: their code runs.

    Raises:
        UserError: a file cannot be imported, or a function asks for what there is none of.
    """
    return tuple(_load(settings) for settings in functions)


def _load(settings: RewardFunctionSettings) -> CustomReward:
    file, name = str(settings.file), settings.function
    function = getattr(_module(file), name, None)
    if not inspect.isfunction(function):
        raise UserError(f"{file}: {name} is no function but {_short(function)}")
    for parameter in inspect.signature(function).parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and (parameter.name not in KEYWORDS or parameter.kind is parameter.POSITIONAL_ONLY):
            raise UserError(
                f"{file}:{function.__code__.co_firstlineno}: {name} asks for {parameter.name!r}, which is not given; "
                f"it is called by keyword, with any of {', '.join(KEYWORDS)}"
            )
    return CustomReward(name, settings.weight, file, function)


@cache  # a file is imported once, so that its functions share what it holds
def _module(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"spacer_reward_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{file}:{_line_of(error, file) or 1}: cannot be imported: {_said(error)}") from error
    return module


def _line_of(error: Exception, file: str) -> int | None:
    """The last line of a file that an error passed through, if it did."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _about(question: Question, completions: Sequence[str]) -> str:
    shown = completions[0] if completions else ""
    return f"\n  question {question.id}, completion: {_short(shown)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
