"""The stage that makes a data set from annotated 3D scans, without a model and without importing torch."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

from spacer.config.settings import ScansSettings, Settings
from spacer.data.scenes.curating import curate_scans
from spacer.report.contact_sheet import contact_sheet
from spacer.report.curation import curation_table, histograms, print_places, summary_of
from spacer.report.drawing import for_screen_and_paper
from spacer.report.table import write_summary
from spacer.terminal.screen import screen

log = logging.getLogger(__name__)


def curate(settings: Settings, folder: Path) -> float:
    """Writes questions and maps to the data root, and a report on them to the run's folder.

    Returns the number of questions.

    Raises:
        DataError: some scenes are faulty and dataset.on_bad is stop, or no scene yields a question.
    """
    assert isinstance(settings.dataset, ScansSettings)  # ensured by a config rule
    root = Path(settings.dataset.root).expanduser()
    start = time.monotonic()
    made = curate_scans(settings.dataset)
    seconds = {"curate": round(time.monotonic() - start, 2)}
    log.info("drawing the report …")
    figures = folder / "figures"
    for_screen_and_paper(partial(histograms, made), figures / "curate_histograms.png")
    contact_sheet(made, root, figures / "curate_contact_sheet.png")
    seconds["report"] = round(time.monotonic() - start - seconds["curate"], 2)
    write_summary(folder / "summary.json", {}, seconds, summary_of(made) | {"seed": settings.dataset.seed})
    console = screen()
    console.print(curation_table(made))
    print_places(console, made, settings.dataset, folder)
    return float(len(made.posed))
