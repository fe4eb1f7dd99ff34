"""How figures of this project look and are written: palette, canvas, axes. Everything on Agg, nothing global."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe & Ito's palette, which people with any of the common colour-vision deficiencies can tell apart; no yellow,
# which is too faint on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, LIGHT, INK = "#8C8C8C", "#E6E6E6", "#333333"
DPI = 150


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of so many inches that renders without a display."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, grid_axis: Any = "y") -> None:
    """Axes without a box, with a light grid behind the data."""
    axes.grid(axis=grid_axis, color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def written(figure: Figure, path: str | Path | None) -> Figure:
    """The figure, after it was written to the path (`.png` or `.svg`; missing folders are made), if there is one."""
    if path is not None:
        target = Path(path)
        if target.suffix not in (".png", ".svg"):
            raise ValueError(f"{target}: figures are written as .png or .svg")
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=DPI)
    return figure


def figure_image(figure: Figure) -> NDArray[np.uint8]:
    """The figure as pixels, shape (height, width, 3) uint8, at the figure's own dots an inch."""
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
