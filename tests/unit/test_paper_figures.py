"""Figures for papers: vector files, a column wide, in type that can be read, in the colours of the palette."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from spacer.data.scenes.curating import curate_scans
from spacer.evaluation.outcomes import compare_runs
from spacer.report import drawing
from spacer.report.comparison import forest_plot
from spacer.report.curation import histograms
from spacer.report.drawing import COLUMN, for_screen_and_paper
from spacer.report.figures import before_after_bars, reward_curves
from spacer.report.maps import map_overlay
from tests.unit.data.annotations import entries, write
from tests.unit.outcomes import made_rows, write_run
from tests.unit.test_report import DELTAS, FRAME, PREDICTED, TRUE, history

PALETTE = {value.lower() for value in vars(drawing).values() if isinstance(value, str) and value.startswith("#")}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., Figure]]:
    folder = tmp_path_factory.mktemp("figures")
    folders = [write_run(folder / name, made_rows(seed, 0.3 + 0.2 * seed)) for seed, name in enumerate("xyz")]
    compared = compare_runs(folders, resamples=200, seed=0)
    scans = curate_scans(write(folder / "scans", entries(12), workers=1))
    return {
        "curves": lambda **look: reward_curves(history(40), **look),
        "bars": lambda **look: before_after_bars(DELTAS, **look),
        "map": lambda **look: map_overlay(FRAME, TRUE, PREDICTED, title="Where is it?", **look),
        "comparison": lambda **look: forest_plot(compared, **look),
        "histograms": lambda **look: histograms(scans, **look),
    }


NAMES = ("curves", "bars", "map", "comparison", "histograms")


def said(figure: Figure) -> list[Text]:
    """The words that the figure shows."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", NAMES)
def test_a_column_holds_it_in_type_that_can_be_read(name: str, figures: dict[str, Callable[..., Figure]]) -> None:
    figure = figures[name](look=COLUMN)
    assert figure.get_figwidth() == 3.3 and figure.get_figheight() < 9
    figure.draw_without_rendering()
    words = said(figure)
    assert len(words) > 5
    assert min(text.get_fontsize() for text in words) >= 7
    width, height = figure.bbox.width, figure.bbox.height
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # of Agg, untyped
    for axes in figure.axes:
        seen = {text for text in axes.findobj(Text) if text.get_visible() and text.get_text().strip()}
        # labels of ticks beyond the axes' limits are never drawn
        drawn = seen - {label for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels(which="both")}
        for text in drawn:
            box = text.get_window_extent(renderer)
            assert box.x0 > -2 and box.x1 < width + 2 and box.y0 > -2 and box.y1 < height + 2, text.get_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_vector_file_beside_the_picture(
    name: str, figures: dict[str, Callable[..., Figure]], tmp_path: Path
) -> None:
    for_screen_and_paper(figures[name], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    content = (tmp_path / "figure.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/FontFile2" in content and b"/Type3" not in content
    # a map's frame of the video is the only thing in it that is made of pixels
    assert content.count(b"/Subtype /Image") == (name == "map")
    for_screen_and_paper(figures[name], tmp_path / "again.png")
    assert (tmp_path / "again.pdf").read_bytes() == content


@pytest.mark.parametrize("name", NAMES)
def test_its_colours_are_those_of_the_palette(name: str, figures: dict[str, Callable[..., Figure]]) -> None:
    for axes in figures[name]().axes:
        used = {to_hex(line.get_color()) for line in axes.lines}
        used |= {to_hex(patch.get_facecolor()) for patch in axes.patches}
        assert used <= PALETTE | {"#ffffff"}


def test_the_palette_can_be_told_apart_in_grey_and_by_the_colour_blind() -> None:
    """Pairs of curves that share axes: before and after, and the first two of several runs."""

    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for first, second in ((drawing.SKY, drawing.BLUE), (drawing.GREY, drawing.BLUE)):
        contrast = (lightness(first) + 0.05) / (lightness(second) + 0.05)
        assert not math.isclose(contrast, 1, abs_tol=0.4)
