"""What is said in a video, and where it stands between the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHORTEST = 1.0  # seconds that a caption covers at least, about its middle, when a frame is looked for


@dataclass(frozen=True)
class Caption:
    """A line of subtitles, from `start` to `end` in seconds of the video."""

    start: float
    end: float
    text: str


def interleave(seconds: Sequence[float], captions: Sequence[Caption]) -> tuple[int | str, ...]:
    """Frames, as their numbers, and captions in the order of LongVideoBench's own loader (Wu et al., arXiv 2407.15754).

    A caption follows the frames up to its middle; one that no frame falls into is left out.

    Args:
        seconds: when each frame is shown, ascending.
        captions: in the order of their starts.

    >>> said = [Caption(0.5, 2.5, "Hello"), Caption(2.6, 3.0, "no frame"), Caption(3.0, 6.0, "there")]
    >>> interleave([0.0, 2.0, 4.0], said)
    (0, 'Hello', 1, 2, 'there')
    """
    woven: list[int | str] = []
    frame = 0
    for caption in captions:
        middle = (caption.start + caption.end) / 2
        while frame < len(seconds) and seconds[frame] <= middle:
            woven.append(frame)
            frame += 1
        half = max(caption.end - caption.start, _SHORTEST) / 2
        if any(middle - half < second < middle + half for second in seconds):
            woven.append(caption.text)
    return (*woven, *range(frame, len(seconds)))
