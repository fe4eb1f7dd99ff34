"""The stage that makes a data set of annotated 3D scans: without a model, so that torch is never imported."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from spacer.report.contact_sheet import contact_sheet
from spacer.report.curation import curation_table, histograms, print_places, summary_of
from spacer.report.drawing import for_screen_and_paper
from spacer.report.table import write_summary
from spacer.scenes.curating import curate_scans
from spacer.settings import ScansSettings, Settings

log = logging.getLogger(__name__)


def curate(settings: Settings, folder: Path) -> float:
    """Makes questions and maps in the data root, and a report on them in the run's folder.

    Returns how many questions were made.

    Raises:
        DataError: some scenes are faulty and dataset.on_bad is stop, or no question can be asked of any.
    """
    assert isinstance(settings.dataset, ScansSettings)  # a rule of the configuration
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
    console = Console()
    console.print(curation_table(made))
    print_places(console, made, settings.dataset, folder)
    return float(len(made.posed))
