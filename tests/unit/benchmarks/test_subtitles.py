"""Subtitle files of both forms, as lines in the seconds of the video."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacer.benchmarks.subtitles import _srt_lines, subtitles
from spacer.data.captions import Caption
from spacer.errors import UserError
from tests import benchmarks_as_distributed as made


def test_subrip(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text(
        "\ufeff1\n00:00:01,500 --> 00:00:02,000\n<i>Hello</i>\nthere\n\n"
        "2\r\n01:00:00.250 --> 01:00:01,000 X1:0\r\n{\\an8}42\r\n\r\n3\n00:00:00,000 --> 00:00:01,000\n\n",
        encoding="utf-8",
    )
    assert subtitles(path) == (Caption(1.5, 2.0, "Hello there"), Caption(3600.25, 3601.0, "42"))


def test_json_with_the_beginning_of_the_video_on_its_clock(tmp_path: Path) -> None:
    made.longvideobench(tmp_path)
    # 10 to 12 and 12.5 to null, which has no line after it
    hello, there = Caption(0.0, 2.0, "Hello"), Caption(2.5, 2.5, "there")
    assert subtitles(tmp_path / "subtitles/86CxyhFV9MI_en.json", 10.0) == (hello, there)
    assert subtitles(tmp_path / "subtitles/@user.1-7312345_en.json") == (Caption(1.0, 2.5, "Hello"),)
    # the first line has begun before the video, and in the end is over
    half = subtitles(tmp_path / "subtitles/86CxyhFV9MI_en.json", 11.0)
    assert half == (Caption(-1.0, 1.0, "Hello"), Caption(1.5, 1.5, "there"))
    assert subtitles(tmp_path / "subtitles/86CxyhFV9MI_en.json", 12.5) == (Caption(0.0, 0.0, "there"),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("a.json", "{}"), ("a.json", "[{"), ("a.json", '[{"text": "x"}]'), ("a.json", "[3]"), ("a.srt", "no times")),
        ("a.json", '[{"start": "soon", "end": "00:00:01", "line": "x"}]'),
        ("a.json", '[{"timestamp": 3, "text": ""}]'),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: cannot be read as subtitles"):
        subtitles(tmp_path / name)


@given(st.text(alphabet="0123456789:,.->\n\r <i>x", max_size=200))
def test_any_subrip_text_gives_lines_or_says_that_it_has_none(text: str) -> None:
    try:
        lines = _srt_lines("00:00:00,000 --> 00:00:01,000\nfirst\n\n" + text)
    except ValueError as error:
        raise AssertionError("it has a line with times") from error
    assert lines[0] == (0.0, 1.0, "first")
    assert all(math.isfinite(start) and math.isfinite(end) for start, end, _ in lines)
