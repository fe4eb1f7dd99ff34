"""Statistics of curated questions: a table, entries of `summary.json`, histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from spacer.config.settings import ScansSettings
from spacer.data.samples import describe
from spacer.data.scenes.curating import Curated
from spacer.data.scenes.lines import LETTERS
from spacer.data.scenes.questions import QUESTION_TYPES
from spacer.evaluation.blind import Asked, BlindScore, cross_blind_scores
from spacer.report import labels
from spacer.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SCREEN,
    SKY,
    VERMILION,
    Look,
    new_figure,
    plain_axes,
    written,
)
from spacer.terminal.pasting import pasted
from spacer.terminal.tables import plain_table

MANY = 12  # counts of this or more share a bar


def by_type(made: Curated) -> dict[str, int]:
    """Number of questions of each type, in the canonical order; types without questions are included."""
    counts = Counter(item.question.question_type for item in made.posed)
    return {kind: counts[kind] for kind in QUESTION_TYPES}


def summary_of(made: Curated) -> dict[str, Any]:
    """Entries of `summary.json`."""
    letters = Counter(item.question.answer for item in made.posed if item.question.options)
    return {
        "scenes": len(made.scans),
        "questions": len(made.posed),
        "questions_by_type": by_type(made),
        "right_letters": dict(sorted(letters.items())),
        "blind_by_type": {kind: asdict(score) for kind, score in blind_by_type(made).items()},
        "left_out": made.left_out,
        "scenes_not_asked": made.unposed,
        "faults": len(made.faults),
        "faults_by_kind": dict(Counter(fault.kind for fault in made.faults)),
        "files": made.files,
    }


def curation_table(made: Curated) -> Table:
    """Questions of each type, the scenes in which they could and could not be asked, and the blind (priors of the other
    half of the scenes) and chance (a random option, one number for all) scores; fits 80 columns."""
    table = plain_table(f"{len(made.posed)} questions about {len(made.scans)} scenes")
    table.add_column("Question type")
    for heading in ("Questions", "Share", "Scenes", "Not asked of", "Blind", "Chance"):
        table.add_column(heading, justify="right")
    blind = blind_by_type(made)
    for kind, count in by_type(made).items():
        scenes = {item.scan.name for item in made.posed if item.question.question_type == kind}
        name = labels.QUESTION_TYPES[kind]
        scores = [f"{blind[kind].blind:.2f}", f"{blind[kind].chance:.2f}"] if kind in blind else ["", ""]
        share = f"{100 * count / len(made.posed):.1f} %"
        table.add_row(name, str(count), share, str(len(scenes)), str(made.unposed[kind]), *scores)
    return table


def blind_by_type(made: Curated) -> dict[str, BlindScore]:
    """Scores of blind answers, read off the questions alone with priors from the other half of the scenes."""
    return cross_blind_scores(
        [
            Asked(q.question_type, q.problem_type, q.text, q.options, q.answer, item.scan.name)
            for item in made.posed
            for q in (item.question,)
        ]
    )


def print_places(console: Console, made: Curated, settings: ScansSettings, folder: Path) -> None:
    """Prints what was left out and why, where the files are, and the command that trains on them."""
    for reason, count in made.left_out.items():
        console.print(f"  left out: {count} {reason}")
    if made.faults:
        console.print(f"{len(made.faults)} faults, whose scenes were left out:", style="bold")
        console.print(describe(list(made.faults)))
    places = dict(made.files) | {"table as data": folder / "summary.json", "figures": folder / "figures"}
    for what, path in places.items():
        console.print(f"  {what}: {path}", soft_wrap=True)
    changed = ["dataset=scans", pasted("dataset.root", settings.root)]
    for field in ("index", "maps"):
        value = getattr(settings, field)
        if value != getattr(ScansSettings, field):
            changed.append(f"dataset.{field}=null" if value is None else pasted(f"dataset.{field}", value))
    console.print("To train on them:")
    console.print(f"  python run.py {' '.join(changed)}", soft_wrap=True)


def histograms(made: Curated, path: str | Path | None = None, *, look: Look = SCREEN) -> Figure:
    """Histograms of question types, right letters, counts, room sizes, distances and object sizes, one panel each."""
    panels = _panels(look)
    types = by_type(made)
    axes = panels[0]
    axes.barh([labels.QUESTION_TYPES[kind] for kind in types], list(types.values()), color=BLUE)
    axes.invert_yaxis()
    _named(axes, "Question types", "questions", "", look)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    _letters(panels[1], made, look)
    _counts(panels[2], _answers(made, "object_counting"), look)
    for axes, kind, title, unit, colour in (
        (panels[3], "object_abs_distance", "Distance", "metres", GREEN),
        (panels[4], "object_size_estimation", "Object size", "longest side, cm", VERMILION),
        (panels[5], "room_size_estimation", "Room size", "square metres", PURPLE),
    ):
        values = _answers(made, kind)
        if len(values):
            axes.hist(values, bins=min(40, max(5, len(values) // 8)), color=colour)
        _named(axes, f"{title} ({len(values)})", unit, "questions", look)
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return written(figure, path)


def _panels(look: Look) -> list[Axes]:
    """Six axes: two rows of three, or in a paper column, one across the full width and the others two by two."""
    if look.width is None:
        return list(new_figure(12, 7).subplots(2, 3).flat)
    halves: Any = new_figure(look.width, 6.6).subfigures(2, 1, height_ratios=[1, 2])  # their margins differ
    top, rest = halves
    grid = rest.add_gridspec(3, 2)
    places = [grid[0, 0], grid[0, 1], grid[1, 0], grid[1, 1], grid[2, :]]
    return [top.subplots(), *(rest.add_subplot(place) for place in places)]


def _answers(made: Curated, kind: str) -> np.ndarray:
    return np.array([float(item.question.answer) for item in made.posed if item.question.question_type == kind])


def _letters(axes: Axes, made: Curated, look: Look) -> None:
    """Right letters, grouped by the number of options."""
    counts = Counter((len(item.question.options), item.question.answer) for item in made.posed)
    sizes = sorted({size for size, _ in counts if size})
    for index, (size, colour) in enumerate(zip(sizes, (SKY, ORANGE, BLUE, GREEN), strict=False)):
        places = np.arange(size) + (index - (len(sizes) - 1) / 2) * 0.8 / len(sizes)
        heights = [counts[size, letter] for letter in LETTERS[:size]]
        axes.bar(places, heights, width=0.8 / len(sizes), color=colour, label=f"{size} options")
    axes.set_xticks(range(max(sizes, default=1)), LETTERS[: max(sizes, default=1)])
    _named(axes, "Right letters", "", "questions", look)
    if sizes:
        top = max(count for (size, _), count in counts.items() if size)
        axes.set_ylim(0, (1.3 if look.width is None else 2.4) * top)  # room for the legend
        axes.legend(
            frameon=False, fontsize=look.small, loc="upper right", ncols=len(sizes) if look.width is None else 1
        )


def _counts(axes: Axes, values: Sequence[float] | np.ndarray, look: Look) -> None:
    found = Counter(min(int(value), MANY) for value in values)
    axes.bar(list(found), list(found.values()), color=GREY)
    shown = range(1, max(found, default=1) + 1)
    axes.set_xticks(shown, [f"{MANY}+" if number == MANY else str(number) for number in shown])
    _named(axes, f"Counts ({len(values)})", "objects", "questions", look)


def _named(axes: Axes, title: str, x: str, y: str, look: Look) -> None:
    plain_axes(axes, look=look)
    axes.set_title(title, fontsize=look.title, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=look.label)
    axes.set_ylabel(y, fontsize=look.label)
    (axes.yaxis if y else axes.xaxis).set_major_locator(MaxNLocator(5, integer=True))
