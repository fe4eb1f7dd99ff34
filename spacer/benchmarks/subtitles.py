"""Subtitles as the benchmarks distribute them: SubRip files (Video-MME) and JSON (LongVideoBench)."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from spacer.data.captions import Caption
from spacer.errors import UserError

_Line = tuple[float, float, str]  # start and end in seconds, text

_CLOCK = r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}.*")
# <i>, <font color="…">, </c.yellow>, <00:00:01.000>, {\an8}; any other < is part of the speech
_TAG = re.compile(
    r"""</?(?:i|b|u|s|em|strong|font|c|v|span|ruby|rt|lang)(?:[.\s](?:[^<>"']++|"[^"]*"|'[^']*')*+)?>"""
    r"|<\d+:\d\d[\d:.,]*>|\{\\[^{}]*\}",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>|\\N", re.IGNORECASE)


def subtitles(path: Path, begins: float = 0.0) -> tuple[Caption, ...]:
    """The non-empty lines of a subtitle file, in seconds of the video, in order.

    Args:
        path: `.srt`, or JSON: a list of {"timestamp": [start, end], "text"} or of {"start", "end", "line"} with clock
            times. An end of null is the start of the next line.
        begins: the video's start, in seconds on the subtitles' clock; lines that end before it are left out.

    Raises:
        UserError: the file cannot be read in this format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        lines = _json_lines(json.loads(text)) if path.suffix == ".json" else _srt_lines(text)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as subtitles: {type(error).__name__}: {error}") from error
    lines.sort(key=lambda line: line[:2])
    return tuple(Caption(start - begins, end - begins, said) for start, end, said in lines if said and end >= begins)


def _srt_lines(text: str) -> list[_Line]:
    """Parses each time line with all lines up to the next one, except for that one's number if blocks are numbered.

    Blank lines do not end a block, since some are part of the speech. Lines end at CR and LF only, not at U+2028
    and the like (as in `str.splitlines`), which occur within lines.
    """
    found: list[_Line] = []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    starts = [index for index, line in enumerate(lines) if _TIMES.fullmatch(line)]
    numbered = bool(starts) and starts[0] > 0 and lines[starts[0] - 1].strip().isdecimal()
    for number, (start, end) in enumerate(itertools.pairwise([*starts, len(lines)]), start=1):
        said = lines[start + 1 : end]
        if numbered and end < len(lines):  # the next block's number is directly before its times …
            said = said[:-1] if said and said[-1].strip().isdecimal() else said
        elif numbered:  # … or is left over in a truncated file
            rest = [line for line in said if line.strip()]
            said = rest[:-1] if len(rest) > 1 and rest[-1].strip() == str(number + 1) else rest
        times = _TIMES.fullmatch(lines[start])
        assert times is not None
        groups = times.groups()
        found.append((_seconds(*groups[:3]), _seconds(*groups[3:]), _without_markup(" ".join(said))))
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
        (start, following if end is None else end, _without_markup(said))
        for (start, end, said), following in zip(timed, nexts, strict=True)
    ]


def _clock(text: str) -> float:
    match = re.fullmatch(_CLOCK, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time such as 00:00:01.500")
    return _seconds(*match.groups())


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))


def _without_markup(text: str) -> str:
    return " ".join(_TAG.sub("", _BREAK.sub(" ", text)).split())
