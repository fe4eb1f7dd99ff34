"""Frame sampling: which frames of a video to take, given the time of each (pure)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from spacer.config.choices import Sampling
from spacer.config.settings import VideoSettings

TEMPORAL_PATCH = 2  # every family merges two frames into one patch; an even number of frames needs no padding


@dataclass(frozen=True)
class Timeline:
    """When each frame appears (`starts`, ascending) and when the last one ends, in ticks of `tick` seconds.

    The frame shown at time t is the last one that started at or before t.
    """

    starts: Sequence[int]
    end: int
    tick: Fraction

    @property
    def seconds(self) -> Fraction:
        """The video's duration."""
        return (self.end - self.starts[0]) * self.tick


@dataclass(frozen=True)
class Sampled:
    """The sampled frames, as indices into the timeline, and the seconds from one to the next."""

    indices: tuple[int, ...]
    step: Fraction


def sample(timeline: Timeline, settings: VideoSettings) -> Sampled:
    """Samples an even number of frames at `settings.fps`, within the settings' bounds, evenly spaced in time.

    - `interval`: the video is cut into n equal spans, and the frame at the start of each is taken. n is even.
    - `endpoints`: n = ⌊seconds × `fps`⌋ frames from the first to the last; if n is odd, the last is taken twice.
      This is what SpaceR's evaluation does.
    - `nearest`: n frames from the first to the last, each the nearest to its time. n is even. This is what
      qwen-vl-utils, and hence SpaceR's training, does.

    >>> sample(Timeline(range(16), 16, Fraction(1, 4)), VideoSettings(max_frames=4, fps=2.0)).indices
    (0, 4, 8, 12)
    """
    starts, rate = timeline.starts, Fraction(settings.fps)
    if settings.sampling == Sampling.endpoints:
        wanted = math.floor(timeline.seconds * rate)
        count = max(1, min(max(wanted, settings.min_frames), settings.max_frames))
    else:
        wanted = min(max(math.floor(timeline.seconds * rate), settings.min_frames), settings.max_frames, len(starts))
        count = max(TEMPORAL_PATCH, wanted // TEMPORAL_PATCH * TEMPORAL_PATCH)
    if settings.sampling == Sampling.interval:
        span = Fraction(timeline.end - starts[0], count)
        indices = [_shown_at(starts, starts[0] + i * span) for i in range(count)]
        return Sampled(tuple(indices), span * timeline.tick)
    span = Fraction(starts[-1] - starts[0], max(1, count - 1))
    times = [starts[0] + i * span for i in range(count)]
    find = _shown_at if settings.sampling == Sampling.endpoints else _nearest
    indices = [find(starts, time) for time in times]
    step = span * timeline.tick or timeline.seconds / count  # a still image has a span of 0
    return Sampled(tuple(indices + indices[-1:] * (count % TEMPORAL_PATCH)), step)


def _shown_at(starts: Sequence[int], time: Fraction) -> int:
    return max(0, bisect.bisect_right(starts, time) - 1)


def _nearest(starts: Sequence[int], time: Fraction) -> int:
    """The nearest frame; ties go to the even index, as in rounding half to even."""
    index = _shown_at(starts, time)
    if index + 1 == len(starts):
        return index
    before, after = time - starts[index], starts[index + 1] - time
    return index + (after < before or (after == before and index % 2 == 1))
