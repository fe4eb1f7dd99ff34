"""Captions between frames: in the order of time, each where a frame can be seen while it is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spacer.data.captions import Caption, interleave

TIMES = st.lists(st.integers(0, 40).map(lambda n: n / 2), max_size=8, unique=True).map(sorted)
LINES = st.lists(st.tuples(st.integers(-8, 40), st.integers(0, 12)), max_size=8)


@given(TIMES, LINES)
def test_order_and_choice(seconds: list[float], lines: list[tuple[int, int]]) -> None:
    captions = [Caption(start / 2, (start + length) / 2, f"{n}") for n, (start, length) in enumerate(sorted(lines))]
    woven = interleave(seconds, captions)
    assert [item for item in woven if isinstance(item, int)] == list(range(len(seconds)))
    told = [item for item in woven if isinstance(item, str)]
    for caption in captions:
        middle = (caption.start + caption.end) / 2
        shown = [second for second in seconds if abs(second - middle) < max(caption.end - caption.start, 1) / 2]
        assert told.count(caption.text) == (1 if shown else 0)
        if shown:
            # it comes after each frame up to its own middle, and later lines never bring frames forward
            before = woven[: woven.index(caption.text)]
            reached = max((c.start + c.end) / 2 for c in captions[: int(caption.text) + 1])
            assert [n for n in before if isinstance(n, int)] == [n for n, at in enumerate(seconds) if at <= reached]
