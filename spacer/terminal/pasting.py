"""Formats overrides and commands so that they can be pasted into a shell (pure)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable


def pasted(key: str, value: str) -> str:
    """An override to paste into a shell: quoted for Hydra and for the shell, if needed.

    >>> pasted("hydra.run.dir", "/runs/a")
    'hydra.run.dir=/runs/a'
    >>> print(pasted("hydra.run.dir", "/runs/seed=0,b [c]"))
    "hydra.run.dir='/runs/seed=0,b [c]'"
    """
    if re.fullmatch(r"[\w./+-]+", value, flags=re.ASCII):
        return f"{key}={value}"
    return _word(f"{key}={quoted(value)}")


def pasted_list(key: str, values: Iterable[str]) -> str:
    """An override whose value is a list of strings.

    >>> print(pasted_list("runs", ["/runs/a", "/runs/b c"]))
    "runs=['/runs/a','/runs/b c']"
    """
    return _word(f"{key}=[{','.join(quoted(value) for value in values)}]")


def quoted(text: str) -> str:
    r"""A string as a quoted value on Hydra's command line.

    >>> print(quoted("it's"))
    'it\'s'
    """
    # Hydra takes backslashes literally, except before a quote or the end of the string
    inner = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{inner}'"


def _word(text: str) -> str:
    return f'"{text}"' if not set(text) & set('"$`\\!') else shlex.quote(text)
