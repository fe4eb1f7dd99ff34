"""The stage that compares runs of a benchmark, question by question, without a model or data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spacer.config.settings import Settings
from spacer.evaluation.outcomes import OVERALL, Comparison, compare_runs
from spacer.report.comparison import comparison_summary, comparison_table, forest_plot, letter
from spacer.report.drawing import for_screen_and_paper
from spacer.report.table import write_json
from spacer.stages.report import report_at_end
from spacer.terminal.screen import screen


def compare(settings: Settings, folder: Path) -> float:
    """Compares each further run of `runs` with the first: tables, `comparison.json`, `figures/comparison.png`, W&B.

    Returns the difference of the last run's mean over questions, between -1 and 1.

    Raises:
        UserError: a run's files cannot be read, or runs cover different questions.
    """
    resamples, seed = settings.evaluation.resamples, settings.seed
    folders = [Path(name).expanduser().resolve() for name in settings.runs]
    comparisons = compare_runs(folders, resamples=resamples, seed=seed)
    console = screen()
    for place, comparison in enumerate(comparisons, 1):
        console.print(comparison_table(comparison, place))
    for place, name in enumerate(folders):
        console.print(f"  {letter(place)}: {name}", soft_wrap=True)
    data, picture = folder / "comparison.json", folder / "figures" / "comparison.png"
    write_json(data, comparison_summary(comparisons, resamples, seed))
    for_screen_and_paper(partial(forest_plot, comparisons), picture)
    for what, path in {"table as data": data, "figure": picture}.items():
        console.print(f"  {what}: {path}", soft_wrap=True)
    if settings.logger.kind == "wandb" and (sync := _to_wandb(settings, folder, comparisons, picture)):
        console.print(f"  W&B ran offline; to upload: {sync}", soft_wrap=True)
    report_at_end(settings, folder, folders)
    return comparisons[-1].metrics[OVERALL].delta


def _to_wandb(settings: Settings, folder: Path, comparisons: list[Comparison], picture: Path) -> str | None:
    from spacer.tracking.runs import finish, make_loggers  # imports Lightning, for its loggers, and thus torch

    summary = {
        f"compare/{letter(place)}/{name}/{what}": getattr(metric, what)
        for place, comparison in enumerate(comparisons, 1)
        for name, metric in comparison.metrics.items()
        for what in ("delta", "low", "high", "p")
    }
    return finish(settings, folder, make_loggers(settings, folder), {}, {"figures/comparison": picture}, summary)
