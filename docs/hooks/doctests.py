"""A Griffe extension: shows the doctests of a docstring as code, wherever in it they stand."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # up to an empty line


class Doctests(griffe.Extension):
    """Fences what begins with `>>>`, which Markdown would take for quotations."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe calls this with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"\n```pycon\n\g<0>\n```\n", obj.docstring.value)
