"""A sheet of sample questions of every type, each with a video frame, or a floor plan where the video is unreadable."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from spacer.config.settings import VideoSettings
from spacer.data.scenes.balance import Posed
from spacer.data.scenes.curating import Curated
from spacer.data.scenes.questions import QUESTION_TYPES
from spacer.data.video import read_video
from spacer.errors import MediaError
from spacer.report.aside import aside
from spacer.report.drawing import BLUE, GREY, INK, LIGHT, VERMILION, new_figure, written
from spacer.report.labels import QUESTION_TYPES as NAMES

SHOWN, COLUMNS = 12, 4
WIDTH, PICTURE = 3.6, 2.2  # inches: column width, picture height
LINE, CHARACTERS = 0.15, 54  # inches per line of text, characters per column


def samples(posed: Sequence[Posed], count: int = SHOWN) -> list[Posed]:
    """Up to `count` questions, alternating types, each about a different scene where possible."""
    mixed = sorted(posed, key=lambda item: hashlib.sha256(item.id.encode()).digest())  # not only the first scenes
    queues = {kind: [item for item in mixed if item.question.question_type == kind] for kind in QUESTION_TYPES}
    chosen: list[Posed] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            shown = {item.scan.name for item in chosen}
            if queue and len(chosen) < count:
                fresh = next((item for item in queue if item.scan.name not in shown), queue[0])
                chosen.append(fresh)
                queue.remove(fresh)
    order = list(QUESTION_TYPES)
    return sorted(chosen, key=lambda item: order.index(item.question.question_type))


def contact_sheet(made: Curated, root: Path, path: str | Path | None = None) -> Figure:
    """Draws the sheet; `root` is the folder that contains the videos."""
    chosen = samples(made.posed)
    texts = [_lines(item) for item in chosen]
    rows = [range(start, min(start + COLUMNS, len(chosen))) for start in range(0, len(chosen), COLUMNS)]
    heights = [PICTURE + LINE * (1.5 + max(len(texts[i]) for i in row)) for row in rows]
    width, height = WIDTH * COLUMNS, sum(heights) + 0.1
    figure = new_figure(width, height, layout=None)
    frames = list(_middle_frames([root / item.scan.video for item in chosen]))
    top = height - 0.1
    for row, tall in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left = column * WIDTH + 0.1
            place = (left / width, (top - PICTURE) / height, (WIDTH - 0.2) / width, PICTURE / height)
            axes = figure.add_axes(place)
            axes.set_axis_off()
            axes.set_anchor("NW")
            if (frame := frames[index]) is None:
                _plan(axes, chosen[index])
            else:
                axes.imshow(frame)
            for number, (line, strong) in enumerate(texts[index]):
                figure.text(
                    left / width,
                    (top - PICTURE - LINE * (number + 0.6)) / height,
                    line,
                    fontsize=8,
                    color=BLUE if strong else INK,
                    fontweight="bold" if strong else "normal",
                    va="top",
                    parse_math=False,
                )
        top -= tall
    return written(figure, path)


def _lines(item: Posed) -> list[tuple[str, bool]]:
    """The lines under a picture, and whether each is highlighted: the type and the right answer are."""
    question = item.question
    lines = [(f"{NAMES[question.question_type]} · {item.id}", True)]
    lines += [(line, False) for line in textwrap.wrap(question.text, CHARACTERS)]
    for option in question.lettered_options():
        right = option.startswith(f"{question.answer}. ")
        lines += [(line, right) for line in textwrap.wrap(option, CHARACTERS, subsequent_indent="    ")]
    return lines if question.options else [*lines, (f"Answer: {question.answer}", True)]


def _middle_frames(paths: Sequence[Path]) -> Iterator[np.ndarray | None]:
    """The middle frame of each video, or None where it cannot be read."""
    return aside(_middle_frame, paths, "reading frames")


def _middle_frame(path: Path) -> np.ndarray | None:
    try:
        return read_video(path, VideoSettings(max_frames=2)).frames_THWC[-1]  # two frames: the first and the middle one
    except MediaError:
        return None


def _plan(axes: Axes, item: Posed) -> None:
    """The floor plan seen from above: every box, labelled where the question is about it."""
    scene = item.scan.scene
    asked = f"{item.question.text} {' '.join(item.question.options)}"
    for thing in scene.objects:
        named = re.search(rf"\b{re.escape(thing.category)}\b", asked) is not None
        axes.add_patch(
            Polygon(
                thing.footprint(),
                facecolor=VERMILION if named else LIGHT,
                edgecolor=INK if named else GREY,
                alpha=0.6 if named else 1.0,
                zorder=2 if named else 1,
            )
        )
        if named:
            axes.text(*thing.place, thing.category, fontsize=7, ha="center", va="center", parse_math=False, zorder=3)
    x0, y0, x1, y1 = scene.bounds
    axes.add_patch(Polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill=False, edgecolor=GREY))
    axes.set(xlim=(x0 - 0.1, x1 + 0.1), ylim=(y0 - 0.1, y1 + 0.1), aspect="equal")
