"""A small picture of two cognitive maps that is drawn in a millisecond, for the many made during a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from spacer.report.drawing import GREY, INK, LIGHT
from spacer.report.maps import category_colours

_CELL, _LEFT, _TOP, _BETWEEN = 22, 12, 26, 24  # pixels
_SIDE = 10 * _CELL
_RADIUS = 5
_FONT = 11


def map_pair(true_map: Mapping[str, Sequence[Any]], predicted_map: Mapping[str, Sequence[Any]]) -> Image.Image:
    """The true and the predicted map side by side on 10x10 grids, x to the right and y up, objects labelled by name.

    Args:
        true_map: category to its centres [x, y] on the grid.
        predicted_map: the same for a completion; points outside the grid are drawn at its edge.
    """
    colours = category_colours([*true_map, *predicted_map])
    image = Image.new("RGB", (2 * (_SIDE + _LEFT) + _BETWEEN, _SIDE + _TOP + _LEFT), "white")
    draw = ImageDraw.Draw(image)
    for left, title, found in ((_LEFT, "true", true_map), (_LEFT + _SIDE + _BETWEEN, "predicted", predicted_map)):
        draw.text((left, 5), title, INK, _font())
        for line in range(11):
            at = line * _CELL
            draw.line((left + at, _TOP, left + at, _TOP + _SIDE), LIGHT)
            draw.line((left, _TOP + at, left + _SIDE, _TOP + at), LIGHT)
        if not any(found.values()):
            draw.text((left + _SIDE / 2, _TOP + _SIDE / 2), "no map", GREY, _font(), anchor="mm")
        taken: Counter[tuple[float, float]] = Counter()
        for category, points in found.items():
            for point in points:
                x, y = (min(max(value, 0), 9) for value in point)
                # categories at the same point are stacked below it
                across, down = left + int((x + 0.5) * _CELL), _TOP + int((9.5 - y) * _CELL) + _FONT * taken[x, y]
                taken[x, y] += 1
                draw.ellipse((across - _RADIUS, down - _RADIUS, across + _RADIUS, down + _RADIUS), colours[category])
                # the name goes on the side of the point that has space
                side, anchor = (1, "lm") if x < 5 else (-1, "rm")
                draw.text((across + side * (_RADIUS + 2), down), category, INK, _font(), anchor=anchor)
    return image


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT)
