"""Tables, summary, figures and the table of rollouts, looked at as files and as text."""

from __future__ import annotations

import doctest
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from spacer.report import figures, labels, maps
from spacer.report.drawing import figure_image, new_figure
from spacer.report.figures import before_after_bars, reward_curves
from spacer.report.maps import map_overlay, nearest_pairs
from spacer.report.table import before_after_table, write_summary
from spacer.stages import summary
from spacer.statistics.summaries import QUESTION_TYPES, PairedDelta

GAIN = PairedDelta(1.7, 1.8, 0.1, 0.02, 0.18, 384, 96)
UNSURE = PairedDelta(0.5, 0.45, -0.05, -0.2, 0.1, 39, 30)
LONGER = PairedDelta(1024.0, 24.0, -1000.0, -1010.5, -990.5, 384, 96)
LONELY = PairedDelta(0.0, 1.0, 1.0, math.nan, math.nan, 2, 1)
DELTAS = {
    **{name: GAIN for name in ("reward/total", "reward/answer", "reward/map", "reward/format", "reward/length")},
    "reward/temporal": GAIN,
    "map/quality": UNSURE,
    "map/drawn": UNSURE,
    "completion/tokens": LONGER,
    **{f"answer/{kind}": UNSURE for kind in QUESTION_TYPES},
}
FRAME = np.random.default_rng(0).integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
TRUE = {"chair": [[2, 3], [7, 7]], "table": [[5, 5]], "bed": [[5, 5]]}
PREDICTED = {"chair": [[2, 4]], "table": [[5, 5]], "$x^$ _": [[10**400, -3]], "_tv": [[0.5, 9]]}


def printed(table, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def history(steps, **fixed):
    rng = np.random.default_rng(0)
    keys = ("reward/total", "reward/answer", "reward/map", "reward/format")
    keys += ("rollout/map_drawn", "train/kl", "rollout/length")
    return [{"step": step, **{key: float(rng.random()) for key in keys}, **fixed} for step in range(steps)]


def assert_drawn(path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.std() > 5
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("module", [labels, figures, maps])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_every_question_type_has_a_readable_name():
    assert set(labels.QUESTION_TYPES) == set(QUESTION_TYPES)


def test_table_is_whole_at_80_columns():
    text = printed(before_after_table(DELTAS))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    for metric in DELTAS:
        assert sum(line.startswith(f"  {labels.label_of(metric)} ") for line in lines) == 1, metric
    for heading in ("Reward", "Map", "Answer accuracy", "Completion"):
        assert heading in [line.strip() for line in lines]
    assert "[+0.020, +0.180]" in text
    assert "[-1010.5, -990.5]" in text
    assert "95 % interval" in text and "over 96 scenes" in text


def test_table_marks_what_excludes_zero():
    deltas = {"reward/total": GAIN, "map/drawn": UNSURE, "answer/object_counting": LONELY, "speed/tokens": GAIN}
    marks = {
        line.split("  ")[1]: line.rstrip().endswith("*")
        for line in printed(before_after_table(deltas)).split("\n")
        if line.startswith("  ") and "0." in line
    }
    assert marks["total"] and marks["speed/tokens"]
    assert not marks["completions with a map"] and not marks["object count"]
    text = " ".join(printed(before_after_table(deltas)).split())
    assert "< 10 scenes" in text and "Below 10 scenes there is no interval and no *" in text
    assert "Below 10 scenes" not in printed(before_after_table({"reward/total": GAIN}))
    assert "80 % interval" in printed(before_after_table(deltas, level=0.8, title="Rooms"))


def test_table_of_nothing_and_in_plain_ascii():
    assert "over 0 scenes" in printed(before_after_table({}))
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(width=80, file=file).print(before_after_table(DELTAS))


def test_summary_schema(tmp_path):
    path = tmp_path / "run" / "summary.json"
    extra = {"checkpoint": tmp_path, "left_out": {"count": np.int64(2), "ids": ("a", "b")}, "loss": float("inf")}
    write_summary(path, {"reward/total": GAIN, "answer/x": LONELY}, {"train": 12.5, "evaluate": 3.0}, extra)
    summary = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert set(summary) == {"metrics", "seconds", "checkpoint", "left_out", "loss"}
    assert summary["metrics"]["reward/total"] == {
        "before": 1.7,
        "after": 1.8,
        "delta": 0.1,
        "delta_low": 0.02,
        "delta_high": 0.18,
        "questions": 384,
        "scenes": 96,
    }
    assert summary["metrics"]["answer/x"]["delta_low"] is None
    assert summary["seconds"] == {"train": 12.5, "evaluate": 3.0}
    assert summary["checkpoint"] == str(tmp_path)
    assert summary["left_out"] == {"count": 2, "ids": ["a", "b"]}
    assert summary["loss"] is None
    with pytest.raises(ValueError, match="metrics"):
        write_summary(path, {}, {}, {"metrics": {}})


def test_summary_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_summary(path, {"reward/total": GAIN}, {}, {})
    first = path.read_bytes()
    with pytest.raises(TypeError):
        write_summary(path, {}, {}, {"model": object()})

    def interrupted(source, target):
        assert json.loads(Path(source).read_text(encoding="utf-8"))["seconds"] == {"train": 1.0}
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_summary(path, {}, {"train": 1.0}, {})
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("steps", [1, 5, 60])
def test_reward_curves(tmp_path, steps):
    figure = reward_curves(history(steps), tmp_path / "sub" / "curves.png")
    assert_drawn(tmp_path / "sub" / "curves.png")
    assert len(figure.axes) == 7
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title(loc="left") for axes in figure.axes)


def test_reward_curves_show_maps_and_the_length_bonus_where_there_are_any():
    absent = {"reward/map": 0.0, "reward/length": 0.0, "rollout/map_drawn": 0.0}

    def titles(**fixed):
        return {axes.get_title(loc="left") for axes in reward_curves(history(5, **fixed)).axes}

    bare = titles(**absent)
    assert titles(**{"reward/length": 0.1, "rollout/map_quality": 0.5}) - bare == {
        *("Map that counts", "Length bonus", "Maps drawn", "Map quality"),
    }
    assert {"Total reward", "Answer", "Format"} <= bare


def test_reward_curves_leave_out_what_is_absent():
    rows = [
        {"step": 2, "reward/total": 1.0},
        {"step": 1, "reward/total": 0.0, "train/kl": math.nan},
        {"step": 2, "reward/total": 3.0},
    ]
    figure = reward_curves(rows)
    assert len(figure.axes) == 1
    assert np.asarray(figure.axes[0].lines[0].get_xydata()).tolist() == [[1, 0], [2, 3]]
    for count in range(1, 7):
        keys = list(history(1)[0])[: count + 1]
        drawn = reward_curves([{key: row[key] for key in keys} for row in history(3)])
        figure_image(drawn)
        assert len(drawn.axes) == count
    assert not reward_curves([]).axes


def test_evaluations_are_drawn_with_their_intervals():
    metric = "eval/during/reward/total"
    rows = [{"step": n, metric: 1.0 + n, f"{metric}/low": 0.5 + n, f"{metric}/high": 2.0 + n} for n in (0, 20)]
    del rows[1][f"{metric}/low"]  # of one scene
    (axes,) = reward_curves([*rows, {"step": 30, "reward/other": 1.0}]).axes
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [[0, 1], [20, 21]]
    (drawn,) = axes.collections
    assert [path.vertices.tolist() for path in drawn.get_paths()] == [[[0, 0.5], [0, 2]]]


def test_smoothing():
    assert [figures.smoothing_window(steps) for steps in (0, 5, 29, 40, 120)] == [1, 1, 3, 5, 13]
    values = np.random.default_rng(0).normal(size=40)
    expected = [values[max(0, i - 2) : i + 3].mean() for i in range(40)]
    assert figures.smooth(values, 5) == pytest.approx(expected)
    assert figures.smooth(np.full(7, 2.0), 5) == pytest.approx(np.full(7, 2.0))


@pytest.mark.parametrize("deltas", [DELTAS, {"answer/route_planning": LONELY}, {}])
def test_bars(tmp_path, deltas):
    figure = before_after_bars(deltas, tmp_path / "bars.png")
    assert_drawn(tmp_path / "bars.png")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == sum(name == "reward/answer" or name.startswith("answer/") for name in deltas)
    if deltas is DELTAS:
        assert names[:2] == ["all questions (384)", "object count (39)"]


def test_bars_before_and_after_have_intervals():
    found = {"reward/answer": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    few = {"reward/answer": {"mean": 0.5, "low": math.nan, "high": math.nan}}
    bars = before_after_bars({"reward/answer": GAIN}, scores=(few, found)).axes[0]
    assert [np.asarray(line.get_xdata()).tolist() for line in bars.lines] == [[0.4, 0.6]]


def test_each_map_is_of_another_room(tmp_path, monkeypatch):
    rows = [
        {"id": f"q{n}", "scene": f"room {n // 4}", "question": "How?", "video": "x", "drawn": n != 4, "true_map": TRUE}
        | {"completion": '<map>{"chair": [[2, 4]]}</map>'}
        for n in range(20)
    ]
    shown = []
    monkeypatch.setattr(summary, "_picture", lambda path: FRAME)
    monkeypatch.setattr(
        summary, "map_overlay", lambda *a, title, **look: shown.append(title) or map_overlay(*a, **look)
    )
    assert list(summary._draw_maps(rows, tmp_path)) == ["figures/map_1", "figures/map_2", "figures/map_3"]
    assert list(dict.fromkeys(shown)) == ["q0: How?", "q5: How?", "q8: How?"]


def test_a_long_question_is_told_whole():
    question = "If you stand by the chair and face the table, where is the bed? " * 5
    figure = map_overlay(FRAME, TRUE, PREDICTED, title=question)
    (title,) = figure.texts
    assert title.get_text().split() == question.split()
    figure.draw_without_rendering()
    box = title.get_window_extent()
    assert box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1
    for axes in figure.axes:
        assert box.y0 > axes.get_tightbbox().y1


def test_objects_on_one_point_are_said_to_be():
    said = "objects on one point are drawn around it"
    assert map_overlay(FRAME, TRUE, {}).axes[1].get_title(loc="left") == said
    assert map_overlay(FRAME, {"bed": [[5, 5]]}, {"bed": [[5, 5]]}).axes[1].get_title(loc="left") == ""


def test_map_overlay(tmp_path):
    figure = map_overlay(FRAME, TRUE, PREDICTED, tmp_path / "map.png", title="costs $5 or $x^{?")
    assert_drawn(tmp_path / "map.png")
    grid = figure.axes[1]
    assert grid.get_xlim()[0] < grid.get_xlim()[1] and grid.get_ylim()[0] < grid.get_ylim()[1]  # x right, y up
    points = [line for line in grid.lines if len(line.get_xdata()) == 1]
    lines = [line for line in grid.lines if len(line.get_xdata()) == 2]
    assert (len(points), len(lines)) == (8, 2)
    names = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert names == ["true", "predicted", "$x^$ _", "_tv", "bed", "chair", "table"]
    # Bed and table share a cell: drawn apart, and the exact prediction of the table stays around it.
    places = [tuple(np.ravel(line.get_xydata())) for line in points]
    assert len(set(places)) == 7


def test_map_overlay_of_nothing_and_of_much():
    empty = map_overlay(FRAME, {}, {})
    assert [text.get_text() for text in empty.axes[1].texts] == ["no map"]
    many = map_overlay(FRAME, {f"thing {index}": [[index % 10, index % 7]] for index in range(40)}, {})
    assert many.legends[0].get_texts()[-1].get_text() == "and 27 more"
    figure_image(many)


@pytest.mark.parametrize("frame", [FRAME[..., 0], FRAME[..., :2], FRAME.astype(np.float32)])
def test_map_overlay_wants_an_rgb_frame(frame):
    with pytest.raises(ValueError, match="frame must be"):
        map_overlay(frame, {}, {})


def test_nearest_pairs_are_one_to_one():
    assert nearest_pairs([(0, 0), (1, 0)], [(1, 0)]) == [(1, 0)]
    assert nearest_pairs([], [(1, 0)]) == []


def test_svg_and_unknown_suffix(tmp_path):
    reward_curves(history(3), tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf"):
        reward_curves(history(3), tmp_path / "curves.gif")


def test_figure_image_is_pixels():
    image = figure_image(new_figure(2, 1))
    assert image.shape == (100, 200, 3) and image.dtype == np.uint8
