"""Subtitles as the benchmarks distribute them: SubRip files (Video-MME) and JSON (LongVideoBench)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from spacer.data.captions import Caption
from spacer.errors import UserError

_Line = tuple[float, float, str]  # start and end in seconds, text

_CLOCK = r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}.*")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # <i>, {\an8}


def subtitles(path: Path, begins: float = 0.0) -> tuple[Caption, ...]:
    """The lines of a subtitle file that have text, in seconds of the video, in order.

    Args:
        path: `.srt`, or JSON: a list of {"timestamp": [start, end], "text"} or of {"start", "end", "line"} with clock
            times. An end of null is the start of the next line.
        begins: seconds on the subtitles' clock at which the video begins; lines that end before it are left out.

    Raises:
        UserError: the file cannot be read so.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        lines = _json_lines(json.loads(text)) if path.suffix == ".json" else _srt_lines(text)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as subtitles: {type(error).__name__}: {error}") from error
    lines.sort(key=lambda line: line[:2])
    return tuple(Caption(start - begins, end - begins, said) for start, end, said in lines if said and end >= begins)


def _srt_lines(text: str) -> list[_Line]:
    """Blocks of a time line and the lines under it, up to a blank one; numbers between blocks are passed over."""
    found: list[_Line] = []
    said: list[str] | None = None
    times = (0.0, 0.0)
    for line in [*text.splitlines(), ""]:
        if match := _TIMES.fullmatch(line):
            groups = match.groups()
            times, said = (_seconds(*groups[:3]), _seconds(*groups[3:])), []
        elif said is not None and line.strip():
            said.append(line)
        elif said is not None:
            found.append((*times, _plain(" ".join(said))))
            said = None
    if not found and text.strip():
        raise ValueError("it has no line with times such as 00:00:01,000 --> 00:00:02,500")
    return found


def _json_lines(entries: Any) -> list[_Line]:
    if not isinstance(entries, list):
        raise ValueError(f"expected a list, not {type(entries).__name__}")
    timed = []
    for entry in entries:
        if "timestamp" in entry:
            start, end = entry["timestamp"]
            timed.append((float(start), None if end is None else float(end), str(entry["text"])))
        else:
            timed.append((_clock(entry["start"]), _clock(entry["end"]), str(entry["line"])))
    starts = [start for start, _, _ in timed]
    nexts = [*starts[1:], *starts[-1:]]
    return [
        (start, following if end is None else end, _plain(said))
        for (start, end, said), following in zip(timed, nexts, strict=True)
    ]


def _clock(text: str) -> float:
    match = re.fullmatch(_CLOCK, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time such as 00:00:01.500")
    return _seconds(*match.groups())


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))


def _plain(text: str) -> str:
    return " ".join(_TAG.sub("", text).split())
