"""The stage that compares runs of a benchmark, question by question, without a model or data."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from spacer.config.settings import CompareStage, Settings
from spacer.errors import UserError
from spacer.evaluation.outcomes import OVERALL, Comparison, compare_runs
from spacer.report.comparison import comparison_summary, comparison_table, forest_plot, letter
from spacer.report.drawing import for_screen_and_paper
from spacer.report.table import write_json
from spacer.stages.report import report_at_end, run_folders
from spacer.terminal.screen import screen


def compare(settings: Settings, folder: Path) -> float:
    """Compares each further run of `runs` with the first: tables, `comparison.json`, `figures/comparison.png`, W&B.

    Returns the difference of the last run's mean over questions of the first subject, between -1 and 1.

    Raises:
        UserError: a run's files cannot be read, or runs cover different questions or were asked by different protocols.
    """
    resamples, seed = settings.evaluation.resamples, settings.seed
    assert isinstance(settings.stage, CompareStage)
    folders = run_folders(settings.runs)
    if len(folders) < 2:
        raise UserError(f"runs: {folders[0]} is the only run: stage=compare takes at least two")
    comparisons = compare_runs(folders, resamples=resamples, seed=seed, any_protocol=settings.stage.any_protocol)
    console = screen()
    for comparison in comparisons:
        console.print(comparison_table(comparison, comparison.place))
    for place, name in enumerate(folders):
        console.print(f"  {letter(place)}: {name}", soft_wrap=True)
    data, pictures = folder / "comparison.json", {}
    write_json(data, comparison_summary(comparisons, folders, resamples, seed))
    for number, subject in enumerate(dict.fromkeys(comparison.a.subject for comparison in comparisons)):
        of_it = [comparison for comparison in comparisons if comparison.a.subject == subject]
        drawn = "figures/comparison" if number == 0 else f"figures/comparison_{number + 1}"
        pictures[drawn] = folder / f"{drawn}.png"
        for_screen_and_paper(partial(forest_plot, of_it), pictures[drawn])
    for what, path in [("table as data", data), *(("figure", path) for path in pictures.values())]:
        console.print(f"  {what}: {path}", soft_wrap=True)
    if settings.logger.kind == "wandb" and (sync := _to_wandb(settings, folder, comparisons, pictures)):
        console.print(f"  W&B ran offline; to upload: {sync}", soft_wrap=True)
    report_at_end(settings, folder, folders)
    last = [comparison for comparison in comparisons if comparison.a.subject == comparisons[0].a.subject][-1]
    return last.metrics[OVERALL].delta


def _to_wandb(settings: Settings, folder: Path, comparisons: list[Comparison], pictures: dict[str, Path]) -> str | None:
    from spacer.tracking.runs import finish, make_loggers  # imports Lightning, for its loggers, and thus torch

    summary = {
        f"compare/{letter(comparison.place)}/{_group(comparison, comparisons[0])}{name}/{what}": getattr(metric, what)
        for comparison in comparisons
        for name, metric in comparison.metrics.items()
        for what in ("delta", "low", "high", "p")
        if math.isfinite(getattr(metric, what))
    }
    return finish(settings, folder, make_loggers(settings, folder), {}, pictures, summary)


def _group(comparison: Comparison, first: Comparison) -> str:
    """What sets the metrics of a further subject apart from those of the first."""
    return "" if comparison.a.subject == first.a.subject else f"{comparison.a.subject}/"
