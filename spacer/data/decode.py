"""A cache of decoded and processed media. Runs in data workers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from spacer.config.settings import VideoSettings
from spacer.data.video import Video, read_video
from spacer.errors import MediaError


class Sized(Protocol):
    """An object with a size in bytes."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


T = TypeVar("T", bound=Sized)


class MediaReader:
    """An LRU cache of media, so that a file is decoded and processed once for all questions about it.

    Read errors are cached too. At most `bytes_held` bytes are kept, but always the most recently used entry.
    """

    def __init__(self, bytes_held: int = 256 * 2**20) -> None:
        self._most = bytes_held
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0

    def video(self, path: Path, settings: VideoSettings) -> Video:
        """The video, as `read_video` returns it. Raises what that raises."""
        return self.once(("decoded", path, settings), lambda: read_video(path, settings))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The cached value of `key`, or the cached `MediaError`, raised anew; `make` is called if neither is there."""
        if key not in self._held:
            try:
                self._held[key] = make()
            except MediaError as error:
                self._held[key] = str(error)
            self._bytes += _size(self._held[key])
        self._held.move_to_end(key)
        while self._bytes > self._most and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])
        found = self._held[key]
        if isinstance(found, str):
            raise MediaError(found)
        return cast(T, found)


def _size(held: Any) -> int:
    return 0 if isinstance(held, str) else int(held.nbytes)
