"""What a run leaves at its end: tables on the terminal, `summary.json`, figures, the last word to W&B."""

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

from spacer.data.decode import MediaError, read_video
from spacer.data.leakage import NOTHING, Withheld
from spacer.data.samples import Fault, describe
from spacer.evaluation.intervals import Interval
from spacer.evaluation.scoring import Scored
from spacer.evaluation.statistics import PairedDelta, compare, mean_interval
from spacer.implied import heldout_name
from spacer.provenance import index_questions
from spacer.report.drawing import for_screen_and_paper
from spacer.report.figures import before_after_bars, map_overlay, reward_curves
from spacer.report.history import read_history
from spacer.report.table import before_after_table, write_json, write_summary
from spacer.report_runs import report_at_end
from spacer.rewards import parse_map
from spacer.score import show
from spacer.settings import Settings, VideoSettings
from spacer.tracking import Index, finish, make_loggers

Rows = Sequence[Mapping[str, Any]]
MAPS_DRAWN = 3
_BESIDE = ("before", "delta", "delta_low", "delta_high")  # what W&B holds beside a figure after training


@dataclass(frozen=True)
class Fed:
    """What became of the data: its faults, what was withheld for benchmarks, and the share of time spent waiting."""

    faults: Sequence[Fault]
    withheld: Withheld = NOTHING
    wait_share: float | None = None


def report_training(
    settings: Settings,
    folder: Path,
    before: Rows | None,
    after: Rows | None,
    fed: Fed,
    seconds: Mapping[str, float],
    loggers: list[Logger],
) -> None:
    """Compares, draws, writes and prints."""
    console = Console()
    deltas: dict[str, PairedDelta] = {}
    scores = _scores(settings, after or ())
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    pictures = {"figures/curves": figures / "reward_curves.png"}
    history = read_history(folder / "history.jsonl")
    for_screen_and_paper(partial(reward_curves, history), pictures["figures/curves"])
    if before and after:
        deltas = compare(before, after, resamples=settings.benchmark.resamples, seed=settings.seed)
        console.print(before_after_table(deltas))
        pictures["figures/question_types"] = figures / "question_types.png"
        for_screen_and_paper(partial(before_after_bars, deltas), pictures["figures/question_types"])
    if after:
        pictures |= _draw_maps(after, figures)
        if not before:
            console.print(_scores_table(settings, after, scores))
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "faults": len(fed.faults),
        "withheld": asdict(fed.withheld),
        "data_wait_share": fed.wait_share,
        "questions": len(after or ()),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", deltas, seconds, extra)
    name = f"eval/{heldout_name(settings)}"
    after_it = {f"{name}/{metric}": delta.after for metric, delta in deltas.items()}
    found = after_it or {f"{name}/{metric}": score["mean"] for metric, score in scores.items()}
    beside = {f"{name}/{metric}/{part}": getattr(deltas[metric], part) for metric in deltas for part in _BESIDE}
    sync = finish(settings, folder, loggers, found, pictures, beside)
    _print_faults(console, fed.faults)
    if fed.withheld.questions:
        console.print(
            f"Not trained on, for a benchmark asks about them: {fed.withheld.videos} videos, "
            f"{fed.withheld.questions} questions",
            highlight=False,
        )
    if fed.wait_share is not None:
        console.print(f"Waiting for data: {fed.wait_share:.1%} of the time in training", highlight=False)
    _print_places(console, folder, seconds, sync)
    report_at_end(settings, folder)


def mean_reward(rows: Rows | None) -> float:
    """The mean total reward of answered questions; NaN where none were asked."""
    return float(np.mean([row["reward"]["total"] for row in rows])) if rows else float("nan")


def report_evaluation(
    settings: Settings,
    folder: Path,
    rows: Rows,
    faults: Sequence[Fault],
    seconds: Mapping[str, float],
    asked: Index | None = None,
) -> None:
    """Scores with intervals, by question type."""
    console = Console()
    scores = _scores(settings, rows)
    console.print(_scores_table(settings, rows, scores))
    extra = {
        "heldout": heldout_name(settings),
        "scores": scores,
        "questions": len(rows),
        "answered": sum(bool(row["extracted"]) for row in rows),
        "faults": len(faults) + sum("error" in row for row in rows),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    _print_faults(console, [*faults, *_not_asked(rows)])
    at = f"eval/{heldout_name(settings)}"
    figures = {f"{at}/{name}": found["mean"] for name, found in scores.items()}
    ends = {f"{at}/{name}/{end}": found[end] for name, found in scores.items() for end in ("low", "high")}
    sync = finish(settings, folder, make_loggers(settings, folder, asked), figures, {}, ends)
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
) -> None:
    """Prints the figures of a benchmark, what could not be asked or read, and where everything lies."""
    console = Console()
    show(console, scored, spread, folder)
    console.print(f"  asked: {_conditions(how)}", markup=False, highlight=False, soft_wrap=True)
    failed = _not_asked(rows)
    if failed:
        console.print(f"[bold]{len(failed)} questions could not be asked and count as wrong:[/bold]")
        console.print(describe(failed), markup=False, highlight=False, soft_wrap=True)
    if missing:
        console.print("[bold]Videos are missing:[/bold]")
        console.print(describe(list(missing)), markup=False, highlight=False, soft_wrap=True)
    extra = {
        "benchmark": scored.benchmark,
        "overall": scored.official_values["overall"],
        "questions": len(scored.questions),
        "not_extracted": scored.not_extracted,
        "not_asked": len(failed),
        "missing_videos": len(missing),
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    loggers = make_loggers(settings, folder, partial(index_questions, scored.questions))
    sync = finish(settings, folder, loggers, *_tracked(scored, spread))
    _print_places(console, folder, seconds, sync)


def _not_asked(rows: Rows) -> list[Fault]:
    """Why questions could not be asked, as their lines have it: `KIND: DETAIL`."""
    return [Fault(str(row["id"]), *str(row["error"]).split(": ", 1)) for row in rows if "error" in row]


def _tracked(
    scored: Scored, spread: Mapping[str, Interval]
) -> tuple[dict[str, float], dict[str, Path], dict[str, float]]:
    """The official figures as loggers hold them (`eval/vsi_bench/overall`), no pictures, and what W&B holds beside.

    That is the ends of the intervals, and the figures as SpaceR's code has them (`eval/vsi_bench/spacer_eval/overall`).
    """
    at = f"eval/{scored.benchmark}"
    beside = {f"{at}/spacer_eval/{metric}": value for metric, value in scored.released_values.items()}
    beside |= {f"{at}/{metric}/low": found.low for metric, found in spread.items()}
    beside |= {f"{at}/{metric}/high": found.high for metric, found in spread.items()}
    return {f"{at}/{metric}": value for metric, value in scored.official_values.items()}, {}, beside


def _conditions(how: Mapping[str, Any]) -> str:
    """What published figures differ by most, in a line; `scores.json` has the prompts and the rest."""
    asked, model, libraries = how["benchmark"], how["model"], how["libraries"]
    video = asked["video"]
    return (
        f"at most {video['max_frames']} frames at {video['fps']:g} a second, of {video['max_pixels']} pixels and side "
        f"{video['max_side']}; temperature {asked['temperature']:g}, {asked['max_new_tokens']} tokens; "
        f"{model['name_or_path']} ({model['weights'] or model['revision']}), {model['dtype']}; "
        + ", ".join(f"{name} {libraries[name]}" for name in ("spacer", "torch", "transformers"))
    )


def report_all(folder: Path, names: Iterable[str]) -> None:
    """The overall figures of several benchmarks side by side, from what each has written; also in `summary.json`."""
    table = Table(title="overall, in percent", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("benchmark", "official", "95 % interval", "spacer_eval", "questions", "not extracted"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    found = {name: json.loads((folder / name / "scores.json").read_text(encoding="utf-8")) for name in names}
    for name, scores in found.items():
        spread = scores["intervals"]["overall"]
        table.add_row(
            name,
            f"{100 * scores['official']['overall']:.2f}",
            "" if spread is None else f"{100 * spread[0]:.1f} to {100 * spread[1]:.1f}",
            f"{100 * scores['spacer_eval']['overall']:.2f}",
            str(scores["questions"]),
            str(scores["not_extracted"]),
        )
    console = Console()
    console.print(table)
    console.print(f"  each in full: {folder}/NAME/scores.json", markup=False, highlight=False, soft_wrap=True)
    overall = {
        name: {"official": scores["official"]["overall"], "spacer_eval": scores["spacer_eval"]["overall"]}
        for name, scores in found.items()
    }
    write_json(folder / "summary.json", overall)


def _by_metric(rows: Rows) -> dict[str, list[tuple[float, str]]]:
    """Metric → (value, scene) of each question that it is of."""
    found: dict[str, list[tuple[float, str]]] = {}
    for row in rows:
        for name in ("total", "answer", "map", "format"):
            found.setdefault(f"reward/{name}", []).append((row["reward"][name], row["scene"]))
        found.setdefault("map/quality", []).append((row["reward"]["map_quality"], row["scene"]))
        found.setdefault(f"answer/{row['question_type']}", []).append((row["reward"]["answer"], row["scene"]))
    return found


def _scores(settings: Settings, rows: Rows) -> dict[str, dict[str, float]]:
    """Metric → its mean over the rows and the ends of its interval."""
    interval = partial(mean_interval, resamples=settings.benchmark.resamples, seed=settings.seed)
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
    """Predicted against true map over a frame, for the first questions whose completion drew one."""
    drawn: dict[str, Path] = {}
    for row in rows:
        if len(drawn) == MAPS_DRAWN:
            break
        if not row.get("drawn") or not row["true_map"] or "error" in row:
            continue
        try:
            frames = read_video(Path(row["video"]), VideoSettings(max_frames=4, fps=4.0)).frames_THWC
        except MediaError:
            continue  # an image, or a video gone since; its question is counted elsewhere
        path = figures / f"map_{len(drawn) + 1}.png"
        predicted = parse_map(row["completion"], row["true_map"])
        title = f"{row['id']}: {row['question']}"
        draw = partial(map_overlay, _mosaic(frames), row["true_map"], predicted, title=title)
        for_screen_and_paper(draw, path)
        drawn[f"figures/map_{len(drawn) + 1}"] = path
    return drawn


def _mosaic(frames_THWC: np.ndarray) -> np.ndarray:
    """The first, a later, … and the last of the frames in a square of two by two, in reading order."""
    a, b, c, d = (frames_THWC[round(i * (len(frames_THWC) - 1) / 3)] for i in range(4))
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def _print_faults(console: Console, faults: Sequence[Fault]) -> None:
    if faults:
        console.print(f"[bold]{len(faults)} samples were left out or counted as wrong:[/bold]")
        console.print(describe(list(faults)), markup=False, highlight=False)


def _print_places(console: Console, folder: Path, seconds: Mapping[str, float], sync: str | None) -> None:
    console.print("Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()), highlight=False)
    places = {
        "model (Hugging Face format)": "model",
        "answers": "predictions",
        "figures": "figures",
        "table as data": "summary.json",
        "configuration": ".hydra/config.yaml",
    }
    for what, name in places.items():
        if (folder / name).exists():
            console.print(f"  {what}: {folder / name}", markup=False, highlight=False, soft_wrap=True)
    if sync:
        console.print(f"  W&B ran offline; to upload: {sync}", markup=False, highlight=False, soft_wrap=True)
