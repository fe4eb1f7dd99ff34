"""Writes runs as one self-contained HTML file: style, script, data, frames and small videos are embedded.

Text from models and data files never becomes markup: it is embedded as JSON without `<`, in elements that are not
executed, and the script inserts it as text. A Content Security Policy in the page's head forbids all scripts but its
own, identified by its hash, and every connection.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import spacer
from spacer.config.settings import ReportSettings
from spacer.files import write_text
from spacer.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION
from spacer.report.html.contents import RunFolder
from spacer.report.html.folders import read_runs
from spacer.report.html.index import Subject, differences, run_entry, subject_entry, subjects
from spacer.report.html.media import Medium, embedded
from spacer.report.html.rollouts import rollout_entries
from spacer.report.html.sweep import SweepFolder, last_answers, sweep_entry
from spacer.report.html.texts import CHUNK, RIGHT, by_worth, chunks, plain_json
from spacer.report.labels import METRICS

NAME = "report.html"
_SCRIPTS = (
    *("dom.js", "charts.js", "data.js", "added.js", "passing.js", "overview.js", "sweep.js", "training.js"),
    *("questions.js", "detail.js", "main.js"),
)
PAGE = 100_000  # characters: style, script and the frame around the contents
_TEXT_SHARE = 0.8  # of the file for texts, so that some room is left for pictures


@dataclass(frozen=True)
class Element:
    """A piece of JSON in the page, found by its id and parsed on demand."""

    id: str
    json: str


def write_report(
    path: Path,
    folders: Sequence[Path],
    settings: ReportSettings,
    resamples: int,
    seed: int,
    sweep: SweepFolder | None = None,
) -> Path:
    """Writes a report of the runs in the folders to a file, and returns its path.

    Intervals use `resamples` resamples, drawn with `seed`. If the folders are the jobs of a `sweep`, the page begins
    with their table.

    Raises:
        UserError: a run's file cannot be read; the message names it.
    """
    runs = read_runs(folders)
    if sweep is not None:
        runs = [last_answers(run) for run in runs]
    write_text(path, page(_elements(runs, settings, resamples, seed, sweep)))
    return path


def _elements(
    runs: Sequence[RunFolder], settings: ReportSettings, resamples: int, seed: int, sweep: SweepFolder | None
) -> list[Element]:
    found = subjects(runs)
    media, places = _media(found)
    base = _base_of([medium.path for medium in media if medium.path is not None])
    index = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": spacer.__version__,
        "right": RIGHT,
        "chunk": CHUNK,
        "media_root": base,
        "colours": [SKY, BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY, INK],
        "labels": METRICS,
        "runs": [run_entry(run, place) for place, run in enumerate(runs)],
        "subjects": [subject_entry(subject, at, resamples, seed) for subject, at in zip(found, places, strict=True)],
        "sweep": None if sweep is None else sweep_entry(sweep, runs),
        "differences": differences(runs) if len(runs) > 1 else [],
    }
    room = max(0, settings.max_megabytes * 1_000_000 - len(plain_json(index)) - PAGE)
    elements: list[Element] = []
    text_room, texts_left_out = int(room * _TEXT_SHARE), 0
    for number, subject in enumerate(found):
        texts = chunks(subject.questions, text_room // (len(found) - number))
        text_room -= texts.size
        texts_left_out += texts.left_out
        elements += [Element(f"text-{number}-{place}", chunk) for place, chunk in enumerate(texts.chunks)]
    rollouts, rollouts_left_out = rollout_entries(runs, text_room)
    elements.append(Element("rollouts", plain_json(rollouts)))
    index["rollouts"] = any(run["questions"] for run in rollouts)
    shown = embedded(media, settings, room - sum(len(element.json) for element in elements))
    for place, (medium, picture) in enumerate(zip(media, shown.shown, strict=True)):
        inside = None if medium.path is None or base is None else os.path.relpath(medium.path, base)
        elements.append(Element(f"media-{place}", plain_json({"path": inside, **asdict(picture)})))
    index["left_out"] = _left_out(settings, texts_left_out, rollouts_left_out, shown.without_frames, len(media))
    return [Element("index", plain_json(index)), *elements]


def _media(found: Sequence[Subject]) -> tuple[list[Medium], list[list[int]]]:
    """All media, those of the most interesting questions first, and each subject's indices into them by question."""
    media: dict[Any, Medium] = {}
    keys: list[dict[int, Any]] = []
    for number, subject in enumerate(found):
        of: dict[int, Any] = {}
        for place in by_worth(subject.questions):
            asked = subject.questions.asked[place]
            if asked.media is not None:
                of[place] = asked.media
                media.setdefault(asked.media, Medium(asked.media))
            elif len(asked.pictures):
                of[place] = (number, place)
                media[number, place] = Medium(None, asked.pictures)
        keys.append(of)
    order = {key: place for place, key in enumerate(media)}
    places = [
        [order[of[place]] if place in of else -1 for place in range(len(subject.questions.asked))]
        for subject, of in zip(found, keys, strict=True)
    ]
    return list(media.values()), places


def _base_of(paths: Sequence[Path]) -> str | None:
    """The folder that contains all videos, which readers can change when they open the page elsewhere."""
    folders = [str(path.parent) for path in paths if path.is_absolute()]
    return os.path.commonpath(folders) if folders else None


def _left_out(settings: ReportSettings, texts: int, rollouts: int, media: int, all_media: int) -> list[str]:
    """What the page leaves out, and the setting that controls it."""
    bound = f"report.max_megabytes={settings.max_megabytes}"
    told = []
    if texts:
        told.append(f"texts of {texts} questions ({bound}); their scores are here")
    if rollouts:
        told.append(f"{rollouts} completions of training, the oldest ({bound})")
    if media:
        told.append(
            f"frames of {media} of {all_media} videos or sets of pictures (report.strips={settings.strips}, {bound})"
        )
    return told


def page(elements: Sequence[Element]) -> list[str]:
    """The pieces of the file. The first element is the index; each is a script element that is not executed."""
    here = files("spacer.report.html") / "page"
    style = (here / "page.css").read_text(encoding="utf-8")
    script = "".join((here / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    policy = (
        f"default-src 'none'; img-src data:; media-src data: file:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    top, bottom = (here / "page.html").read_text(encoding="utf-8").replace("POLICY", policy).split("DATA\n")
    data = (f'<script type="application/json" id="{one.id}">{one.json}</script>\n' for one in elements)
    return [top.replace("STYLE", style), *data, bottom.replace("SCRIPT", script)]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
