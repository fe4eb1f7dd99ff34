"""The embedded data set: procedural rooms, rendered into videos, with every question made from the annotation.

A data set lies in `root/<digest of its settings>/`:

    train.jsonl heldout.jsonl     questions, in the fields of SpaceR-151k
    cognitive_map.jsonl           one map per video
    scenes.jsonl                  the annotation
    videos/*.mp4

The folder is written under another name and renamed when it is whole, so that a folder that exists is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from spacer.config.settings import DatasetSettings, RenderedSettings, RoomsSettings
from spacer.data.samples import Medium, Sample, to_sample
from spacer.data.scenes.evening import even_out
from spacer.data.scenes.lines import Question, data_line
from spacer.data.scenes.questions import pose
from spacer.data.scenes.render import Camera, camera_path, overview, write_video
from spacer.data.scenes.scene import Scene, SceneObject, polygon_distance
from spacer.data.scenes.steps import contradicted, in_steps
from spacer.errors import UserError
from spacer.files import whole_folder
from spacer.process.pool import in_workers
from spacer.terminal.progress import progress_bar

VERSION = 7  # incremented when the same settings give other rooms, so that cached folders are rebuilt

# category → ranges of (width, depth, height) in metres, and the maximum number per room
FURNITURE: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], int]] = {
    "bed": ((1.4, 1.8), (1.9, 2.1), (0.7, 1.0), 1),
    "bookshelf": ((0.8, 1.4), (0.35, 0.5), (1.4, 1.8), 2),
    "chair": ((0.5, 0.6), (0.5, 0.6), (0.8, 0.95), 4),
    "lamp": ((0.4, 0.5), (0.4, 0.5), (1.3, 1.6), 3),
    "piano": ((1.4, 1.6), (0.7, 0.9), (1.0, 1.2), 1),
    "plant": ((0.5, 0.7), (0.5, 0.7), (0.7, 1.2), 4),
    "refrigerator": ((0.7, 0.9), (0.65, 0.8), (1.6, 1.8), 1),
    "sofa": ((1.7, 2.3), (0.85, 1.0), (0.75, 0.9), 2),
    "table": ((1.0, 1.5), (0.8, 1.0), (0.7, 0.78), 2),
    "television": ((1.1, 1.5), (0.4, 0.5), (0.9, 1.2), 1),
}
ROOM_SIDE = (4.0, 7.0)
CLEARANCE = 0.2  # metres between objects
POOL = 4  # candidates of each type per room for balancing, of which at most one is kept
TRIES = 400  # placements tried before a room is discarded and drawn again

WriteLine = Callable[[str, Mapping[str, object]], object]
AnyRooms = TypeVar("AnyRooms", bound=RenderedSettings)
Made = TypeVar("Made")


def shaping(kind: type[RenderedSettings]) -> set[str]:
    """The settings that affect the files; the others say where they are and how they are read."""
    how_read = {"root", *(field.name for field in dataclasses.fields(DatasetSettings))}
    return {field.name for field in dataclasses.fields(kind)} - how_read


def digest(settings: RenderedSettings) -> str:
    """The name of a data set's folder, a hash of the settings that affect its files."""
    values = {name: getattr(settings, name) for name in shaping(type(settings))} | {"version": VERSION}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def build(settings: RoomsSettings) -> Path:
    """Builds the data set unless it already exists, and returns its folder.

    Raises:
        UserError: the root cannot be written to, or `balanced` leaves a split of few rooms without a question.
    """
    return build_once(settings, "videos", _write)


def build_once(settings: AnyRooms, media: str, write: Callable[[AnyRooms, Path], None]) -> Path:
    """The data set's folder, with a folder for its `media` and what `write` puts there, unless it already exists."""
    folder = Path(settings.root).expanduser() / digest(settings)
    if not os.path.isdir(folder):  # Path.is_dir raises if permission is denied
        _make_root(folder.parent)
        with whole_folder(folder) as work:
            (work / media).mkdir()
            write(settings, work)
    return folder


def _make_root(root: Path) -> None:
    """Creates the root. Raises UserError if it is not writable, e.g. in a read-only home folder."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"rooms cannot be written to dataset.root={root} ({error.strerror}): set dataset.root, or the environment "
            "variable SPACER_CACHE for all data sets of rooms, to a writable folder"
        ) from error


def in_every_room(
    make: Callable[[tuple[AnyRooms, Path, str, int]], Made], settings: AnyRooms, work: Path
) -> Iterator[tuple[str, int, Made]]:
    """Split, index and what `make`, in worker processes, returns for each room in turn."""
    jobs = [("train", index) for index in range(settings.train_scenes)]
    jobs += [("heldout", index) for index in range(settings.heldout_scenes)]
    tasks = [(settings, work, split, index) for split, index in jobs]
    with in_workers(make, tasks, min(os.cpu_count() or 1, 8)) as made:
        shown = progress_bar(made, total=len(jobs), desc="rendering rooms")
        for (split, index), result in zip(jobs, shown, strict=True):
            yield split, index, result


@contextmanager
def line_files(folder: Path, *names: str) -> Iterator[WriteLine]:
    """Opens JSONL files in `folder`, and yields what writes a row to the one of a name."""
    with ExitStack() as opened:
        files = {name: opened.enter_context(open(folder / f"{name}.jsonl", "w")) for name in names}
        yield lambda name, row: print(json.dumps(row), file=files[name])


def write_scene(write: WriteLine, scene: Scene) -> None:
    """Writes a scene's annotation and its map."""
    write("scenes", dataclasses.asdict(scene))
    entry = {"video_id": scene.name, "cognitive_map": scene.cognitive_map(), "object_list": scene.categories()}
    write("cognitive_map", entry)


def _write(settings: RoomsSettings, work: Path) -> None:
    scenes: dict[str, list[Scene]] = {"train": [], "heldout": []}
    with line_files(work, *scenes, "cognitive_map", "scenes") as write:
        for split, index, scene in in_every_room(_make, settings, work):
            write_scene(write, scene)
            if settings.balanced:
                scenes[split].append(scene)
                continue
            for line in _lines(settings, scene, split, index):
                write(split, line)
        for split, made_of_it in scenes.items() if settings.balanced else ():  # selection needs all candidates
            lines = list(even_lines(settings, split, made_of_it))
            if not lines:
                raise UserError(
                    f"dataset.balanced=true leaves no question about {len(made_of_it)} rooms, too few to "
                    f"choose from: raise dataset.{split}_scenes to 4 or more, or set dataset.balanced=false"
                )
            for line in lines:
                write(split, line)


def even_lines(settings: RoomsSettings, split: str, scenes: Sequence[Scene]) -> Iterator[dict[str, object]]:
    """Selects questions for a split's scenes, in their order, such that their text does not give away the answers
    (`spacer.data.scenes.evening`), and such that the map does not contradict them; the questions of one scene have
    different types."""
    pool: dict[str, tuple[int, Question]] = {}
    asked: set[tuple[int, str, str]] = set()
    for index, scene in enumerate(scenes):
        rng = scene_rng(settings, split, index, 1)
        for turn in range(POOL):
            for kind, question in pose(scene, rng).items():
                if (index, kind, question.text) not in asked and not contradicted(question, scene):  # no duplicates
                    asked.add((index, kind, question.text))
                    pool[f"{scene.name}_{kind}_{turn}"] = index, question
    by_scene: dict[int, list[Question]] = {}
    for identity, question in even_out([(name, question) for name, (_, question) in pool.items()], settings.seed):
        by_scene.setdefault(pool[identity][0], []).append(question)
    count = settings.questions_per_scene if split == "train" else settings.heldout_questions_per_scene
    for index, kept in sorted(by_scene.items()):
        rng = scene_rng(settings, split, index, 3)
        chosen = {kept[i].question_type: kept[i] for i in rng.permutation(len(kept))}
        for number, question in enumerate(list(chosen.values())[:count]):
            yield _line(question, scenes[index], f"{scenes[index].name}_{number}")


def _make(task: tuple[RoomsSettings, Path, str, int]) -> Scene:
    settings, work, split, index = task
    return make_scene(settings, split, index, work / "videos")


def top_camera(settings: RenderedSettings, scene: Scene) -> Camera:
    """From above, high enough that the room, or with `fixed_height` the largest room, fills the picture."""
    if not settings.fixed_height:
        return overview(scene.bounds, settings.size_px)
    return overview(scene.bounds, settings.size_px, side=ROOM_SIDE[1])


def scene_rng(settings: RenderedSettings, split: str, index: int, use: int) -> np.random.Generator:
    """An independent random stream for each scene and use, so that the order of the work does not matter."""
    return np.random.default_rng([settings.seed, ("train", "heldout").index(split), index, use])


def make_scene(settings: RenderedSettings, split: str, index: int, videos: Path | None) -> Scene:
    """Furnishes room `index` of a split, and renders its video to `videos` unless that is None."""
    rng = scene_rng(settings, split, index, 0)
    scene: Scene | None = None
    while scene is None:
        scene = _furnish(rng, f"{split}_{index:05d}", settings)
    cameras = camera_path(
        scene.bounds,
        frames=max(1, round(settings.seconds * settings.video_fps)),
        pixels=settings.size_px,
        start=int(rng.integers(4)),
        clockwise=bool(rng.integers(2)),
        above=top_camera(settings, scene),
    )
    seen = []
    for item in scene.objects:
        first = next((i for i, camera in enumerate(cameras) if camera.sees(item)), None)
        seen.append(
            dataclasses.replace(item, first_seen=None if first is None else round(first / settings.video_fps, 3))
        )
    scene = dataclasses.replace(scene, objects=tuple(seen))
    if videos is not None:
        write_video(scene, cameras, settings.video_fps, videos / f"{scene.name}.mp4")
    return scene


def _furnish(rng: np.random.Generator, name: str, settings: RenderedSettings) -> Scene | None:
    width, depth = (round(float(rng.uniform(*ROOM_SIDE)), 2) for _ in range(2))
    wanted = int(rng.integers(settings.min_objects, settings.max_objects + 1))
    names = list(FURNITURE)
    kinds: list[str] = []
    for category in rng.permutation(names):
        most = min(FURNITURE[category][3], wanted - len(kinds))
        # half of the categories that allow several objects have several
        count = int(rng.integers(1, most + 1)) if most > 1 and rng.random() < 0.5 else most and 1
        kinds += [str(category)] * count
    # large objects first, while there is space
    kinds.sort(key=lambda kind: -FURNITURE[kind][0][1] * FURNITURE[kind][1][1])
    placed: list[SceneObject] = []
    for kind in kinds:
        ranges = FURNITURE[kind]
        # drawn only if used, so that rooms of a seed do not change
        scale = settings.size_spread ** float(rng.uniform(-0.5, 0.5)) if settings.size_spread > 1 else 1.0
        size = tuple(round(scale * float(rng.uniform(*span)), 2) for span in ranges[:3])
        item = _place(rng, kind, (size[0], size[1], size[2]), width, depth, placed)
        if item is None:
            return None
        placed.append(item)
    order = rng.permutation(len(placed))
    return Scene(name, (0.0, 0.0, width, depth), round(width * depth, 2), tuple(placed[i] for i in order))


def _place(
    rng: np.random.Generator,
    kind: str,
    size: tuple[float, float, float],
    width: float,
    depth: float,
    placed: list[SceneObject],
) -> SceneObject | None:
    for _ in range(TRIES // len(FURNITURE)):
        quarter = int(rng.integers(4))
        reach_x, reach_y = (size[0] / 2, size[1] / 2) if quarter % 2 == 0 else (size[1] / 2, size[0] / 2)
        x = round(float(rng.uniform(reach_x, width - reach_x)), 3)
        y = round(float(rng.uniform(reach_y, depth - reach_y)), 3)
        item = SceneObject(kind, (x, y, round(size[2] / 2, 3)), size, quarter * math.pi / 2, None)
        if all(polygon_distance(item.footprint(), other.footprint()) >= CLEARANCE for other in placed):
            return item
    return None


def _lines(settings: RoomsSettings, scene: Scene, split: str, index: int) -> Iterator[dict[str, object]]:
    """The questions of a scene as data lines, each of a different, random type."""
    rng = scene_rng(settings, split, index, 1)
    posed = pose(scene, rng)
    count = settings.questions_per_scene if split == "train" else settings.heldout_questions_per_scene
    for number, kind in enumerate([list(posed)[i] for i in rng.permutation(len(posed))][:count]):
        yield _line(posed[kind], scene, f"{scene.name}_{number}")


def example_samples(settings: RenderedSettings, scenes: int) -> Iterator[Sample]:
    """All possible questions about the first `scenes` training rooms, without media, as a text corpus."""
    for index in range(scenes):
        scene = make_scene(settings, "train", index, None)
        for kind, question in pose(scene, scene_rng(settings, "train", index, 1)).items():
            line = _line(question, scene, f"{scene.name}_{kind}")
            yield to_sample(line, (Medium(str(line["data_type"]), Path(str(line["path"]))),), scene.cognitive_map())


def _line(question: Question, scene: Scene, problem_id: str) -> dict[str, object]:
    line = data_line(in_steps(question, scene), problem_id, scene.name, f"videos/{scene.name}.mp4", "rooms")
    return line | {"about": [*question.drawn_last()]}
