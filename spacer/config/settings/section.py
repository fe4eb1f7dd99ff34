"""What all settings classes share: how strictly a section is read, and the place of a value that could not be read.

Bounds stand beside the fields that they bound, as annotations; `Field(description=…)` says why a bound is there or what
a text looks like. `spacer.config.describe` puts both into words, for messages and for the pages of the site.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic.dataclasses import dataclass

# unknown keys are refused, and types must match: "yes" is no bool, 8.0 and true are no integers
CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class AsIs:
    """A value that a section accepts unchecked: a placeholder for one already reported as a mistake."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True, config=CONFIG)
class Section:
    """The base of all settings classes."""

    @model_validator(mode="wrap")
    @classmethod
    def _from_mapping(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        return cls(**value) if isinstance(value, dict) else check(value)  # a strict dataclass takes no mapping itself

    @field_validator("*", mode="wrap")
    @classmethod
    def _take(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        return value.value if isinstance(value, AsIs) else check(value)


def kind(section: Any) -> Any:
    """The `kind` by which the class of a section is chosen among several: of a mapping, or of an instance."""
    return section.get("kind") if isinstance(section, dict) else getattr(section, "kind", None)


def name(section: Any) -> Any:
    """The `name` by which the class of a section is chosen among several: of a mapping, or of an instance."""
    return section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
