"""The one look of the tables that stages print."""

from __future__ import annotations

from rich import box
from rich.padding import PaddingDimensions
from rich.table import Table
from rich.text import Text


def plain_table(title: str, caption: str | None = None, *, padding: PaddingDimensions = (0, 1, 0, 0)) -> Table:
    """A table without columns: a line under its head, no frame, the caption to the left.

    >>> table = plain_table("rooms: [2]")
    >>> str(table.title), table.show_edge
    ('rooms: [2]', False)
    """
    return Table(
        title=Text(title),
        caption=caption,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=padding,
        caption_justify="left",
    )
