"""The figure of a cognitive map: true and predicted object centres on the grid, beside a video frame."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spacer.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SCREEN,
    SKY,
    VERMILION,
    Look,
    new_figure,
    written,
)

Point = tuple[float, float]  # x, y on the grid
_TITLE, _LINE = 105, 0.17  # characters of a line of the title, inches of a further one


def map_overlay(
    frame: NDArray[np.uint8],
    true_map: Mapping[str, Sequence[Any]],
    predicted_map: Mapping[str, Sequence[Any]],
    path: str | Path | None = None,
    *,
    title: str = "",
    look: Look = SCREEN,
) -> Figure:
    """A video frame beside the 10x10 grid with the true centres (filled) and the predicted ones (hollow).

    A thin line joins each predicted centre to the true one that the map reward matches it with, within a category and
    closest pair first. Predicted centres without a line are invented; true centres without a line are missed.

    Args:
        frame: RGB, shape (height, width, 3), uint8.
        true_map: category to its centres [x, y] on the grid, x to the right and y up.
        predicted_map: the same for a completion; points outside the grid are drawn at its edge.
        path: where to write, or None.
        title: above both halves; a paper column has no room for it, and puts the grid below the frame.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be (height, width, 3) uint8, not {frame.shape} {frame.dtype}")
    # Positions are fixed: many of these are drawn during training, where a layout solver would cost more than drawing.
    wide = look.width is None
    lines = textwrap.wrap(title, _TITLE)
    tall = 4.4 + _LINE * max(0, len(lines) - 1) if wide else 4.6
    figure = new_figure(look.width or 10, tall, layout=None)
    if wide:
        top, said = 1 - 0.13 / tall, "\n".join(lines)
        figure.text(0.02, top, said, fontsize=look.title, fontweight="bold", va="top", parse_math=False)
    # a long title makes the figure taller, not what is below it
    high = 4.4 / tall if wide else 1.0
    picture = figure.add_axes((0.02, 0.09 * high, 0.37, 0.8 * high) if wide else (0.06, 0.68, 0.42, 0.31))
    picture.imshow(frame)
    picture.set_axis_off()
    picture.set_anchor("W")
    axes = figure.add_axes((0.44, 0.12 * high, 0.335, 0.76 * high) if wide else (0.08, 0.07, 0.8, 0.575))
    axes.set_aspect("equal")
    axes.set(xlim=(-0.7, 9.7), ylim=(-0.7, 9.7), xticks=range(10), yticks=range(10))
    axes.set_xlabel("x", fontsize=look.title)
    axes.set_ylabel("y", fontsize=look.title)
    axes.tick_params(labelsize=look.small, length=0)
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_color("#CCCCCC")
    styles = _category_styles([*true_map, *predicted_map])
    true = {category: [_on_grid(point) for point in points] for category, points in true_map.items()}
    predicted = {category: [_on_grid(point) for point in points] for category, points in predicted_map.items()}
    shift, shared = _shifts(true, predicted)
    if shared:
        axes.set_title("objects on one point are drawn around it", fontsize=look.small, loc="left", color=INK, pad=2)
    for category, (colour, marker) in styles.items():
        true_at = [shift(category, point) for point in true.get(category, ())]
        predicted_at = [shift(category, point) for point in predicted.get(category, ())]
        for first, second in nearest_pairs(predicted.get(category, ()), true.get(category, ())):
            ends = np.array([predicted_at[first], true_at[second]])
            axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=1.2, zorder=2)
        # White inside hides the line's end; the true centres are drawn on top, so none is ever hidden.
        for x, y in predicted_at:
            axes.plot(
                x,
                y,
                marker,
                color=colour,
                mfc="white",
                ms=13 if wide else 9,
                mew=1.6 if wide else 1.2,
                zorder=3,
                clip_on=False,
            )
        for x, y in true_at:
            axes.plot(x, y, marker, color=colour, ms=6.5 if wide else 4.5, mew=0, zorder=4, clip_on=False)
    if not styles:
        axes.text(4.5, 4.5, "no map", ha="center", va="center", color=GREY, fontsize=look.title)
    _map_legend(figure, styles, look, high)
    return written(figure, path)


def nearest_pairs(predicted: Sequence[Point], true: Sequence[Point]) -> list[tuple[int, int]]:
    """Indices (predicted, true) of the greedy one-to-one matching, closest pair first.

    >>> nearest_pairs([(0, 0), (5, 5)], [(5, 6), (9, 9), (1, 0)])
    [(0, 2), (1, 0)]
    """
    distances = [(math.dist(p, t), i, j) for i, p in enumerate(predicted) for j, t in enumerate(true)]
    pairs: dict[int, int] = {}
    for _, i, j in sorted(distances):
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


def _on_grid(point: Sequence[float]) -> Point:
    # Clamped before conversion: a completion may hold integers too large for a float.
    x, y = (float(min(max(value, -0.5), 9.5)) for value in point)
    return x, y


def _shifts(*maps: Mapping[str, Sequence[Point]]) -> tuple[Callable[[str, Point], Point], bool]:
    """Maps a category and a point to where it is drawn: categories at the same point are spread around it. Also
    whether any are."""
    sharing: dict[Point, list[str]] = {}
    for category in sorted({category for entries in maps for category in entries}):
        for point in {point for entries in maps for point in entries.get(category, ())}:
            sharing.setdefault(point, []).append(category)

    def shift(category: str, point: Point) -> Point:
        names = sharing[point]
        if len(names) == 1:
            return point
        angle = 2 * math.pi * names.index(category) / len(names)
        return point[0] - 0.24 * math.cos(angle), point[1] + 0.24 * math.sin(angle)

    return shift, any(len(names) > 1 for names in sharing.values())


def category_colours(categories: Sequence[str]) -> dict[str, str]:
    """A colour for each category, in alphabetical order; the six colours repeat."""
    colours = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
    return {name: colours[i % len(colours)] for i, name in enumerate(sorted(set(categories)))}


def _category_styles(categories: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each category; six colours and seven markers repeat together only after 42."""
    markers = "osD^vph"
    return {name: (colour, markers[i % 7]) for i, (name, colour) in enumerate(category_colours(categories).items())}


def _map_legend(figure: Figure, styles: Mapping[str, tuple[str, str]], look: Look, high: float) -> None:
    def key(marker: str, colour: str, face: str, size: float = 7) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, markersize=size)

    handles = [key("o", INK, INK), key("o", INK, "none", 11)]
    handles += [key(marker, colour, colour) for colour, marker in styles.values()]
    # A legend omits names that start with an underscore; a leading blank prevents it.
    names = ["true", "predicted", *(f" {name}" if name.startswith("_") else name for name in styles)]
    wide = look.width is None
    shown = 16 if wide else 9  # as many as the height fits
    if len(handles) > shown:
        names[shown - 1] = f"and {len(handles) - shown + 1} more"
        handles[shown - 1] = key("", INK, INK)
    place = (0.785, 0.9 * high) if wide else (0.5, 1.0)
    legend = figure.legend(
        handles[:shown],
        names[:shown],
        loc="upper left",
        bbox_to_anchor=place,
        frameon=False,
        fontsize=look.label,
        labelspacing=0.5 if wide else 0.25,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
