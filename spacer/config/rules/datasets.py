"""Rules for each data set of a run."""

from __future__ import annotations

from glob import glob
from os.path import expanduser, isdir, isfile, join  # unlike Path, never raise: unreadable counts as absent

from spacer.config.choices import BENCHMARKS
from spacer.config.derived import (
    HUB_ID,
)
from spacer.config.rules.rule import DatasetRule
from spacer.config.settings import (
    ArchivedSettings,
    DatasetSettings,
    JsonlSettings,
    LayoutsSettings,
    RenderedSettings,
    ScansSettings,
    Settings,
    StillsSettings,
)


def _lacks(d: JsonlSettings, s: Settings, field: str) -> bool:
    """Whether a file that the data set names is missing from its folder, which exists."""
    if not (s.stage.needs_model and s.stage.needs_data) or (name := getattr(d, field)) is None:
        return False
    root = expanduser(d.root)
    return isdir(root) and not isfile(join(root, name))


def _lacks_annotations(d: ScansSettings, s: Settings) -> bool:
    """Whether an existing folder has no annotation file to curate."""
    if s.stage.name != "curate":
        return False
    root = expanduser(d.root)
    return isdir(root) and not any(isfile(path) for path in glob(join(root, expanduser(d.meta_info))))


def stills_have_no_answers(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, StillsSettings) and s.stage.name not in ("sft", "vision", "evaluate"):
        return (
            f"{at}.kind=stills holds pictures to draw, not questions to answer, and is for stage=sft, vision and "
            "evaluate: choose dataset=rooms"
        )
    return None


def layouts_are_begun(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, LayoutsSettings) and s.stage.name not in ("sft", "evaluate"):
        return (
            f"{at}.kind=layouts gives the start of each completion, and is for stage=sft and evaluate: choose "
            "dataset=rooms"
        )
    return None


def vision_needs_stills(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if s.stage.name == "vision" and not isinstance(d, StillsSettings):
        return (
            "stage.name=vision reads out what pictures show, which is known of rendered stills: choose dataset=stills"
        )
    return None


def tours_have_no_maps(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, StillsSettings) and d.tour_share > 0 and s.stage.name != "vision":
        return (
            f"{at}.tour_share={d.tour_share} takes stills that show a part of a room, from which no map of it can be "
            f"drawn: set {at}.tour_share=0, or choose stage=vision"
        )
    return None


def objects_of_rooms(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, RenderedSettings | LayoutsSettings) and d.min_objects > d.max_objects:
        return f"{at}.min_objects={d.min_objects} exceeds {at}.max_objects={d.max_objects}: swap them"
    return None


def root_is_a_folder(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if (
        isinstance(d, JsonlSettings)
        and s.stage.needs_data
        and s.stage.name != "prepare"
        and not isdir(expanduser(d.root))
    ):
        return (
            f"{at}.root={d.root} is not an existing folder: set {at}.root=/path/to/the/data "
            "(stage=prepare makes it from a distributed archive), or choose dataset=rooms, which needs no files"
        )
    return None


def scans_are_curated(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, ScansSettings) and (_lacks(d, s, "index") or _lacks(d, s, "maps")):
        return (
            f"{at}.index={d.index} and {at}.maps={d.maps} are not both files in {at}.root={d.root}: "
            "make them with stage=curate first"
        )
    return None


def annotations_are_there(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, ScansSettings) and _lacks_annotations(d, s):
        return (
            f"{at}.meta_info={d.meta_info} matches no file in {at}.root={d.root}: "
            "put the scans' annotations there, or correct the pattern"
        )
    return None


def videos_of_scans(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, ScansSettings) and d.videos.count("{scene}") == 0:
        return (
            f"{at}.videos={d.videos} names the same video for every scene: have {{scene}} in it, "
            f"as in 'videos/{{dataset}}/{{scene}}.mp4'"
        )
    return None


def index_is_a_file(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and not isinstance(d, ScansSettings) and _lacks(d, s, "index"):
        return (
            f"{at}.index={d.index} is not a file in {at}.root={d.root}: "
            f"set {at}.index to the questions' JSONL file, relative to the root"
        )
    return None


def maps_is_a_file(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and not isinstance(d, ScansSettings) and _lacks(d, s, "maps"):
        return f"{at}.maps={d.maps} is not a file in {at}.root={d.root}: correct it, or set {at}.maps=null"
    return None


def heldout_is_a_file(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and _lacks(d, s, "heldout"):
        return f"{at}.heldout={d.heldout} is not a file in {at}.root={d.root}: correct it, or set {at}.heldout=null"
    return None


def exclude_are_files(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and not all(isfile(expanduser(name)) for name in d.exclude):
        return (
            f"{at}.exclude={d.exclude} names a file that is not there: each is a list of videos, a name a line, or a "
            "benchmark's own annotation file (.parquet, .json, .jsonl)"
        )
    return None


def guard_names_benchmarks(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and not set(d.guard) <= set(BENCHMARKS):
        return f"{at}.guard={d.guard} names an unknown benchmark: its keys are among " + ", ".join(BENCHMARKS)
    return None


def guard_are_folders(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if isinstance(d, JsonlSettings) and not all(isdir(expanduser(root)) for root in d.guard.values()):
        return (
            f"{at}.guard={d.guard} names a folder that is not there: each is that of the benchmark's files, as its "
            f"authors distribute them; a single annotation file goes into {at}.exclude"
        )
    return None


def source_of_an_archive(d: DatasetSettings, s: Settings, at: str) -> str | None:
    if (
        isinstance(d, ArchivedSettings)
        and s.stage.name == "prepare"
        and d.source is not None
        and not isdir(expanduser(d.source))
        and HUB_ID.fullmatch(d.source) is None
    ):
        return (
            f"{at}.source={d.source} is neither an existing folder nor the id of a data set on the hub, such as "
            f"RUBBISHLIKE/SpaceR-151k: correct it, or set {at}.source=null where the parts lie in {at}.root"
        )
    return None


DATASET_RULES: tuple[DatasetRule, ...] = (
    stills_have_no_answers,
    layouts_are_begun,
    vision_needs_stills,
    tours_have_no_maps,
    objects_of_rooms,
    root_is_a_folder,
    scans_are_curated,
    annotations_are_there,
    videos_of_scans,
    index_is_a_file,
    maps_is_a_file,
    heldout_is_a_file,
    exclude_are_files,
    guard_names_benchmarks,
    guard_are_folders,
    source_of_an_archive,
)
