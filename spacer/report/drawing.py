"""Shared figure style and output: palette, sizes, canvas, axes. Everything is on Agg, without global state.

A figure is drawn twice: for the screen (`SCREEN`, PNG) at its best width, and for a paper (`COLUMN`), one column of
a two-column page wide, with type of at least 7 points, as a vector file (PDF).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe & Ito's palette, which stays distinguishable with all common colour-vision deficiencies; without yellow,
# which is too faint on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, LIGHT, INK = "#8C8C8C", "#E6E6E6", "#333333"
DPI = 150
KINDS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Look:
    """Sizes in a figure: type for titles, labels and small print, and lines and marks, all in points.

    `width` is the figure's width in inches, None where it may follow its contents.
    """

    title: float
    label: float
    small: float
    line: float
    mark: float
    width: float | None = None


SCREEN = Look(title=10, label=9, small=8, line=2.0, mark=6)
COLUMN = Look(title=7, label=7, small=7, line=1.2, mark=3.5, width=3.3)


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure, its size in inches, that renders without a display."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, grid_axis: Any = "y", look: Look = SCREEN) -> None:
    """Removes the box and draws a light grid behind the data."""
    axes.grid(axis=grid_axis, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=look.label, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def written(figure: Figure, path: str | Path | None) -> Figure:
    """Writes the figure to the path, if there is one (`KINDS`; missing folders are made), and returns it."""
    if path is not None:
        target = Path(path)
        if target.suffix not in KINDS:
            raise ValueError(f"{target}: figures are written as .png, .svg or .pdf")
        target.parent.mkdir(parents=True, exist_ok=True)
        # TrueType, since journals refuse Type 3; no date, so that equal figures give equal files
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            figure.savefig(target, dpi=DPI, metadata={"CreationDate": None} if target.suffix == ".pdf" else None)
    return figure


def for_screen_and_paper(draw: Callable[..., Figure], path: Path) -> None:
    """Draws a figure for the screen, to the path (`.png`), and for a paper, to a `.pdf` beside it."""
    written(draw(look=SCREEN), path)
    written(draw(look=COLUMN), path.with_suffix(".pdf"))


def figure_image(figure: Figure) -> NDArray[np.uint8]:
    """The figure as pixels, shape (height, width, 3) uint8, at the figure's own dpi."""
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
