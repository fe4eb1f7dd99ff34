"""Output at the end of a benchmark's evaluation: tables on the terminal, `summary.json`, final W&B values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from spacer.benchmarks import SECONDS
from spacer.config.settings import Settings
from spacer.data.samples import Fault, describe
from spacer.evaluation.baselines import chance, constant
from spacer.evaluation.conditions import Protocol
from spacer.evaluation.scoring import Scored
from spacer.report.benchmark_scores import published_table, show
from spacer.report.table import video_adds_table, write_json, write_summary
from spacer.stages.summary import (
    Rows,
    controls_as_json,
    controls_logged,
    finite,
    not_asked,
    print_places,
)
from spacer.statistics.intervals import Interval, why_no_interval
from spacer.statistics.summaries import PairedDelta
from spacer.terminal.screen import screen
from spacer.terminal.tables import plain_table
from spacer.tracking.provenance import index_questions
from spacer.tracking.runs import finish, make_loggers


def report_benchmark(
    settings: Settings,
    folder: Path,
    scored: Scored,
    spread: Mapping[str, Interval],
    how: Mapping[str, Any],
    protocol: Protocol,
    rows: Rows,
    missing: Sequence[Fault],
    seconds: Mapping[str, float],
    adds: Mapping[str, Mapping[str, PairedDelta]],
) -> None:
    """Prints a benchmark's metrics, what the video adds to them, the questions that could not be asked or read, and the
    location of the files."""
    console = screen()
    show(console, scored, spread, folder, str(protocol))
    blind = {"chance": chance(scored), "constant": constant(scored.benchmark, scored.questions)}
    console.print(video_adds_table(scored.official_values, blind, adds))
    published = published_table(scored.benchmark)
    if published is not None and how["limit"] is None and how["tasks"] is None:  # they are of all questions
        console.print(published)
    console.print(f"  asked: {_conditions(how)}", soft_wrap=True)
    failed = not_asked(rows)
    if failed:
        console.print(f"{len(failed)} questions could not be asked and count as wrong:", style="bold")
        console.print(describe(failed), soft_wrap=True)
    if missing:
        console.print("Videos are missing:", style="bold")
        console.print(describe(list(missing)), soft_wrap=True)
    extra = {
        "benchmark": scored.benchmark,
        "protocol": asdict(protocol),
        "overall": scored.official_values["overall"],
        "questions": len(scored.questions),
        "not_extracted": scored.not_extracted,
        "not_asked": len(failed),
        "missing_videos": len(missing),
        "controls": controls_as_json(adds),
        "baselines": blind,
        "seed": settings.seed,
    }
    write_summary(folder / "summary.json", {}, seconds, extra)
    loggers = make_loggers(settings, folder, partial(index_questions, scored.questions))
    metrics, pictures, beside = _tracked(scored, spread)
    beside |= controls_logged(f"eval/{scored.benchmark}", adds)
    at = f"eval/{scored.benchmark}"
    beside |= finite({f"{at}/{metric}/{name}": value for name, of in blind.items() for metric, value in of.items()})
    sync = finish(settings, folder, loggers, metrics, pictures, beside)
    print_places(console, folder, seconds, sync)


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
    return {f"{at}/{metric}": value for metric, value in scored.official_values.items()}, {}, finite(beside)


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


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def report_all(folder: Path, names: Iterable[str]) -> None:
    """Prints the overall scores of several benchmarks side by side, from their files, and writes `summary.json`."""
    found = {name: json.loads((folder / name / "scores.json").read_text(encoding="utf-8")) for name in names}
    seconds = [second for second in SECONDS if any(second in scores for scores in found.values())]
    protocols = {name: "{name} {digest}".format(**scores["protocol"]) for name, scores in found.items()}
    same = len(set(protocols.values())) == 1
    told = f"; protocol: {next(iter(protocols.values()))}" if same else ""
    table = plain_table(f"Overall, in percent{told}")
    for heading in ("Benchmark", "Official", "95 % interval", *seconds, "N", "Not read"):
        table.add_column(heading, justify="left" if heading == "Benchmark" else "right")
    if not same:
        table.add_column("Protocol")
    for name, scores in found.items():
        spread = scores["intervals"]["overall"]
        table.add_row(
            name,
            f"{100 * scores['official']['overall']:.2f}",
            why_no_interval(scores["clusters"]["overall"], "videos") if spread is None else _range(*spread),
            *(f"{100 * scores[second]['overall']:.2f}" if second in scores else "" for second in seconds),
            str(scores["questions"]),
            str(scores["not_extracted"]),
            *([] if same else [protocols[name]]),
        )
    console = screen()
    console.print(table)
    console.print(f"  each in full: {folder}/NAME/scores.json", soft_wrap=True)
    overall = {
        name: {kind: scores[kind]["overall"] for kind in ("official", *SECONDS) if kind in scores}
        | {"protocol": scores["protocol"]}
        for name, scores in found.items()
    }
    write_json(folder / "summary.json", overall)
