"""Makes the pictures of docs/gallery.md from finished runs, with Chromium: from the repository's root,

    python -m docs.hooks.gallery RUN SWEEP

RUN is the folder of a training with controls, SWEEP that of a sweep. Needs `pip install -e ".[test]"`, chromium and
chromedriver. Pictures in docs/images/gallery/ are replaced.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from spacer.report.html.sweep import read_sweep
from tests.browser.conftest import start

PICTURES = Path(__file__).parents[1] / "images" / "gallery"
FIGURES = {"reward_curves": "curves", "question_types": "question_types", "map_1": "map_1", "map_2": "map_2"}
MOST = 1_000_000  # bytes of all pictures
RESAMPLES = 10_000


@dataclass(frozen=True)
class Screen:
    """A picture of a page: which tab of which report, on how large a screen, by day (light) or night (dark)."""

    name: str
    of_sweep: bool
    tab: str
    width: int
    height: int
    theme: str


SCREENS = (
    Screen("overview", False, "overview", 1180, 1000, "light"),
    Screen("question", False, "questions", 1180, 900, "dark"),
    Screen("training", False, "training", 1180, 760, "light"),
    Screen("phone", False, "overview", 390, 844, "light"),
    Screen("sweep", True, "overview", 1180, 900, "light"),
    Screen("sweep_training", True, "training", 1180, 620, "dark"),
)


def photographs(driver: Any, pages: dict[bool, Path]) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each of `SCREENS`."""
    for screen in SCREENS:
        size = {"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": screen.width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": screen.theme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        driver.get("about:blank")
        driver.get(f"{pages[screen.of_sweep].as_uri()}#{screen.tab}")
        driver.execute_async_script("const done = arguments[0]; setTimeout(done, 500)")  # until frames are decoded
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        yield screen.name, Image.open(io.BytesIO(base64.b64decode(taken["data"])))


def main(run: Path, sweep: Path) -> None:
    """Writes the pictures and prints their sizes."""
    found = read_sweep(sweep)
    if found is None or not found.done:
        sys.exit(f"{sweep} is not the folder of a sweep with finished jobs")
    with tempfile.TemporaryDirectory() as folder:
        pages = {
            False: write_report(Path(folder) / "run.html", [run], ReportSettings(), RESAMPLES, 0),
            True: write_report(Path(folder) / "sweep.html", found.done, ReportSettings(), RESAMPLES, 0, found),
        }
        driver = start(Path(folder) / "profile")
        if driver is None:
            sys.exit("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
        pictures = dict(photographs(driver, pages))
        driver.quit()
    for name, as_named in FIGURES.items():
        pictures[as_named] = Image.open(run / "figures" / f"{name}.png")
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.webp"):
        old.unlink()
    for name, picture in pictures.items():
        picture = picture.convert("RGB")
        picture.thumbnail((1180, 1180))
        picture.save(PICTURES / f"{name}.webp", quality=82, method=6)
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.glob("*.webp"))}
    print("\n".join(f"{size:8,} {name}" for name, size in sizes.items()))
    if sum(sizes.values()) > MOST:
        sys.exit(f"{sum(sizes.values()):,} bytes of pictures are more than {MOST:,}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
