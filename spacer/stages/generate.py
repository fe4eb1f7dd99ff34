"""Samples completions of the training questions: from which to choose questions, and completions to imitate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.table import Table

from spacer.config.settings import GenerateStage
from spacer.evaluation.kept import Row
from spacer.report.labels import QUESTION_TYPES
from spacer.report.table import write_summary
from spacer.stages.asking import generate_completions
from spacer.stages.report import report_at_end
from spacer.stages.running import Run
from spacer.stages.summary import not_asked, print_faults, print_places
from spacer.statistics.intervals import why_no_interval
from spacer.statistics.passing import PassRates, pass_rates, summed
from spacer.terminal.pasting import pasted
from spacer.terminal.screen import screen
from spacer.terminal.tables import plain_table
from spacer.tracking.provenance import index_samples
from spacer.tracking.runs import finish, make_loggers


def generate(run: Run) -> float:
    """Samples completions of the training questions. Returns the mean pass rate."""
    rows = generate_completions(run)
    if run.reports:
        _report(run, rows)
    rates = [row["pass_rate"] for row in rows if row["pass_rate"] is not None]
    return sum(rates) / len(rates) if rates else math.nan


def _report(run: Run, rows: Sequence[Row]) -> None:
    settings, stage, console = run.settings, run.settings.stage, screen()
    assert isinstance(stage, GenerateStage)
    drawn = settings.evaluation.resamples, settings.seed
    by_type, overall = pass_rates(rows, *drawn), summed([row for row in rows if row["pass_rate"] is not None], *drawn)
    console.print(pass_rate_table(by_type, overall, stage.completions))
    faults = [*run.faults(), *not_asked(rows)]
    completions = [completion for row in rows for completion in row["completions"]]
    extra = {
        "pass_rates": {kind: asdict(rates) for kind, rates in {"all": overall, **by_type}.items()},
        "questions": overall.questions,
        "completions": len(completions),
        "right": sum(completion["right"] for completion in completions),
        "truncated": sum(completion["truncated"] for completion in completions),
        "faults": len(faults),
        "seed": settings.seed,
    }
    write_summary(run.folder / "summary.json", {}, run.seconds, extra)
    print_faults(console, faults)
    metrics = {}
    if overall.questions:
        teaching = overall.teaching / overall.questions
        metrics = {"generate/pass_rate": overall.mean, "generate/groups_teaching": teaching}
    metrics |= {f"generate/pass_rate/{kind}": rates.mean for kind, rates in by_type.items()}
    asked = partial(index_samples, [sample for data in run.splits for sample in data.train.samples])
    sync = finish(settings, run.folder, make_loggers(settings, run.folder, asked), metrics, {})
    print_places(console, run.folder, run.seconds, sync)
    console.print(f"  to train on what is right sometimes: {use_of(run.folder)}", soft_wrap=True)
    report_at_end(settings, run.folder)


def pass_rate_table(by_type: Mapping[str, PassRates], overall: PassRates, completions: int) -> Table:
    """The table of pass rates by question type, of `completions` sampled for each question; fits 80 columns."""
    title = f"Pass rates over {completions} completions of each question"
    table = plain_table(title)
    table.caption = (
        "Right: the mean over questions of the share of right completions; its interval resamples scenes. Never, "
        "some, always: questions of which no, some and all completions are right. Teach: groups whose rewards "
        "differ, from which GRPO learns."
    )
    table.add_column("Question type", overflow="fold")
    for heading in ("N", "Right", "95 % interval", "Never", "Some", "Always", "Teach"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, rates in {**by_type, "all": overall}.items():
        if rates.questions:
            interval = why_no_interval(rates.scenes, "scenes")
            if math.isfinite(rates.low):
                interval = f"{rates.low:.3f} to {rates.high:.3f}"
            counts = (str(count) for count in (rates.never, rates.sometimes, rates.always))
            teach = f"{100 * rates.teaching / rates.questions:.1f} %"
            cells = (str(rates.questions), f"{rates.mean:.3f}", interval, *counts, teach)
            table.add_row(QUESTION_TYPES.get(kind, kind), *cells)
    return table


def use_of(folder: Path) -> str:
    """The settings by which a run trains on the questions that are answered rightly at times."""
    return f"{pasted('dataset.generated', str(folder / 'generated.jsonl'))} dataset.pass_rate=[0.1,0.9]"
