"""Settings of the data: one class for each kind of data set in `conf/dataset/`."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag
from pydantic.dataclasses import dataclass

from spacer.config import choices
from spacer.config.families import SMALLEST_TOKEN_PX
from spacer.config.settings.section import CONFIG, PositiveShare, Section, Share, kind

Frames = Annotated[int, Field(ge=2, description="the vision tower joins frames in pairs")]
Pixels = Annotated[int, Field(ge=SMALLEST_TOKEN_PX**2, description="the pixels of a vision token")]
Side = Annotated[int, Field(ge=SMALLEST_TOKEN_PX, description="the side of a vision token")]
Workers = Annotated[int, Field(ge=1, description="videos are never decoded in the main process")]


@dataclass(frozen=True, config=CONFIG)
class VideoSettings(Section):
    """How videos are sampled and resized: at most `max_frames` at `fps`, each within `max_pixels` and `max_side`."""

    max_frames: Frames = 16  # per video
    fps: PositiveFloat = 2.0  # frames per second, up to max_frames
    max_pixels: Pixels = 128 * 28 * 28  # per frame; larger ones are scaled down
    max_side: Side | None = None  # per frame, in pixels; null: no bound
    sampling: choices.Sampling = choices.Sampling.interval
    min_frames: Frames = 2  # for short videos
    min_pixels: Pixels | None = None  # per frame; smaller ones are scaled up; null: four of the model's tokens
    shown: choices.Shown = choices.Shown.video  # frames as one video, or each as an image


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class LoadingSettings(Section):
    """How samples are loaded and chosen: worker processes, questions per video kept together, a pass rate."""

    questions_per_video: PositiveInt = 1  # kept together in training, to share the video's prefix
    workers: Workers = 2  # decoding processes
    generated: str | None = None  # generated.jsonl of a run of stage=generate about the same training questions
    pass_rate: tuple[Share, Share] | None = None  # trains on questions whose share of right completions there is within


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DatasetSettings(LoadingSettings):
    """Settings of every data set: media, prompts and the handling of faults."""

    video: VideoSettings = field(default_factory=VideoSettings)
    image_max_pixels: Pixels = 401_408  # per image; larger ones are scaled down
    max_prompt_length: PositiveInt = 16_384  # in tokens; prompts are never truncated
    too_long: choices.TooLong = choices.TooLong.refuse
    on_bad: choices.OnBad = choices.OnBad.stop
    prompts: dict[str, str] = field(default_factory=dict)  # templates, by name and problem type
    prompts_file: str | None = None  # a YAML file of templates that replaces `prompts`


@dataclass(frozen=True, config=CONFIG)
class JsonlSettings(DatasetSettings):
    """Questions in a JSONL file with the fields of SpaceR-151k; media paths are relative to `root`."""

    root: str  # the folder that paths are relative to; nothing outside it is read
    index: str = "index.jsonl"  # the file of questions, relative to root
    maps: str | None = None  # the file of true cognitive maps, relative to root
    heldout: str | None = None  # a second file like `index`: questions that are asked and never trained on
    data_sources: tuple[str, ...] | None = None  # sources to train on; null: all
    exclude: tuple[str, ...] = ()  # lists of videos, or annotation files of benchmarks, to exclude from training
    guard: dict[str, str] = field(default_factory=dict)  # benchmark → folder of its files, whose videos are excluded
    kind: Literal["jsonl", "archive", "scans"] = "jsonl"  # of data set, which decides what else can be set


@dataclass(frozen=True, config=CONFIG)
class ArchivedSettings(JsonlSettings):
    """Questions in JSONL with media in a multi-part gzip tar; stage=prepare unpacks it into `root`."""

    source: str | None = None  # a folder with the parts, or a data set id on the hub; null: they are in `root`
    revision: str | None = None  # on the hub
    archive: str = "archive.part_"  # prefix of the parts' names, before two digits
    archive_parts: PositiveInt = 1  # number of parts
    kind: Literal["archive"] = "archive"


@dataclass(frozen=True, config=CONFIG)
class ScansSettings(JsonlSettings):
    """Questions that stage=curate makes from annotated 3D scans, with that stage's other settings."""

    index: str = "questions.jsonl"  # written by stage=curate
    maps: str | None = "cognitive_map.jsonl"  # written by stage=curate
    meta_info: str = "meta_info/*.json"  # annotation files: a pattern, relative to `root` or absolute
    videos: str = "videos/{dataset}/{scene}.mp4"  # a scene's video, relative to `root`
    seed: NonNegativeInt = 0
    questions_per_type: PositiveInt = 2  # per scene
    # cap for any one answer, among the questions of a type with few distinct answers
    max_answer_share: PositiveShare = 0.4
    kind: Literal["scans"] = "scans"


@dataclass(frozen=True, config=CONFIG)
class RenderedSettings(DatasetSettings):
    """Procedural rooms: what they are like, and how a camera tours them."""

    root: str  # folder for rendered rooms
    seed: NonNegativeInt = 0
    train_scenes: PositiveInt = 256  # rooms to train on
    heldout_scenes: PositiveInt = 96  # rooms to evaluate on
    min_objects: PositiveInt = 4  # per room
    max_objects: Annotated[int, Field(ge=1, le=8, description="more would crowd a small room")] = 6  # per room
    size_px: Annotated[Side, Field(multiple_of=2)] = 224  # side of the square frame
    seconds: PositiveFloat = 4.0  # length of the tour
    video_fps: PositiveInt = 8  # rendered frames per second
    # ratio of the largest to the smallest scale of a furniture kind; 1: no variation
    size_spread: Annotated[float, Field(ge=1, le=3, description="larger furniture would fill the room")] = 1.0
    fixed_height: bool = False  # renders every top view at the same scale, so that sizes can be judged
    kind: Literal["rooms", "stills"] = "rooms"  # of data set, which decides what else can be set


@dataclass(frozen=True, config=CONFIG)
class RoomsSettings(RenderedSettings):
    """Rooms as videos of the tour, with questions made from their annotations."""

    questions_per_scene: PositiveInt = 4
    heldout_questions_per_scene: PositiveInt = 4
    balanced: bool = False  # selects questions so that neither their words nor their options give away the answer
    kind: Literal["rooms"] = "rooms"


@dataclass(frozen=True, config=CONFIG)
class StillsSettings(RenderedSettings):
    """Rooms as one picture each, to be drawn as a map: what the embedded model learns to see from."""

    questions_per_still: NonNegativeInt = 0  # short questions about each still, besides its map
    tour_share: Share = 0.0  # share of stills taken on the tour, not from above; for stage=vision
    kind: Literal["stills"] = "stills"


@dataclass(frozen=True, config=CONFIG)
class LayoutsSettings(DatasetSettings):
    """Questions about procedural rooms whose map is given, as text alone: practice in reasoning from a map."""

    seed: NonNegativeInt = 0
    train_scenes: PositiveInt = 256  # rooms to train on
    heldout_scenes: PositiveInt = 96  # rooms to evaluate on
    min_objects: PositiveInt = 4  # per room
    max_objects: Annotated[int, Field(ge=1, le=8, description="more would crowd a small room")] = 6  # per room
    # ratio of the largest to the smallest scale of a furniture kind; 1: no variation
    size_spread: Annotated[float, Field(ge=1, le=3, description="larger furniture would fill the room")] = 1.0
    # exercises per training room besides its questions
    ways: NonNegativeInt = 0  # differences, headings and turns, or lengths
    turns: NonNegativeInt = 0  # turns from heading to heading, without a map
    letters: NonNegativeInt = 0  # the letter of what the reasoning has come to
    kind: Literal["layouts"] = "layouts"


Part = Annotated[
    Annotated[JsonlSettings, Tag("jsonl")]
    | Annotated[ArchivedSettings, Tag("archive")]
    | Annotated[ScansSettings, Tag("scans")]
    | Annotated[RoomsSettings, Tag("rooms")]
    | Annotated[StillsSettings, Tag("stills")]
    | Annotated[LayoutsSettings, Tag("layouts")],
    Discriminator(kind),
]


@dataclass(frozen=True, config=CONFIG)
class MixSettings(LoadingSettings):
    """Several data sets in one. Each is decoded and prompted by its own settings; `weights` are shares of an epoch."""

    parts: dict[str, Part]  # the data sets, by name
    weights: dict[str, PositiveFloat]
    kind: Literal["mix"] = "mix"


Dataset = Annotated[
    Annotated[JsonlSettings, Tag("jsonl")]
    | Annotated[ArchivedSettings, Tag("archive")]
    | Annotated[ScansSettings, Tag("scans")]
    | Annotated[RoomsSettings, Tag("rooms")]
    | Annotated[StillsSettings, Tag("stills")]
    | Annotated[LayoutsSettings, Tag("layouts")]
    | Annotated[MixSettings, Tag("mix")],
    Discriminator(kind),
]
