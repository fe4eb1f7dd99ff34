"""Keeps secrets from the environment out of files and logs, by writing the interpolation in place of the value.

A secret is the value of an environment variable whose name contains TOKEN, KEY, SECRET, PASSW or CREDENTIAL, if it has
at least `SHORTEST` characters and is not an existing path. Whether it came into the configuration through
`${oc.env:HF_TOKEN}` or through the shell, `${oc.env:HF_TOKEN}` is written, so the configuration can be reused.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spacer.terminal.printable import printable

SHORTEST = 8
_NAMES = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with each secret replaced by its interpolation."""
    for value, name in _secrets():
        text = text.replace(value, f"${{oc.env:{name}}}")
    return text


def masked_overrides(words: Iterable[str]) -> list[str]:
    """Command-line overrides in which secrets that the shell has expanded are replaced by interpolations.

    This keeps them out of what Hydra writes and pickles, out of folder names, and out of the process list.
    """
    parts = (word.partition("=") for word in words)
    return [f"{key}{equals}{masked(value)}" for key, equals, value in parts]


def told(text: str) -> str:
    """The text as it is logged or printed: without secrets and control characters."""
    return printable(masked(text))


def masked_values(values: Any) -> Any:
    """Nested mappings and sequences with all strings masked."""
    if isinstance(values, str):
        return masked(values)
    if isinstance(values, Mapping):
        return {key: masked_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked_values(value) for value in values]
    return values


def mask_files(folder: Path) -> None:
    """Masks secrets in the YAML files that Hydra has written to a folder."""
    for file in folder.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        if masked(text) != text:
            file.write_text(masked(text), encoding="utf-8")


class Masking(logging.Filter):
    """A logging filter that masks secrets and escapes control characters."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Masks the message, and the traceback if there is one."""
        record.msg, record.args = told(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = told(logging.Formatter().formatException(record.exc_info))
        return True


def mask_logs() -> None:
    """Adds the filter to the root logger's current handlers."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Masking())


def _secrets() -> list[tuple[str, str]]:
    """(value, name) of the secret variables, longer values first, since one may contain another."""
    found = [
        (value, name)
        for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= SHORTEST and not os.path.exists(value)
    ]
    return sorted(found, key=lambda entry: -len(entry[0]))
