"""Odd but legal videos show the frames that a full decode shows, when it does; what is no video is named as that."""

from __future__ import annotations

import bisect
import shutil
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from spacer.config.choices import Sampling
from spacer.config.settings import VideoSettings
from spacer.data import video as video_module
from spacer.data.prepare.media import survey as survey_media
from spacer.data.video import Video, read_video
from spacer.errors import MediaError
from tests.unit.data.odd_videos import HEIGHT, RATE, READ, TURNED, copied, decoded, number_of, picture, write
from tests.written_files import make_sound

Decode = Callable[[Path, VideoSettings], Video]
RULES = [VideoSettings(8, 4.0, sampling=rule, min_frames=4) for rule in (Sampling.interval, Sampling.endpoints)]


@pytest.mark.parametrize("settings", RULES, ids=lambda settings: settings.sampling)
@pytest.mark.parametrize("name", READ)
def test_what_is_shown_is_what_a_full_decode_shows(
    name: str, settings: VideoSettings, tmp_path: Path, decode: Decode
) -> None:
    path = READ[name](tmp_path / name)
    found, whole = decode(path, settings), decoded(path)
    starts = [at for at, _ in whole]
    tick = 0.002  # to which some containers round times
    for number, frame in enumerate(found.frames_THWC):
        wanted = min(number * found.step, starts[-1])
        shown = {whole[bisect.bisect_right(starts, wanted + error) - 1][1] for error in (-tick, tick)}
        assert number_of(frame) in shown, f"frame {number}"
        assert found.times[number] == pytest.approx(starts[[n for _, n in whole].index(number_of(frame))], abs=tick)
    if settings.sampling == Sampling.endpoints:
        assert number_of(found.frames_THWC[-1]) == whole[-1][1]
    gap = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    assert starts[-1] - tick <= found.seconds
    assert len(whole) == 1 or found.seconds <= starts[-1] + max(6 * gap, 0.25)


@pytest.mark.parametrize("name", TURNED)
def test_turned_and_mirrored_as_the_file_says(name: str, tmp_path: Path, decode: Decode) -> None:
    make, turn = TURNED[name]
    found = decode(make(tmp_path / name), VideoSettings(4, 2.0))
    for frame, at in zip(found.frames_THWC, found.times, strict=True):
        upright = turn(picture(round(at * RATE)))
        assert frame.shape == upright.shape
        assert np.abs(frame.astype(int) - upright).mean() < 12


def test_leaps_to_keyframes_find_the_same_frames(tmp_path: Path) -> None:
    """Keyframes a second apart, of which few are looked at."""
    path = write(tmp_path / "long.mkv", 250, base=Fraction(1, 25), options={"g": "25", "keyint_min": "25", "bf": "2"})
    found = read_video(path, VideoSettings(4, 1.0))
    assert [number_of(frame) for frame in found.frames_THWC] == [0, 62, 125, 187]


def make_cover(path: Path) -> Path:
    """A sound with a cover picture, which FFmpeg calls a video."""
    sound = make_sound(path.with_name("sound.m4a"))
    Image.new("RGB", (64, 64), "red").save(path.with_name("cover.jpg"))
    art = path.with_name("cover.jpg")
    with av.open(str(sound)) as given, av.open(str(art)) as drawn, av.open(str(path), "w", format="mp4") as out:
        sources: list[Any] = [given.streams.audio[0], drawn.streams.video[0]]
        streams = [out.add_stream_from_template(source) for source in sources]
        streams[1].disposition = av.stream.Disposition.attached_pic
        for source, stream in zip(reversed(sources), reversed(streams), strict=True):
            for packet in source.container.demux(source):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    return path


def _beside(path: Path) -> Path:
    """A video that is there to be found by what points to it."""
    return write(path.with_name("real.mp4"))


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text.format(_beside(path)))


def _damaged(path: Path) -> None:
    whole = bytearray(write(path, 90, options={"crf": "1"}, muxer={"movflags": "faststart"}).read_bytes())
    middle = slice(len(whole) * 45 // 100, len(whole) * 60 // 100)
    whole[middle] = np.random.default_rng(0).bytes(len(whole[middle]))
    path.write_bytes(whole)


def _without_end(path: Path) -> None:
    whole = write(path, 90, options={"crf": "1"}, muxer={"movflags": "faststart"}).read_bytes()
    path.write_bytes(whole[: len(whole) * 9 // 10])


PLAYLIST = "refers to other files"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "hls.mp4": (_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"), PLAYLIST),
    "hls.m3u8": (_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"), PLAYLIST),
    "concat.mp4": (_text("ffconcat version 1.0\nfile '{}'\n"), PLAYLIST),
    "session.mp4": (_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"), PLAYLIST),
    "dash.mp4": (_text('<?xml version="1.0"?><MPD><BaseURL>{}</BaseURL></MPD>'), PLAYLIST),
    "sound.mp4": (make_sound, "has no video"),
    "cover.mp4": (make_cover, "only a cover picture"),
    "picture.mp4": (lambda path: Image.new("RGB", (64, 64)).save(path, "PNG"), "is a picture"),
    "photo.mp4": (lambda path: Image.new("RGB", (64, 64)).save(path, "JPEG"), "is a picture"),
    "damaged.mp4": (_damaged, "damaged: the frame at"),
    "without_end.mp4": (_without_end, "cut off: its header says 3.00 s"),
    "raw.h264": (lambda path: write(path), "none of the supported containers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_by_what_it_is(name: str, tmp_path: Path, decode: Decode) -> None:
    make, words = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(MediaError, match=rf"{name}: .*{words}"):
        decode(tmp_path / name, VideoSettings(16, 8.0))


def test_a_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose name FFmpeg would read as a protocol's."""
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "data:video.mp4", "%03d.mp4"):
        shutil.copy(write(tmp_path / "v.mp4"), tmp_path / name)
        assert len(read_video(Path(name), VideoSettings(4)).times) == 4


def test_decoding_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(video_module, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(video_module, "_decode_frames", lambda *_: let_go.wait(60))
    before = time.monotonic()
    with pytest.raises(MediaError, match=r"v\.mp4: cannot be decoded within 0\.2 s"):
        read_video(write(tmp_path / "v.mp4"), VideoSettings())
    let_go.set()
    assert time.monotonic() - before < 30  # not the minute that decoding takes


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(968, 1296, (334, 448)), (1296, 968, (448, 334)), (480, 640, (336, 448)), (100, 100, (100, 100))],
)
def test_the_longer_side_is_brought_to_its_bound(
    height: int, width: int, size: tuple[int, int], tmp_path: Path, decode: Decode
) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=2, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(4):
            frame = np.full((height, width, 3), 60 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    assert decode(path, VideoSettings(2, max_side=448)).frames_THWC.shape == (2, *size, 3)


def test_prepare_decodes_the_first_and_the_last_frames(tmp_path: Path) -> None:
    write(tmp_path / "good.mp4")
    _without_end(tmp_path / "short.mp4")
    _damaged(tmp_path / "damaged.mp4")
    Image.new("RGB", (60, 60)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    kinds = {path.name: "image" if path.suffix == ".png" else "video" for path in sorted(tmp_path.iterdir())}
    found = survey_media(tmp_path, kinds)
    assert {name for name, medium in found.items() if medium.error is None} == {"good.mp4", "good.png"}
    assert found["good.mp4"].seconds == 3.0
    assert "cut off" in str(found["short.mp4"].error) and "cannot be read as an image" in str(found["half.png"].error)


def test_a_recording_that_begins_within_a_group_of_pictures(tmp_path: Path, decode: Decode) -> None:
    """Its first packets cannot be decoded; time begins with the first picture."""
    path = copied(write(tmp_path / "src.ts", options={"g": "20", "keyint_min": "20"}), tmp_path / "whole.ts")
    whole = path.read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole[188 * 40 :])  # packets of a transport stream
    found, shown = decode(cut, VideoSettings(8, 4.0)), decoded(cut)
    assert found.times[0] == 0.0 and number_of(found.frames_THWC[0]) == shown[0][1] > 0
    assert found.frames_THWC.shape[1] == HEIGHT
