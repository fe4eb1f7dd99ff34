"""How long a report of two runs of 5,000 questions takes to make, and to open in a browser.

python -m tests.speed.report --json report.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from tests.browser.conftest import start as browser
from tests.run_folders import scored_run

# when everything that a tab shows is drawn, in milliseconds from the start of loading the file
_DRAWN = "const done = arguments[0];requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));"
_FOUND = "return document.getElementById('count').textContent.startsWith('1 of')"


def main() -> None:
    """Makes the folders and the report, opens it so many times, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--words", type=int, default=200, help="of a completion")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [scored_run(folder / run, chosen.questions, 0.5, seed, chosen.words) for seed, run in enumerate("ab")]
        start = time.perf_counter()
        report = write_report(folder / "report.html", runs, ReportSettings(), 10_000, 0)
        measured: dict[str, Any] = {
            "questions": chosen.questions,
            "megabytes": round(report.stat().st_size / 1e6, 1),
            "made in s": round(time.perf_counter() - start, 2),
            **_opened(report, chosen.times, folder / "profile"),
        }
    print(json.dumps(measured, indent=2))
    if chosen.json:
        chosen.json.write_text(json.dumps(measured, indent=2))


def _opened(report: Path, times: int, profile: Path) -> dict[str, Any]:
    driver = browser(profile)
    if driver is None:
        sys.exit("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    seconds: dict[str, list[float]] = {"overview": [], "questions": [], "search": []}
    try:
        for _ in range(times):
            for tab in ("overview", "questions"):
                driver.get("about:blank")
                driver.get(f"{report.as_uri()}#{tab}")
                seconds[tab].append(driver.execute_async_script(_DRAWN) / 1000)
            start = time.perf_counter()  # the first search, which parses all texts
            driver.find_element("id", "search").send_keys("question 4321")
            while not driver.execute_script(_FOUND):
                time.sleep(0.01)
            seconds["search"].append(time.perf_counter() - start)
    finally:
        driver.quit()
    return {f"{what}, s": [round(statistics.median(found), 2), round(max(found), 2)] for what, found in seconds.items()}


if __name__ == "__main__":
    main()
