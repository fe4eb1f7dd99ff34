"""Output at the end of a run: tables on the terminal, `summary.json`, figures, final W&B values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger
from rich import box
from rich.console import Console
from rich.table import Table

from spacer.benchmarks import SECONDS
from spacer.config.derived import heldout_name
from spacer.config.settings import Settings, VideoSettings
from spacer.data.images import read_image
from spacer.data.leakage import NOTHING, Withheld
from spacer.data.samples import Fault, describe
from spacer.data.video import read_video
from spacer.errors import MediaError
from spacer.evaluation.scoring import Scored
from spacer.evaluation.shown import show
from spacer.report.drawing import for_screen_and_paper
from spacer.report.figures import before_after_bars, map_overlay, reward_curves
from spacer.report.history import read_history
from spacer.report.table import before_after_table, write_json, write_summary
from spacer.rewards import parse_map
from spacer.stages.report import report_at_end
from spacer.statistics.intervals import Interval
from spacer.statistics.summaries import PairedDelta, compare, covers, mean_interval, metrics_of
from spacer.terminal.screen import screen
from spacer.tracking.provenance import index_questions
from spacer.tracking.runs import Index, finish, make_loggers

Rows = Sequence[Mapping[str, Any]]
MAPS_DRAWN = 3
_UNTOLD = ("reward/length", "reward/temporal", "map/drawn", "completion/tokens")  # where nothing was trained
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
    faults = list(dict.fromkeys((*usage.faults, *_not_asked((*(before or ()), *(after or ()))))))
    deltas: dict[str, PairedDelta] = {}
    scores = _scores(settings, after or ())
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    pictures = {"figures/curves": figures / "reward_curves.png"}
    history = read_history(folder / "history.jsonl")
    for_screen_and_paper(partial(reward_curves, history), pictures["figures/curves"])
    if before and after:
        deltas = compare(before, after, resamples=settings.evaluation.resamples, seed=settings.seed)
        console.print(before_after_table(deltas))
        pictures["figures/question_types"] = figures / "question_types.png"
        for_screen_and_paper(partial(before_after_bars, deltas), pictures["figures/question_types"])
    if after:
        pictures |= _draw_maps(after, figures)
        if not before:
            console.print(_scores_table(settings, after, scores))
    adds = _video_adds(settings, after or (), controls or {}, console)
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "controls": _as_json(adds),
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
    beside = {f"{name}/{metric}/{part}": getattr(deltas[metric], part) for metric in deltas for part in _BESIDE}
    beside |= _logged(name, adds)
    sync = finish(settings, folder, loggers, found, pictures, beside)
    _print_faults(console, faults)
    if usage.withheld.questions:
        console.print(
            f"Not trained on, for a benchmark asks about them: {usage.withheld.videos} videos, "
            f"{usage.withheld.questions} questions",
            highlight=False,
        )
    if usage.wait_share is not None:
        console.print(f"Waiting for data: {usage.wait_share:.1%} of the time in training")
    _print_places(console, folder, seconds, sync)
    report_at_end(settings, folder)


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
    scores = _scores(settings, rows)
    console.print(_scores_table(settings, rows, scores))
    adds = _video_adds(settings, rows, controls or {}, console)
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "controls": _as_json(adds),
        "questions": len(rows),
        "answered": sum(bool(row["extracted"]) for row in rows),
        "faults": len(faults) + sum("error" in row for row in rows),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    _print_faults(console, [*faults, *_not_asked(rows)])
    at = f"eval/{heldout_name(settings)}"
    metrics = {f"{at}/{name}": found["mean"] for name, found in scores.items()}
    ends = {f"{at}/{name}/{end}": found[end] for name, found in scores.items() for end in ("low", "high")}
    ends |= _logged(at, adds)
    sync = finish(settings, folder, make_loggers(settings, folder, asked), metrics, {}, ends)
    _print_places(console, folder, seconds, sync)
    report_at_end(settings, folder)


def report_benchmark(
    settings: Settings,
    folder: Path,
    scored: Scored,
    spread: Mapping[str, Interval],
    how: Mapping[str, Any],
    rows: Rows,
    missing: Sequence[Fault],
    seconds: Mapping[str, float],
    adds: Mapping[str, Mapping[str, PairedDelta]],
) -> None:
    """Prints a benchmark's metrics, what the video adds to them, the questions that could not be asked or read, and the
    location of the files."""
    console = screen()
    show(console, scored, spread, folder)
    for control, deltas in adds.items():
        console.print(_adds_table(control, deltas))
    console.print(f"  asked: {_conditions(how)}", soft_wrap=True)
    failed = _not_asked(rows)
    if failed:
        console.print(f"{len(failed)} questions could not be asked and count as wrong:", style="bold")
        console.print(describe(failed), soft_wrap=True)
    if missing:
        console.print("Videos are missing:", style="bold")
        console.print(describe(list(missing)), soft_wrap=True)
    extra = {
        "benchmark": scored.benchmark,
        "overall": scored.official_values["overall"],
        "questions": len(scored.questions),
        "not_extracted": scored.not_extracted,
        "not_asked": len(failed),
        "missing_videos": len(missing),
        "controls": _as_json(adds),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    loggers = make_loggers(settings, folder, partial(index_questions, scored.questions))
    metrics, pictures, beside = _tracked(scored, spread)
    beside |= _logged(f"eval/{scored.benchmark}", adds)
    sync = finish(settings, folder, loggers, metrics, pictures, beside)
    _print_places(console, folder, seconds, sync)


def _not_asked(rows: Rows) -> list[Fault]:
    """The reasons why questions could not be asked, from their rows: `KIND: DETAIL`."""
    return [Fault(str(row["id"]), *str(row["error"]).split(": ", 1)) for row in rows if "error" in row]


def _tracked(
    scored: Scored, spread: Mapping[str, Interval]
) -> tuple[dict[str, float], dict[str, Path], dict[str, float]]:
    """The official metrics under their logger names (`eval/vsi_bench/overall`), no pictures, and further W&B values.

    Those are the ends of the intervals, and the metrics of the second reading (`eval/vsi_bench/spacer_eval/overall`).
    """
    at = f"eval/{scored.benchmark}"
    beside = {f"{at}/{scored.second}/{metric}": value for metric, value in scored.released_values.items()}
    beside |= {f"{at}/{metric}/low": found.low for metric, found in spread.items()}
    beside |= {f"{at}/{metric}/high": found.high for metric, found in spread.items()}
    return {f"{at}/{metric}": value for metric, value in scored.official_values.items()}, {}, beside


def _conditions(how: Mapping[str, Any]) -> str:
    """One line with the conditions that published scores differ in most; `scores.json` has the prompts and the rest."""
    asked, model, libraries = how["benchmark"], how["model"], how["libraries"]
    video = asked["video"]
    return (
        f"{video['min_frames']} to {video['max_frames']} frames ({video['sampling']}) at {video['fps']:g} a second, of "
        f"at most {video['max_pixels']} pixels and side {video['max_side']}; temperature {asked['temperature']:g}, "
        f"{asked['max_new_tokens']} tokens; "
        + (
            model["name_or_path"]
            if "pathway" in model
            else f"{model['name_or_path']} ({model['weights'] or model['revision']})"
        )
        + f", {model['pathway'] if 'pathway' in model else model['dtype']}; "
        + ", ".join(
            f"{name} {libraries[name]}" for name in ("spacer", "torch", "transformers", "openai") if name in libraries
        )
    )


def report_all(folder: Path, names: Iterable[str]) -> None:
    """Prints the overall scores of several benchmarks side by side, from their files, and writes `summary.json`."""
    table = Table(title="overall, in percent", box=box.SIMPLE_HEAD, show_edge=False)
    found = {name: json.loads((folder / name / "scores.json").read_text(encoding="utf-8")) for name in names}
    seconds = [second for second in SECONDS if any(second in scores for scores in found.values())]
    for heading in ("benchmark", "official", "95 % interval", *seconds, "questions", "not extracted"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for name, scores in found.items():
        spread = scores["intervals"]["overall"]
        table.add_row(
            name,
            f"{100 * scores['official']['overall']:.2f}",
            "" if spread is None else f"{100 * spread[0]:.1f} to {100 * spread[1]:.1f}",
            *(f"{100 * scores[second]['overall']:.2f}" if second in scores else "" for second in seconds),
            str(scores["questions"]),
            str(scores["not_extracted"]),
        )
    console = screen()
    console.print(table)
    console.print(f"  each in full: {folder}/NAME/scores.json", soft_wrap=True)
    overall = {
        name: {kind: scores[kind]["overall"] for kind in ("official", *SECONDS) if kind in scores}
        for name, scores in found.items()
    }
    write_json(folder / "summary.json", overall)


# a control's name in tables: the title, and the heading of its column of answers
_CONTROLS = {
    "other_video": ("What the video adds to another scene's", "Other"),
    "grey": ("What the video adds to grey frames", "Grey"),
    "none": ("What the video adds to the text alone", "None"),
    "prior": ("What the model adds to priors of the training split", "Prior"),
}


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
        console.print(_adds_table(control, deltas))
        found[control] = deltas
    return found


def _adds_table(control: str, deltas: Mapping[str, PairedDelta]) -> Table:
    title, column = _CONTROLS[control]
    return before_after_table(deltas, title=title, headings=(column, "Own", "Adds"))


def _as_json(adds: Mapping[str, Mapping[str, PairedDelta]]) -> dict[str, dict[str, Any]]:
    """In the form of `summary.json`: before is under the control, after without it."""
    return {control: {name: asdict(delta) for name, delta in deltas.items()} for control, deltas in adds.items()}


def _logged(at: str, adds: Mapping[str, Mapping[str, PairedDelta]]) -> dict[str, float]:
    """A control's metrics under their W&B names."""
    return {
        f"{at}/{metric}/over_{control}{end}": value
        for control, deltas in adds.items()
        for metric, delta in deltas.items()
        for end, value in (("", delta.delta), ("_low", delta.delta_low), ("_high", delta.delta_high))
    }


def _by_metric(rows: Rows) -> dict[str, list[tuple[float, str]]]:
    """Metric → (value, scene) of each question that it covers."""
    found: dict[str, list[tuple[float, str]]] = {}
    metrics = {name: value for name, value in metrics_of(rows).items() if name not in _UNTOLD}
    for row in rows:
        for name, value in metrics.items():
            if covers(name, row):
                found.setdefault(name, []).append((value(row), row["scene"]))
        found.setdefault(f"answer/{row['question_type']}", []).append((row["reward"]["answer"], row["scene"]))
    return found


def _scores(settings: Settings, rows: Rows) -> dict[str, dict[str, float]]:
    """Metric → its mean over the rows and the ends of its interval."""
    interval = partial(mean_interval, resamples=settings.evaluation.resamples, seed=settings.seed)
    return {
        name: dict(zip(("mean", "low", "high"), interval(*zip(*part, strict=True)), strict=True))
        for name, part in _by_metric(rows).items()
    }


def _scores_table(settings: Settings, rows: Rows, scores: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=f"{heldout_name(settings)}: {len(rows)} questions", caption="95 % intervals resample scenes")
    table.add_column("metric")
    table.add_column("questions", justify="right")
    table.add_column("score", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, part in sorted(_by_metric(rows).items(), key=lambda entry: not entry[0].startswith("reward")):
        score = scores[name]
        table.add_row(name, str(len(part)), f"{score['mean']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}")
    return table


def _draw_maps(rows: Rows, figures: Path) -> dict[str, Path]:
    """Draws predicted and true maps beside a frame, for the first questions whose completion drew one."""
    drawn: dict[str, Path] = {}
    for row in rows:
        if len(drawn) == MAPS_DRAWN:
            break
        if not row.get("drawn") or not row["true_map"] or "error" in row:
            continue
        try:
            picture = _picture(Path(row["video"]))
        except MediaError:
            continue  # a deleted file; its question is counted elsewhere
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


def _print_faults(console: Console, faults: Sequence[Fault]) -> None:
    if faults:
        console.print(f"{len(faults)} samples were left out or counted as wrong:", style="bold")
        console.print(describe(list(faults)))


def _print_places(console: Console, folder: Path, seconds: Mapping[str, float], sync: str | None) -> None:
    console.print("Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    places = {
        "model (Hugging Face format)": "model",
        "answers": "predictions",
        "figures": "figures",
        "table as data": "summary.json",
        "configuration": ".hydra/config.yaml",
    }
    for what, name in places.items():
        if (folder / name).exists():
            console.print(f"  {what}: {folder / name}", soft_wrap=True)
    if sync:
        console.print(f"  W&B ran offline; to upload: {sync}", soft_wrap=True)
