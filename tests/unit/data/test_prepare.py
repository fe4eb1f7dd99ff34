"""stage=prepare: files as distributed become a folder to train from, and its contents are reported."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from spacer.config.choices import OnBad
from spacer.config.settings import ArchivedSettings, JsonlSettings, MixSettings, PrepareStage, RoomsSettings, Settings
from spacer.data.index import is_fresh
from spacer.data.prepare import build as build_module
from spacer.data.prepare import media
from spacer.data.prepare.archive import is_unpacked
from spacer.data.prepare.build import Contents, build_index, gather
from spacer.data.prepare.media import Media, survey
from spacer.data.samples import DataError
from spacer.data.sources import load_train
from spacer.errors import UserError
from spacer.stages import prepare as prepare_module
from tests.distributed import PREFIX, ROOMS, distribute, write_lines
from tests.unit.configs import load
from tests.unit.data.written import jsonl, row, write

QUESTIONS, MAPS = "SpaceR-151k.jsonl", "annotation/cognitive_map.jsonl"


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distribute(tmp_path_factory.mktemp("d") / "distributed", tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def opened(distributed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """The data set, unpacked and indexed, and what was found in it."""
    root = tmp_path_factory.mktemp("data") / "new" / "folder"
    settings = archived(root, distributed)
    gather(settings)
    return root, build_index(settings)


@pytest.fixture
def prepared(opened: tuple[Path, Contents], tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(opened[0], tmp_path / "data", copy_function=shutil.copy2)


def archived(root: Path, source: Path | str | None, **changes: Any) -> ArchivedSettings:
    values = {"archive": PREFIX, "archive_parts": 10, "index": QUESTIONS, "maps": MAPS}
    return ArchivedSettings(root=str(root), source=None if source is None else str(source), **{**values, **changes})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- what is there


def test_the_contents_are_counted(opened: tuple[Path, Contents], distributed: Path) -> None:
    root, contents = opened
    rows = lines_of(distributed / QUESTIONS)
    expected = Counter((line["data_source"], line.get("problem_type", line.get("question_type"))) for line in rows)
    assert contents.questions == expected
    assert {kind for _, kind in expected} == {"multiple choice", "numerical", "OCR", "free-form", "regression"}
    assert (contents.videos, contents.images) == (ROOMS["train_scenes"],) * 2
    assert contents.hours == pytest.approx(6 * RoomsSettings(root="x").seconds / 3600, rel=0.01)
    assert contents.with_map == expected["SR_dataset", "numerical"] + expected["SR_dataset", "multiple choice"]
    assert (contents.missing_files, contents.unreadable_files, contents.faults) == (0, 0, ())
    assert not contents.excluded
    found = load_train(archived(root, None))
    assert is_fresh(archived(root, None)) and len(found.samples) == len(rows) and not found.faults
    assert {sample.path.suffix for sample in found.samples} == {".mp4", ".png"}


def test_what_is_missing_or_does_not_open_is_counted(prepared: Path) -> None:
    video = prepared / "videos/train_00001.mp4"
    video.write_bytes(video.read_bytes()[:700])
    (prepared / "images/still_train_00002.png").write_bytes(b"no picture")
    (prepared / "images/still_train_00003.png").unlink()
    contents = build_index(archived(prepared, None))
    rows = lines_of(prepared / QUESTIONS)
    gone = {"videos/train_00001.mp4": "unreadable media", "images/still_train_00002.png": "unreadable media"}
    gone["images/still_train_00003.png"] = "missing file"
    lost = [
        (f"line {number}", gone[path])
        for number, line in enumerate(rows, 1)
        if (path := line.get("path", line.get("video"))) in gone
    ]
    assert (contents.missing_files, contents.unreadable_files) == (1, 2)
    assert [(fault.where, fault.kind) for fault in contents.faults] == lost
    assert contents.excluded == Counter(kind for _, kind in lost)
    assert (contents.videos, contents.images) == (6, 5)  # files that are there
    assert contents.hours == pytest.approx(5 * 4 / 3600, rel=0.01)
    assert sum(contents.questions.values()) == len(rows) - len(lost)
    assert any("train_00001.mp4" in fault.detail for fault in contents.faults)


def test_what_a_benchmark_asks_about_is_excluded(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.txt").write_text("train_00000\n")
    contents = build_index(archived(prepared, None), [tmp_path / "bench.txt"])
    rows = lines_of(prepared / QUESTIONS)
    about = sum(line.get("path", line.get("video")) == "videos/train_00000.mp4" for line in rows)
    assert contents.excluded == {"in a benchmark": about} and not contents.faults
    assert sum(contents.questions.values()) == len(rows) - about


@pytest.mark.parametrize("lacking", [QUESTIONS, MAPS, "h.jsonl"])
def test_a_file_that_is_not_there_is_named(lacking: str, prepared: Path) -> None:
    (prepared / "h.jsonl").write_text("")
    (prepared / lacking).unlink()
    with pytest.raises(UserError, match=rf"^{lacking}: .*dataset\.index, dataset\.maps and dataset\.heldout"):
        build_index(archived(prepared, None, heldout="h.jsonl"))


# ---- media are opened once


def no_processes(*_: object) -> None:
    raise AssertionError("a media file was opened")


def test_a_second_call_opens_nothing(prepared: Path, opened: tuple[Path, Contents], monkeypatch: Any) -> None:
    monkeypatch.setattr(media, "in_workers", no_processes)
    (prepared / "index.parquet").unlink()
    assert build_index(archived(prepared, None)) == opened[1]
    assert is_fresh(archived(prepared, None))


def test_a_file_that_changed_is_opened_again_and_no_other(prepared: Path) -> None:
    before = lines_of(prepared / media.NAME)
    assert len(before) == 12 and all(line["error"] is None for line in before)
    (prepared / "videos/train_00001.mp4").write_bytes(b"broken")
    assert build_index(archived(prepared, None)).unreadable_files == 1
    after = lines_of(prepared / media.NAME)
    assert after[:12] == before and [line["path"] for line in after[12:]] == ["videos/train_00001.mp4"]
    assert after[12]["error"]
    assert build_index(archived(prepared, None)).unreadable_files == 1
    assert lines_of(prepared / media.NAME) == after


def test_a_crash_loses_the_line_that_it_tore(prepared: Path) -> None:
    known = prepared / media.NAME
    whole = lines_of(known)
    known.write_text("".join(known.read_text().splitlines(keepends=True)[:-1]) + '{"path": "vid')
    contents = build_index(archived(prepared, None))
    assert (contents.videos, contents.images, contents.unreadable_files) == (6, 6, 0)
    assert lines_of(known)[:-1] == whole[:-1] and lines_of(known)[-1] == whole[-1]


def test_a_file_is_opened_as_what_it_is_said_to_be(prepared: Path) -> None:
    """A line that calls a picture a video is corrected: what was known of the video says nothing about the picture."""
    name = "images/still_train_00000.png"
    (prepared / "x.txt").write_text("no media")
    assert survey(prepared, {"x.txt": "video", name: "image"})["x.txt"].error is not None
    found = survey(prepared, {name: "video"})[name]
    assert survey(prepared, {name: "image"})[name] == Media(0.0, None)
    assert survey(prepared, {name: "video"})[name] == found


# ---- files come to the root


def test_nothing_is_unpacked_where_the_root_holds_everything(prepared: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(build_module, "unpack", no_processes)
    monkeypatch.setattr(build_module, "_copy", no_processes)
    for source in (None, "nobody/nothing", "/no/such/folder"):  # parts may be gone, the hub out of reach
        gather(archived(prepared, source))


def test_files_that_were_unpacked_by_hand_need_no_parts(opened: tuple[Path, Contents], tmp_path: Path) -> None:
    shutil.copytree(opened[0], tmp_path / "data", ignore=shutil.ignore_patterns(".*"))
    assert not is_unpacked(tmp_path / "data")
    gather(archived(tmp_path / "data", None))


def test_parts_may_lie_in_the_root_and_go_when_they_are_unpacked(distributed: Path, tmp_path: Path) -> None:
    root = shutil.copytree(distributed, tmp_path / "data")
    gather(archived(root, None))
    assert len(list((root / "videos").iterdir())) == 6
    for part in root.glob(f"{PREFIX}*"):
        part.unlink()
    gather(archived(root, None))
    (root / "videos/train_00000.mp4").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"parts 00, 01, .* and 09 of 10 are missing"):
        gather(archived(root, tmp_path / "empty"))


def test_a_part_that_is_missing_is_named(distributed: Path, tmp_path: Path) -> None:
    source = shutil.copytree(distributed, tmp_path / "source")
    (source / f"{PREFIX}03").unlink()
    with pytest.raises(UserError, match="part 03 of 10 is missing"):
        gather(archived(tmp_path / "data", source))


@pytest.mark.parametrize("lacking", [QUESTIONS, MAPS])
def test_questions_and_maps_that_are_nowhere_are_named(lacking: str, distributed: Path, tmp_path: Path) -> None:
    source = shutil.copytree(distributed, tmp_path / "source")
    (source / lacking).unlink()
    with pytest.raises(UserError, match=rf"^{lacking}: neither in the archive nor next to it in .*dataset\.maps"):
        gather(archived(tmp_path / "data", source))


def test_a_copy_that_fails_leaves_nothing(distributed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def torn(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", torn)
        with pytest.raises(OSError, match="No space"):
            gather(archived(tmp_path / "data", distributed))
    assert not [path for path in (tmp_path / "data").iterdir() if "jsonl" in path.name]
    gather(archived(tmp_path / "data", distributed))
    assert (tmp_path / "data" / QUESTIONS).read_bytes() == (distributed / QUESTIONS).read_bytes()


# ---- the hub


def test_the_hub_gives_what_is_needed_and_no_more(distributed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, *, local_dir: Path, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(shutil.copytree(distributed, local_dir, dirs_exist_ok=True))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    root = tmp_path / "data"
    gather(archived(root, "RUBBISHLIKE/SpaceR-151k", revision="v1"))
    patterns = asked.pop("allow_patterns")
    assert asked == {"repo_id": "RUBBISHLIKE/SpaceR-151k", "repo_type": "dataset", "revision": "v1"}
    assert sorted(patterns) == sorted([f"{PREFIX}*", "SHA256SUMS", QUESTIONS, MAPS])
    assert is_unpacked(root) and (root / QUESTIONS).is_file() and (root / MAPS).is_file()
    asked.clear()
    gather(archived(root, "RUBBISHLIKE/SpaceR-151k"))
    assert not asked


ERRORS: list[Exception] = [
    LocalEntryNotFoundError("no connection and nothing in the cache"),
    ConnectionError("offline"),
    TimeoutError("slow"),
    HfHubHTTPError.__bases__[0]("the connection broke"),  # of the HTTP client itself, halfway through a file
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_hub_that_cannot_be_reached_has_remedies(error: Exception, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=r"dataset\.source=RUBBISHLIKE/SpaceR-151k: cannot be downloaded") as caught:
        gather(archived(tmp_path / "data", "RUBBISHLIKE/SpaceR-151k"))
    for remedy in ("same command again", "hf auth login", "set dataset.source to their folder", str(error)):
        assert remedy in str(caught.value)


# ---- the stage


def run_of(dataset: Any) -> Settings:
    settings = load()
    return dataclasses.replace(settings, dataset=dataset, stage=PrepareStage())


def test_the_stage_returns_the_questions_and_writes_a_summary(distributed: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    dataset = archived(tmp_path / "data", distributed)
    mix = MixSettings(parts={"a": dataset, "rooms": RoomsSettings(root="never made")}, weights={"a": 1.0, "rooms": 1.0})
    rows = lines_of(distributed / QUESTIONS)
    assert prepare_module.prepare(run_of(mix), tmp_path / "run") == len(rows)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (found,) = summary.values()
    assert list(summary) == ["dataset.parts.a"]
    assert sum(entry["questions"] for entry in found["questions"]) == len(rows)
    assert (found["videos"], found["images"], found["faults"], found["excluded"]) == (6, 6, 0, {})
    assert not (tmp_path / "run/faults.jsonl").exists() and is_fresh(dataset)
    assert not Path("never made").exists()


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("on_bad", OnBad)
def test_faults_are_written_before_they_stop_the_stage(on_bad: OnBad, root: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    dataset = jsonl(root, on_bad=on_bad)
    write(root / "i.jsonl", row(1), row(2, path="none.mp4"), "oops", row(4))
    if on_bad == OnBad.stop:
        with pytest.raises(DataError, match=r"i\.jsonl: 2 faulty lines"):
            prepare_module.prepare(run_of(dataset), tmp_path / "run")
    else:
        assert prepare_module.prepare(run_of(dataset), tmp_path / "run") == 2
    assert is_fresh(dataset)
    faults = lines_of(tmp_path / "run/faults.jsonl")
    assert [(fault["where"], fault["kind"]) for fault in faults] == [("line 2", "missing file"), ("line 3", "not JSON")]
    summary = json.loads((tmp_path / "run/summary.json").read_text())["dataset"]
    assert (summary["faults"], summary["excluded"]) == (2, {"missing file": 1, "not JSON": 1})


def test_a_file_that_does_not_open_does_not_stop_the_stage(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (prepared / "videos/train_00001.mp4").write_bytes(b"broken")
    dataset = JsonlSettings(root=str(prepared), index=QUESTIONS, maps=MAPS)
    total = prepare_module.prepare(run_of(dataset), tmp_path / "run")
    assert total == sum(line.get("path") != "videos/train_00001.mp4" for line in lines_of(prepared / QUESTIONS))
    assert {fault["kind"] for fault in lines_of(tmp_path / "run/faults.jsonl")} == {"unreadable media"}


def test_names_in_brackets_are_shown_as_they_are(root: Path, tmp_path: Path, capsys: Any, unopened: None) -> None:
    """Which rich would take for marks of its own, and fail on one that closes nothing."""
    (tmp_path / "run").mkdir()
    write_lines(root / "i.jsonl", [row(1, data_source="[/b]"), row(2, data_source="[red]")])
    assert prepare_module.prepare(run_of(jsonl(root)), tmp_path / "run") == 2
    said = capsys.readouterr().out
    assert "[/b]" in said and "[red]" in said
    assert os.fspath(root)[:5] in said
