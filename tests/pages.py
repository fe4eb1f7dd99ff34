"""The README and the pages of the site as text: what tests read in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# which the pages of settings are made from
CONFIGS = [path for folder in ("conf", "experiments", "sweeps") for path in sorted((ROOT / folder).rglob("*.yaml"))]
_COMMAND = re.compile(r"^python run\.py\b(.*)$|`python run\.py ([^`]+)`", re.MULTILINE)
_IN_YAML = re.compile(r"python run\.py((?: (?:-m|[\w./@+]+=[^\s`]+))*)")


def page(name: str) -> str:
    """The text of a page of the site, such as `extending`."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> Iterator[tuple[str, str]]:
    """Language and code of each fenced block in one of the languages."""
    yield from re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, ...]]:
    """The words after `python run.py` in every command that a page shows, each once."""
    found: dict[tuple[str, ...], None] = {}
    for path in PAGES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")  # a command may go on in the next line
        for line, inline in _COMMAND.findall(text):
            found.setdefault(tuple(shlex.split(line or inline, comments=True)))
    return list(found)


def commands_in_configs() -> list[tuple[str, ...]]:
    """The same of comments and help in YAML files, which the pages of settings show."""
    texts = [path.read_text(encoding="utf-8") for path in CONFIGS]
    return list(dict.fromkeys(tuple(words.split()) for text in texts for words in _IN_YAML.findall(text)))
