"""A real browser: Debian's Chromium without a window, driven by selenium."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spacer.config.settings import ReportSettings, RoomsSettings
from spacer.data.scenes import rooms
from spacer.report.html.build import write_report
from tests.run_folders import training_run

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,900"),
)


@dataclass(frozen=True)
class Page:
    """A report that is open. What it wrote to the console, and what it asked for, is kept from when it was opened."""

    driver: Any

    def find(self, css: str) -> Any:
        """The element, waited for."""
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 30).until(lambda driver: driver.find_element(By.CSS_SELECTOR, css))

    def texts(self, css: str) -> list[str]:
        """What the elements show, those out of sight too."""
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent.toWellFormed())"
        return list(self.driver.execute_script(script, css))

    def choose(self, label: str, option: str) -> None:
        """Chooses an option of a list, by the words that a user reads."""
        from selenium.webdriver.support.select import Select

        Select(self.find(f"select[aria-label='{label}']")).select_by_visible_text(option)

    def wait(self, script: str) -> Any:
        """Until the script returns something that is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 30).until(lambda driver: driver.execute_script(f"return {script}"))

    def complaints(self) -> list[str]:
        """What the console has printed since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for since the last call, its own and inline data aside."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not re.match(r"data:|about:|file://[^?]*/report\.html(#|$)", url)]


def start(profile: Path) -> Any:
    """The browser, with a profile of its own; None where it is not installed."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser; tests are skipped where it is not installed."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")
    started = start(tmp_path_factory.mktemp("profile"))
    if started is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    yield started
    started.quit()


@pytest.fixture
def page(browser: Any) -> Page:
    """The browser, with nothing in its logs."""
    browser.get("about:blank")
    found = Page(browser)
    found.complaints(), found.requests()
    return found


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short videos of rooms."""
    root = tmp_path_factory.mktemp("films")
    settings = RoomsSettings(str(root), train_scenes=1, heldout_scenes=1, size_px=112, seconds=3.0, video_fps=4)
    return sorted((rooms.build(settings) / "videos").iterdir())


@pytest.fixture(scope="session")
def trained(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of 40 questions: 0-9 right before and after, 10-19 gained, 20-24 lost, the others wrong.

    Of the answers after, 30 has none that can be read and 31 could not be asked.
    """
    folder = tmp_path_factory.mktemp("trained")
    before = [number < 10 or 20 <= number < 25 for number in range(40)]
    after = [number < 20 for number in range(40)]
    changes = {
        30: {"completion": "no tags at all", "extracted": False},
        31: {"completion": "", "extracted": False, "error": "unreadable: the file ends early"},
    }
    training_run(folder, before, after, films, changes)
    return write_report(folder / "report.html", [folder], ReportSettings(), 100, 0)
