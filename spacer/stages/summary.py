"""Output at the end of a run: tables on the terminal, `summary.json`, figures, final W&B values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spacer.config.derived import heldout_name
from spacer.config.settings import Settings, VideoSettings
from spacer.data.images import read_image
from spacer.data.leakage import NOTHING, Withheld
from spacer.data.samples import Fault, describe
from spacer.data.video import read_video
from spacer.errors import MediaError
from spacer.report.drawing import for_screen_and_paper
from spacer.report.figures import before_after_bars, map_overlay, reward_curves
from spacer.report.history import read_history
from spacer.report.labels import CONTROLS, SECTIONS, label_of, section_of
from spacer.report.table import before_after_table, write_summary
from spacer.rewards import parse_map
from spacer.stages.report import report_at_end
from spacer.statistics.intervals import FEWEST_CLUSTERS, why_no_interval
from spacer.statistics.summaries import PairedDelta, by_metric, compare, mean_scores
from spacer.terminal.screen import screen
from spacer.terminal.tables import plain_table
from spacer.tracking.runs import Index, finish, make_loggers

Rows = Sequence[Mapping[str, Any]]
MAPS_DRAWN = 3
_CAPTION = f"95 % intervals resample scenes; below {FEWEST_CLUSTERS} scenes there is none"
_BESIDE = ("before", "delta", "delta_low", "delta_high")  # held by W&B beside a metric after training


@dataclass(frozen=True)
class DataUsage:
    """How the data were used: faults, samples withheld for benchmarks, and the share of time spent waiting for data."""

    faults: Sequence[Fault]
    withheld: Withheld = NOTHING
    wait_share: float | None = None


def report_training(
    settings: Settings,
    folder: Path,
    before: Rows | None,
    after: Rows | None,
    usage: DataUsage,
    seconds: Mapping[str, float],
    loggers: list[Logger],
    controls: Mapping[str, Rows] | None = None,
) -> None:
    """Compares, draws, writes and prints; `controls` are the answers after training to the questions as changed by each
    control."""
    console = screen()
    # a question that could not be asked before could not be asked after either, and counts once
    faults = list(dict.fromkeys((*usage.faults, *not_asked((*(before or ()), *(after or ()))))))
    deltas: dict[str, PairedDelta] = {}
    scores = mean_scores(after or (), settings.evaluation.resamples, settings.seed)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    pictures = {"figures/curves": figures / "reward_curves.png"}
    history = read_history(folder / "history.jsonl")
    for_screen_and_paper(partial(reward_curves, history), pictures["figures/curves"])
    if before and after:
        deltas = compare(before, after, resamples=settings.evaluation.resamples, seed=settings.seed)
        console.print(before_after_table(deltas))
        pictures["figures/question_types"] = figures / "question_types.png"
        start = mean_scores(before, settings.evaluation.resamples, settings.seed)
        draw = partial(before_after_bars, deltas, scores=(start, scores))
        for_screen_and_paper(draw, pictures["figures/question_types"])
    if after:
        pictures |= _draw_maps(after, figures)
        if not before:
            console.print(_scores_table(settings, after, scores))
    adds = _video_adds(settings, after or (), controls or {}, console)
    best = _best(settings, history)
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "best": best,
        "controls": controls_as_json(adds),
        "faults": len(faults),
        "withheld": asdict(usage.withheld),
        "data_wait_share": usage.wait_share,
        "questions": len(after or ()),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", deltas, seconds, extra)
    name = f"eval/{heldout_name(settings)}"
    after_it = {f"{name}/{metric}": delta.after for metric, delta in deltas.items()}
    found = after_it or {f"{name}/{metric}": score["mean"] for metric, score in scores.items()}
    beside = finite({f"{name}/{metric}/{part}": getattr(deltas[metric], part) for metric in deltas for part in _BESIDE})
    beside |= controls_logged(name, adds)
    sync = finish(settings, folder, loggers, found, pictures, beside)
    print_faults(console, faults)
    if usage.withheld.questions:
        console.print(
            f"Not trained on, for a benchmark asks about them: {usage.withheld.videos} videos, "
            f"{usage.withheld.questions} questions",
            highlight=False,
        )
    if usage.wait_share is not None:
        console.print(f"Waiting for data: {usage.wait_share:.1%} of the time in training")
    if best is not None:
        console.print(
            f"Best {best['metric']} during training: {best['value']:.3f} after step {best['step']} "
            f"(before the first: {best['start']:.3f})",
            highlight=False,
        )
    print_places(console, folder, seconds, sync)
    report_at_end(settings, folder)


def _best(settings: Settings, history: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """The best evaluation during training, that of `checkpoints/best.ckpt`; None if there was none after step 0."""
    metric = settings.evaluation.metric
    found = {row["step"]: row[f"eval/during/{metric}"] for row in history if f"eval/during/{metric}" in row}
    start = found.pop(0, None)
    if start is None or not found:
        return None
    step = max(found, key=lambda step: found[step])
    return {"metric": metric, "step": int(step), "value": found[step], "start": start}


def mean_reward(rows: Rows | None) -> float:
    """The mean total reward of answered questions; NaN if there are none."""
    return float(np.mean([row["reward"]["total"] for row in rows])) if rows else float("nan")


def report_evaluation(
    settings: Settings,
    folder: Path,
    rows: Rows,
    faults: Sequence[Fault],
    seconds: Mapping[str, float],
    asked: Index | None = None,
    controls: Mapping[str, Rows] | None = None,
) -> None:
    """Reports scores with intervals, by question type; `controls` as in `report_training`."""
    console = screen()
    scores = mean_scores(rows, settings.evaluation.resamples, settings.seed)
    console.print(_scores_table(settings, rows, scores))
    adds = _video_adds(settings, rows, controls or {}, console)
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "controls": controls_as_json(adds),
        "questions": len(rows),
        "answered": sum(bool(row["extracted"]) for row in rows),
        "faults": len(faults) + sum("error" in row for row in rows),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    print_faults(console, [*faults, *not_asked(rows)])
    at = f"eval/{heldout_name(settings)}"
    metrics = {f"{at}/{name}": found["mean"] for name, found in scores.items()}
    ends = finite({f"{at}/{name}/{end}": found[end] for name, found in scores.items() for end in ("low", "high")})
    ends |= controls_logged(at, adds)
    sync = finish(settings, folder, make_loggers(settings, folder, asked), metrics, {}, ends)
    print_places(console, folder, seconds, sync)
    report_at_end(settings, folder)


def not_asked(rows: Rows) -> list[Fault]:
    """The reasons why questions could not be asked, from their rows: `KIND: DETAIL`."""
    return [Fault(str(row["id"]), *str(row["error"]).split(": ", 1)) for row in rows if "error" in row]


_HEADINGS = {"other_video": "Other", "grey": "Grey", "none": "None", "prior": "Prior"}  # of a control's answers


def _video_adds(
    settings: Settings, rows: Rows, controls: Mapping[str, Rows], console: Console
) -> dict[str, dict[str, PairedDelta]]:
    """Control → each metric of the unchanged questions compared with the same under the control; prints a table of
    each."""
    found = {}
    for control, answered in controls.items():
        deltas = compare(answered, rows, resamples=settings.evaluation.resamples, seed=settings.seed)
        if control == "prior":  # which writes no completion of its own
            deltas = {name: delta for name, delta in deltas.items() if not name.startswith("completion/")}
        console.print(adds_table(control, deltas))
        found[control] = deltas
    return found


def adds_table(control: str, deltas: Mapping[str, PairedDelta]) -> Table:
    title = f"What the {'model' if control == 'prior' else 'video'} adds to {CONTROLS[control]}"
    return before_after_table(deltas, title=title, headings=(_HEADINGS[control], "Own", "Adds"))


def controls_as_json(adds: Mapping[str, Mapping[str, PairedDelta]]) -> dict[str, dict[str, Any]]:
    """In the form of `summary.json`: before is under the control, after without it."""
    return {control: {name: asdict(delta) for name, delta in deltas.items()} for control, deltas in adds.items()}


def controls_logged(at: str, adds: Mapping[str, Mapping[str, PairedDelta]]) -> dict[str, float]:
    """A control's metrics under their W&B names."""
    return finite(
        {
            f"{at}/{metric}/over_{control}{end}": value
            for control, deltas in adds.items()
            for metric, delta in deltas.items()
            for end, value in (("", delta.delta), ("_low", delta.delta_low), ("_high", delta.delta_high))
        }
    )


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are there: a metric of few scenes has no interval to log."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _scores_table(settings: Settings, rows: Rows, scores: Mapping[str, Mapping[str, float]]) -> Table:
    table = plain_table(f"{heldout_name(settings)}: {len(rows)} questions", _CAPTION)
    table.add_column("Metric", overflow="fold")
    for heading in ("N", "Score", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    counts = {name: len(part) for name, part in by_metric(rows).items()}
    for section, heading in SECTIONS.items():
        metrics = [name for name in counts if section_of(name) == section]
        if metrics:
            table.add_row(Text(heading, style="bold"))
        for name in metrics:
            score = scores[name]
            interval = why_no_interval(int(score["scenes"]), "scenes")
            if math.isfinite(score["low"]):
                interval = f"{score['low']:.3f} to {score['high']:.3f}"
            cells = (Text("  " + label_of(name)), str(counts[name]), f"{score['mean']:.3f}", interval)
            table.add_row(*cells, end_section=name == metrics[-1])
    return table


def _draw_maps(rows: Rows, figures: Path) -> dict[str, Path]:
    """Draws predicted and true maps beside a frame, for the first question of each of several scenes whose completion
    drew one."""
    drawn: dict[str, Path] = {}
    scenes: set[str] = set()
    for row in rows:
        if len(drawn) == MAPS_DRAWN:
            break
        if not row.get("drawn") or not row["true_map"] or "error" in row or row["scene"] in scenes:
            continue
        try:
            picture = _picture(Path(row["video"]))
        except MediaError:
            continue  # a deleted file; its question is counted elsewhere
        scenes.add(row["scene"])
        path = figures / f"map_{len(drawn) + 1}.png"
        predicted = parse_map(row["completion"], row["true_map"])
        title = f"{row['id']}: {row['question']}"
        draw = partial(map_overlay, picture, row["true_map"], predicted, title=title)
        for_screen_and_paper(draw, path)
        drawn[f"figures/map_{len(drawn) + 1}"] = path
    return drawn


def _picture(path: Path) -> np.ndarray:
    """A still, or four frames of a video."""
    if path.suffix == ".png":  # as stills of rooms are kept; videos never are
        return np.asarray(read_image(path))
    return _mosaic(read_video(path, VideoSettings(max_frames=4, fps=4.0)).frames_THWC)


def _mosaic(frames_THWC: np.ndarray) -> np.ndarray:
    """Tiles four frames, evenly spread from the first to the last, two by two in reading order."""
    a, b, c, d = (frames_THWC[round(i * (len(frames_THWC) - 1) / 3)] for i in range(4))
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def print_faults(console: Console, faults: Sequence[Fault]) -> None:
    """Prints how many samples could not be used, and why."""
    if faults:
        console.print(f"{len(faults)} samples were left out or counted as wrong:", style="bold")
        console.print(describe(list(faults)))


def print_places(console: Console, folder: Path, seconds: Mapping[str, float], sync: str | None) -> None:
    console.print("Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    places = {
        "model (Hugging Face format)": "model",
        "best checkpoint": "checkpoints/best.ckpt",
        "answers": "predictions",
        "completions": "generated.jsonl",
        "figures": "figures",
        "table as data": "summary.json",
        "configuration": ".hydra/config.yaml",
    }
    for what, name in places.items():
        if (folder / name).exists():
            console.print(f"  {what}: {folder / name}", soft_wrap=True)
    if sync:
        console.print(f"  W&B ran offline; to upload: {sync}", soft_wrap=True)
