"""What the data tests share: one small rooms data set, its samples, a processor, a process that decodes, an archive."""

from __future__ import annotations

import gzip
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.prepare.media import Media
from spacer.data.samples import Sample, read_maps, read_samples
from spacer.data.scenes import rooms
from spacer.data.video import Video, read_video
from tests.unit.data.archives import FILES, split, tar

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 240  # seconds after which a decoder counts as hung; a busy machine is merely slow

Decode = Callable[[Path, VideoSettings], Video]


@pytest.fixture(scope="session")
def shipped_rooms() -> dict[str, Any]:
    """The values of conf/dataset/rooms.yaml that shape the files."""
    values = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf/dataset/rooms.yaml"))
    assert isinstance(values, dict)
    return {name: values[name] for name in rooms.shaping(RoomsSettings) - {"seed"}}


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RoomsSettings:
    """4 + 2 scenes, small and short."""
    prompts = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf/dataset/prompts/default.yaml"))
    assert isinstance(prompts, dict)
    return RoomsSettings(
        root=str(tmp_path_factory.mktemp("rooms")),
        seed=3,
        train_scenes=4,
        heldout_scenes=2,
        questions_per_scene=3,
        size_px=96,
        seconds=4.0,
        video_fps=4,
        video=VideoSettings(max_frames=4, fps=2.0, max_pixels=3_300),
        workers=1,
        prompts={str(name): str(text) for name, text in prompts.items()},
    )


@pytest.fixture(scope="session")
def folder(settings: RoomsSettings) -> Path:
    return rooms.build(settings)


@pytest.fixture(scope="session")
def samples(folder: Path) -> list[Sample]:
    found, faults = read_samples(folder / "train.jsonl", folder, read_maps(folder / "cognitive_map.jsonl"))
    assert not faults
    return found


@pytest.fixture(scope="session")
def processor(samples: list[Sample]) -> Qwen2_5_VLProcessor:
    from spacer.models.tiny import make_processor

    return make_processor(sample.problem for sample in samples)


@pytest.fixture(scope="session")
def decode() -> Iterator[Decode]:
    """`read_video` in a process of its own, so that a decoder that hangs is a failure and no later fork breaks."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield lambda path, video: pool.apply_async(read_video, (path, video)).get(timeout=PATIENCE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with two videos and an image, links that stay inside and links that lead out of it."""
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    for name in ("videos/a.mp4", "videos/b.mp4", "picture.png"):
        (root / name).write_bytes(b"media")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.mp4").write_bytes(b"secret")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "outdir").symlink_to(tmp_path / "elsewhere")
    (root / "in.mp4").symlink_to(root / "videos" / "b.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    return root


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every media file that is there counts as one that opens and lasts a second."""
    monkeypatch.setattr(
        "spacer.data.prepare.build.survey", lambda root, files: {path: Media(1.0, None) for path in files}
    )


@pytest.fixture(scope="session")
def stream() -> bytes:
    """An archive of some files."""
    return gzip.compress(tar(FILES), compresslevel=1, mtime=0)


@pytest.fixture
def parts(stream: bytes, tmp_path: Path) -> tuple[Path, ...]:
    """The archive in ten parts."""
    return split(tmp_path / "parts", stream)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder to unpack to, which is not there yet."""
    return tmp_path / "target"
