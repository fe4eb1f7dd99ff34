"""Figures of a run, drawn on Agg through matplotlib's object interface: no pyplot, no global state, no display.

Each function returns its Figure in the requested look, and writes it if given a path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spacer.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
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
from spacer.report.labels import label_of
from spacer.report.maps import map_overlay
from spacer.statistics.summaries import PairedDelta

__all__ = ["before_after_bars", "map_overlay", "reward_curves"]

# history key: title, y label, colour, whether it is a share between 0 and 1
_CURVES = {
    "reward/total": ("Total reward", "mean reward", BLUE, False),
    "reward/answer": ("Answer", "mean reward", GREEN, True),
    "reward/map": ("Map that counts", "mean reward", VERMILION, True),
    "reward/format": ("Format", "mean reward", PURPLE, True),
    "reward/length": ("Length bonus", "mean reward", ORANGE, False),
    "rollout/map_drawn": ("Maps drawn", "share", VERMILION, True),
    "rollout/map_quality": ("Map quality", "mean score", VERMILION, True),
    "train/loss": ("Loss", "nats a token", INK, False),
    "train/kl": ("KL to the reference", "nats a token", INK, False),
    "rollout/length": ("Completion length", "tokens", INK, False),
    "eval/during/reward/total": ("Held out, total reward", "mean reward", BLUE, False),
    "eval/during/reward/answer": ("Held out, answer", "mean reward", GREEN, True),
}
_OFTEN_ABSENT = ("reward/map", "reward/length", "rollout/map_drawn")  # 0 where the data or the reward have none


def reward_curves(
    history: Sequence[Mapping[str, float]], path: str | Path | None = None, *, look: Look = SCREEN
) -> Figure:
    """Rewards, KL and completion length over the training steps, one small panel each.

    Args:
        history: a row per training step with `step` and any of the keys reward/total, reward/answer, reward/map,
            reward/format, reward/length, rollout/map_drawn, rollout/map_quality, rollout/length, train/loss, train/kl
            and eval/during/reward/total and answer, these with their intervals from …/low and …/high; a panel is
            omitted where no row has its key, and that of maps or the length bonus where it is 0 throughout. Where a
            step occurs twice (a resumed run), its last row counts.
        path: where to write, or None.
        look: in a paper column, panels are in two columns.
    """
    rows = {row["step"]: row for row in history}
    series = {key: _series(rows, key) for key in _CURVES}
    if len(series["train/kl"][0]):
        del series["train/loss"]  # the value of a policy loss means little on its own; the KL in it does
    keys = [key for key, (_, values) in series.items() if len(values) and (key not in _OFTEN_ABSENT or values.any())]
    if look.width is None:
        lines = 2 if len(keys) > 1 else 1
        columns = max(1, math.ceil(len(keys) / lines))
        figure = new_figure(max(3.1 * columns, 5), 2.5 * lines + 0.5)
    else:
        columns = min(2, max(1, len(keys)))
        lines = max(1, math.ceil(len(keys) / columns))
        figure = new_figure(look.width, 1.25 * lines + 0.1)
    grid = figure.add_gridspec(lines, columns)
    if not keys:
        figure.text(0.5, 0.5, "no training steps recorded", ha="center", va="center", color=GREY, fontsize=look.label)
    # The first panel, the total, fills the cell left over by an odd number of panels.
    spare = lines * columns - len(keys)
    for index, key in enumerate(keys):
        cell = index + spare if index else 0
        line, column = divmod(cell, columns)
        width = 1 + (spare if index == 0 else 0)
        axes = figure.add_subplot(grid[line, column : column + width])
        _curve(axes, *series[key], key, look)
        low, high = (dict(zip(*_series(rows, f"{key}/{end}"), strict=True)) for end in ("low", "high"))
        both = sorted(low.keys() & high.keys())
        axes.vlines(both, [low[step] for step in both], [high[step] for step in both], _CURVES[key][2], alpha=0.5)
    return written(figure, path)


def _series(rows: Mapping[float, Mapping[str, float]], key: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps and values of a key in step order, without missing or non-finite values."""
    points = [(step, rows[step][key]) for step in sorted(rows) if math.isfinite(rows[step].get(key, math.nan))]
    return np.array([step for step, _ in points]), np.array([value for _, value in points], dtype=np.float64)


def _curve(axes: Axes, steps: NDArray[Any], values: NDArray[Any], key: str, look: Look) -> None:
    title, unit, colour, share = _CURVES[key]
    window = smoothing_window(len(values))
    if window > 1:
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8, label="each step")
        axes.plot(steps, smooth(values, window), color=colour, linewidth=look.line, label=f"mean of {window} steps")
    else:
        axes.plot(steps, values, color=colour, linewidth=1, marker=".", label="each step")
    axes.set_title(title, fontsize=look.title, loc="left", fontweight="bold")
    axes.set_xlabel("training step", fontsize=look.label)
    axes.set_ylabel(unit, fontsize=look.label)
    axes.xaxis.set_major_locator(MaxNLocator(6 if look.width is None else 3, integer=True))
    if share:
        axes.set_ylim(-0.03, 1.03)
    plain_axes(axes, look=look)


def smoothing_window(steps: int) -> int:
    """Odd window, in steps, for smoothing curves: about a tenth of the run."""
    return max(1, steps // 10) | 1


def smooth(values: NDArray[Any], window: int) -> NDArray[Any]:
    """Centred moving mean over `window` (odd) values, over fewer at the ends. Input and output have shape (steps,).

    >>> smooth(np.array([0.0, 3.0, 6.0, 3.0]), 3).tolist()
    [1.5, 3.0, 4.0, 4.5]
    """
    kernel, half = np.ones(window), window // 2
    inside = slice(half, half + len(values))
    return np.asarray(
        np.convolve(values, kernel)[inside] / np.convolve(np.ones(len(values)), kernel)[inside], dtype=np.float64
    )


Scores = Mapping[str, Mapping[str, float]]  # as `mean_scores` returns them: metric → mean, low, high


def before_after_bars(
    deltas: Mapping[str, PairedDelta],
    path: str | Path | None = None,
    *,
    scores: tuple[Scores, Scores] = ({}, {}),
    look: Look = SCREEN,
) -> Figure:
    """Answer accuracy before and after, overall and per question type, beside the change, all with their intervals.

    Args:
        deltas: as returned by `spacer.statistics.summaries.compare`; reads reward/answer and answer/<question_type>.
        path: where to write, or None.
        scores: the metrics before and after with the ends of their intervals, NaN where there is none.
    """
    metrics = [name for name in deltas if name == "reward/answer" or name.startswith("answer/")]
    chosen = [deltas[name] for name in metrics]
    names = [
        f"{'all questions' if name == 'reward/answer' else label_of(name)} ({deltas[name].questions})"
        for name in metrics
    ]
    wide = look.width is None
    figure = new_figure(look.width or 9, (1.5 if wide else 0.8) + (0.45 if wide else 0.27) * max(2, len(metrics)))
    grid = figure.add_gridspec(1, 2, width_ratios=[3, 2] if wide else [1, 1])
    bars = figure.add_subplot(grid[0])
    rows = np.arange(len(metrics))
    bars.barh(rows - 0.19, [delta.before for delta in chosen], height=0.36, color=SKY, label="before")
    bars.barh(rows + 0.19, [delta.after for delta in chosen], height=0.36, color=BLUE, label="after")
    for offset, found in zip((-0.19, 0.19), scores, strict=True):
        for row, name in zip(rows, metrics, strict=True):
            low, high = (found.get(name, {}).get(end, math.nan) for end in ("low", "high"))
            if math.isfinite(low):
                bars.plot([low, high], [row + offset, row + offset], color=INK, linewidth=look.line / 2)
    bars.set_xlim(0, 1)
    bars.set_yticks(rows, names)
    bars.set_ylim(len(metrics) - 0.4, -0.6)
    told = "answer accuracy, 95 % intervals (numbers: mean relative accuracy)"
    bars.set_xlabel(told if wide else "accuracy, with its\n95 % interval", fontsize=look.label)
    bars.legend(
        frameon=False,
        fontsize=look.label,
        ncols=2,
        loc="lower left" if wide else "lower right",
        bbox_to_anchor=(0 if wide else 1, 1),
        borderaxespad=0.2,
        columnspacing=1.0,
        handlelength=1.0,
    )
    changes = figure.add_subplot(grid[1], sharey=bars)
    changes.axvline(0, color=GREY, linewidth=1)
    for row, delta in zip(rows, chosen, strict=True):
        # Filled where the interval excludes 0, so that it does not depend on colour.
        colour = BLUE if delta.excludes_zero else GREY
        if math.isfinite(delta.delta_low):
            changes.plot([delta.delta_low, delta.delta_high], [row, row], color=colour, linewidth=look.line)
        fill = colour if delta.excludes_zero else "white"
        changes.plot(delta.delta, row, "o", color=colour, markerfacecolor=fill, markersize=look.mark)
    changes.tick_params(labelleft=False, left=False)
    changes.set_xlabel(
        "change, with its 95 % interval" if wide else "change, with its\n95 % interval", fontsize=look.label
    )
    if wide:
        changes.set_title("filled: the interval excludes 0", fontsize=look.label, loc="left", color=INK)
    for axes in (bars, changes):
        plain_axes(axes, "x", look)
    return written(figure, path)
