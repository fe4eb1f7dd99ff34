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


ENDS = ("\u2028", "\u2029", "\x0b", "\x0c", "\x85")  # of lines to `str.splitlines`, and not to files


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("Hello\n\nthere", "Hello there"),
        ("Hello\n \t \nthere\n\n\n", "Hello there"),
        ("\n\nHello", "Hello"),
        *(
            (f"Hello{end}there", "Hello there")
            for end in ("\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1e", "\r", "\r\n")
        ),
        *((f"Hello{end} {end}there", "Hello there") for end in ("\u2028", "\u2029", "\x0b", "\x0c", "\x85")),
        ('<font color="white" size=".72c">Hello</font>', "Hello"),
        ("<FONT face='a>b'>Hello\nthere</FONT>", "Hello there"),
        ('<font color="#fff">Hello</font> <font>there</font>', "Hello there"),
        ("<i>a</i> <b>b</b> {\\an8}c <00:00:01.500>d</c.x>", "a b c d"),
        ("one<br>two<br/>three", "one two three"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("I <3 you <music>", "I <3 you <music>"),
        ('an open <font color="x', 'an open <font color="x'),
        ("It is\n42", "It is 42"),
        ("42\n", "42"),
    ],
)
def test_nothing_that_is_said_is_lost(block: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(f"1\n00:00:01,000 --> 00:00:02,000\n{block}\n\n2\n00:00:03,000 --> 00:00:04,000\nend\n".encode())
    assert [line.text for line in subtitles(path)] == [said, "end"]
    path.write_bytes(f"1\n00:00:03,000 --> 00:00:04,000\nend\n\n2\n00:00:05,000 --> 00:00:06,000\n{block}".encode())
    assert [line.text for line in subtitles(path)] == ["end", said]


def test_numbers_of_blocks_are_told_from_numbers_that_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    times = [f"00:00:0{n},000 --> 00:00:0{n},500" for n in range(4)]
    path.write_text(f"{times[0]}\n7\n{times[1]}\n8\n\n{times[2]}\n9\n")  # blocks without numbers
    assert [line.text for line in subtitles(path)] == ["7", "8", "9"]
    path.write_text(f"1\n{times[0]}\n2\n\n2\n{times[1]}\n3\n3\n{times[2]}\n4\n\n4")  # cut before the times of 4
    assert [line.text for line in subtitles(path)] == ["2", "3", "4"]
    path.write_text(f"1\n{times[0]}\n\n2\n{times[1]}\nHello\n")
    assert [line.text for line in subtitles(path)] == ["Hello"]


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
    assert lines[0][:2] == (0.0, 1.0) and lines[0][2].startswith("first")
    assert all(math.isfinite(start) and math.isfinite(end) for start, end, _ in lines)
