"""A Rich console that prints text literally: neither control characters nor markup like `[bold]` have an effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from spacer.terminal.printable import printable


class _Shown:
    """Escapes control characters in the text of a renderable; those that Rich adds itself are kept."""

    def __init__(self, drawn: ConsoleRenderable) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._drawn, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Showing(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wraps each renderable that is printed."""
        return [_Shown(drawn) for drawn in renderables]


def screen(**options: Any) -> Console:
    """A console, with Rich's options, that prints text literally; pass styles as `style`, not as markup."""
    console = Console(markup=False, emoji=False, highlight=False, **options)
    console.push_render_hook(_Showing())
    return console
