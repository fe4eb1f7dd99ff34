"""The README and the pages of the site: what they name is there."""

from __future__ import annotations

import doctest
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.pages import DOCS, PAGES, ROOT, page

PATH = re.compile(r"`((?:spacer|conf|tests|experiments|sweeps|docs)/[\w./-]+)`")
WALKS = ("walks/gradient", "walks/score")
ROW = re.compile(r"^\| (\d+) \| `([\w/.]+)` \| ([^|]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def settings_pages() -> Any:
    """The script that makes the pages of settings."""
    spec = importlib.util.spec_from_file_location("settings_pages", DOCS / "hooks/settings_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(path: Path) -> None:
    named = [name for name in PATH.findall(path.read_text(encoding="utf-8")) if not re.search(r"NAME|my_rooms", name)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_to_them(path: Path) -> None:
    """Those to pages of settings are made with the site, whose strict build holds them too."""
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not re.match(r"https?:|#", link)]
    made = re.compile(r"^(\.\./)?(docs/)?settings/\w+\.md$")
    assert [link for link in local if not made.match(link) and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_extras_that_a_page_names_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m ([\w.]+)", text)) - {"venv"}
    files = {name: [ROOT / f"{name.replace('.', '/')}{end}" for end in (".py", "/__main__.py")] for name in modules}
    assert [name for name, places in files.items() if not any(place.is_file() for place in places)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"\.\[(\w+)\]", text)) <= set(project["optional-dependencies"])


def test_contributing_has_the_layers_that_imports_are_held_to() -> None:
    """Row 1 is the lowest."""
    table = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| row | package |")[2].partition("\n\n")[0]
    )
    rows: list[set[str]] = []
    for number, package in re.findall(r"^\| (\d*) ?\| `(\w+)(?:/|\.py)` \|", table, re.MULTILINE):
        rows += [set()] if number else []
        rows[-1].add(package)
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert rows == [set(re.findall(r"\w+", layer)) for layer in reversed(contract["layers"])]


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_is_short_and_names_what_there_is(walk: str) -> None:
    rows = ROW.findall(page(walk))
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1)) and 10 < len(rows) <= 20
    for _, module, names in rows:
        text = (ROOT / module).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(?:def|class) {name}\b", text, re.MULTILINE), f"{module} has no {name}"


def test_every_group_and_key_has_its_place_on_a_page_of_settings(settings_pages: Any) -> None:
    made = settings_pages.pages()
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert set(made) == {f"settings/{name}.md" for name in folders | {"index", "experiments", "sweeps"}}
    for name in folders:
        shown = made[f"settings/{name}.md"]
        for path in (ROOT / "conf" / name).rglob("*.yaml"):
            assert f"| `{path.stem}` |" in shown and f'"conf/{path.relative_to(ROOT / "conf")}"' in shown
    objective = made["settings/objective.md"]
    assert "| `beta` | number | `0.04` | weight of the KL to the reference model; " in objective
    assert "must be at least 2: to compare a group's completions, such as 8" in objective
    assert "each must be at least 0 and less than 1" in made["settings/stage.md"]
    assert "| `video.max_frames` | integer | `32` |" in made["settings/benchmark.md"]


def test_the_examples_of_the_script_hold(settings_pages: Any) -> None:
    found = doctest.testmod(settings_pages)
    assert found.attempted > 1 and not found.failed


def test_a_comment_goes_on_below_in_its_column(settings_pages: Any) -> None:
    text = "a:            # first\n  b: 1        # second, which\n              # goes on\n# another\nc: '#1'\n"
    assert settings_pages._comments(text) == {"a": "first", "a.b": "second, which goes on"}
