"""The file: what stands in it within its bound, and that nothing in it can become markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spacer.config.settings import ReportSettings, RoomsSettings
from spacer.data.scenes import rooms
from spacer.report.html.build import write_report
from spacer.report.html.folders import read_run
from spacer.report.html.index import subjects
from spacer.report.html.media import Medium, embedded
from spacer.report.html.rollouts import rollout_entries
from spacer.report.html.texts import COMPLETION, by_worth, chunks, plain_json
from tests.run_folders import lines, scored_run, training_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def elements(report: Path) -> dict[str, Any]:
    """The JSON in a report, by the ids of its elements."""
    found = re.findall(
        r'<script type="application/json" id="([\w-]+)">(.*?)</script>', report.read_text("ascii", "replace")
    )
    return {name: json.loads(text) for name, text in found}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("films")
    settings = RoomsSettings(str(root), train_scenes=2, heldout_scenes=2, size_px=112, seconds=2.0, video_fps=4)
    return sorted((rooms.build(settings) / "videos").iterdir())


@given(JSON)
def test_json_in_the_page_is_what_it_was_and_holds_no_markup(value: Any) -> None:
    text = plain_json([value])
    assert json.loads(text) == [value]
    assert text.isascii() and not set("<>&") & set(text)


def test_the_policy_names_the_script_and_the_style_that_stand_there(tmp_path: Path) -> None:
    training_run(tmp_path / "run", [True], [True])
    text = write_report(tmp_path / "report.html", [tmp_path / "run"], ReportSettings(strips=0), 20, 0).read_text()
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text
        assert "http" not in inside.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in inside and "eval(" not in inside


def test_videos_and_frames_stand_in_the_page(films: list[Path], tmp_path: Path) -> None:
    training_run(tmp_path / "run", [True] * 8, [True] * 8, films)
    report = write_report(tmp_path / "report.html", [tmp_path / "run"], ReportSettings(), 20, 0)
    found = elements(report)
    (subject,) = found["index"]["subjects"]
    assert found["index"]["left_out"] == [] and subject["media"] == [0, 0, 1, 1, 2, 2, 3, 3]
    for place, film in enumerate(films):
        medium = found[f"media-{place}"]
        assert medium["path"] == film.name and medium["problem"] is None
        assert base64.b64decode(medium["video"].removeprefix("data:video/mp4;base64,")) == film.read_bytes()
        with Image.open(io.BytesIO(base64.b64decode(medium["strip"].removeprefix("data:image/jpeg;base64,")))) as strip:
            assert strip.size == (8 * 120 + 7 * 3, 120)
            frames = [np.asarray(strip)[:, 123 * n : 123 * n + 120].mean(axis=(0, 1)) for n in range(8)]
    assert np.ptp(frames, axis=0).max() > 3  # the camera moves


def test_what_has_no_room_is_told_and_what_is_worth_a_look_comes_first(films: list[Path], tmp_path: Path) -> None:
    """Questions 6 and 7, about the last film, are where before and after disagree."""
    training_run(tmp_path / "run", [True] * 8, [number < 6 for number in range(8)], films)
    (subject,) = subjects([read_run(tmp_path / "run")])
    assert by_worth(subject.questions)[:2] == [6, 7]
    report = write_report(tmp_path / "report.html", [tmp_path / "run"], ReportSettings(strips=1), 20, 0)
    found = elements(report)
    assert found["media-0"]["path"] == films[3].name and found["media-0"]["strip"] and found["media-0"]["video"]
    assert found["media-1"]["strip"] is None and found["media-1"]["video"]
    strip, small = len(found["media-0"]["strip"]), ReportSettings(video_megabytes=0.0)
    media = [Medium(film) for film in reversed(films)]
    bounded = embedded(media, small, int(strip * 1.5))
    assert [one.strip is not None for one in bounded.shown] == [True, False, False, False]
    assert bounded.without_frames == 3 and all(one.video is None for one in bounded.shown)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    broken, grey = tmp_path / "broken.mp4", io.BytesIO()
    broken.write_bytes(b"\0" * 4096)
    Image.new("RGB", (64, 32), (90, 90, 90)).save(grey, "PNG")
    picture = tmp_path / "picture.png"
    picture.write_bytes(grey.getvalue())
    (tmp_path / "failing.mp4").symlink_to("/proc/self/mem")  # which opens, and of which nothing can be read
    files = [Medium(broken), Medium(tmp_path / "none.mp4"), Medium(picture)]
    media = [*files, Medium(None, [grey.getvalue()] * 3), Medium(None, [b"x"]), Medium(tmp_path / "failing.mp4")]
    shown = embedded(media, ReportSettings(frame_height=16, video_megabytes=0.0), 10**6).shown
    assert "cannot be decoded" in str(shown[0].problem) and "no such file" in str(shown[1].problem)
    assert shown[2].strip and shown[3].strip and "cannot be read as an image" in str(shown[4].problem)
    assert "the disk failed" in str(shown[5].problem) and shown[5].video is None


def test_the_file_stays_below_its_bound(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / name, 400, 0.5, seed, words=900) for seed, name in enumerate("ab")]
    report = write_report(tmp_path / "report.html", runs, ReportSettings(max_megabytes=2), 20, 0)
    assert 1_000_000 < report.stat().st_size < 2_000_000
    found = elements(report)
    (told,) = found["index"]["left_out"]
    missing = sum(entry is None for name, chunk in found.items() if name.startswith("text-") for entry in chunk)
    assert f"texts of {missing} questions (report.max_megabytes=2)" in told and missing > 100
    (subject,) = found["index"]["subjects"]
    assert all(score is not None for answers in subject["answers"] for score in answers["score"])


def test_a_completion_without_end_is_cut_and_says_so(tmp_path: Path) -> None:
    changes = {0: {"completion": "<think>" + "x" * (2 * COMPLETION), "true_map": {"x": [[10**400, -(10**400)]]}}}
    training_run(tmp_path / "run", [True], [True], changes=changes)
    (subject,) = subjects([read_run(tmp_path / "run")])
    texts = chunks(subject.questions, 10**6)
    answers = [entry["answers"][1] for entry in json.loads(texts.chunks[0]) if entry["answers"][1]]
    assert len(answers[0]["completion"]) == COMPLETION and answers[0]["cut"] == COMPLETION + len("<think>")


def test_rollouts_are_read_by_question_and_step_and_nothing_outside_the_run(tmp_path: Path) -> None:
    folder = training_run(tmp_path / "run", [True], [True])
    Image.new("RGB", (40, 20)).save(tmp_path / "secret.jpg")
    (folder / "rollouts").mkdir()
    Image.new("RGB", (40, 20)).save(folder / "rollouts/a.jpg")
    common = {"split": "heldout", "id": "q1", "n": 0, "question": "Where?", "reward": {"total": 1.0}, "advantage": None}
    rows = [common | {"step": step, "completion": f"at {step}", "frames": "rollouts/a.jpg"} for step in (0, 20, 20, 40)]
    rows[2]["completion"] = "at 20, after the resume"
    rows.append(common | {"step": 20, "split": "train", "id": "t", "completion": "", "frames": "../secret.jpg"})
    lines(folder / "rollouts.jsonl", rows)
    (run,), left_out = rollout_entries([read_run(folder)], 10**6)
    heldout, trained = run["questions"]
    assert [shown["completion"] for shown in heldout["shown"]] == ["at 0", "at 20, after the resume", "at 40"]
    assert heldout["strip"].startswith("data:image/jpeg;base64,") and trained["strip"] is None and left_out == 0
    (run,), left_out = rollout_entries([read_run(folder)], 1500)
    assert left_out > 0 and run["questions"][0]["shown"][-1]["completion"] == "at 40"  # the newest stay


@pytest.mark.parametrize("limit", [None, 20])
def test_published_scores_stand_beside_whole_benchmarks_alone(limit: int | None, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", 20, 0.5, 0)
    scores = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(scores | {"settings": {"limit": limit, "tasks": None}}))
    write_report(tmp_path / "report.html", [run], ReportSettings(), resamples=200, seed=0)
    (subject,) = elements(tmp_path / "report.html")["index"]["subjects"]
    models = {entry["model"] for entry in subject["published"]}
    assert bool(models) is (limit is None)
    assert any("left out" in note for note in subject["notes"]) is (limit is not None)


def test_two_benchmarks_share_the_room_for_texts(tmp_path: Path) -> None:
    runs = tmp_path / "all"
    for name in ("one", "two"):
        scored_run(runs / name, 600, 0.5, 0, words=600)
        scores = json.loads((runs / name / "scores.json").read_text())
        (runs / name / "scores.json").write_text(json.dumps(scores | {"benchmark": name}))
        (runs / name / "predictions/vsi_bench.jsonl").rename(runs / name / f"predictions/{name}.jsonl")
    write_report(tmp_path / "report.html", [runs], ReportSettings(max_megabytes=2), resamples=200, seed=0)
    assert (tmp_path / "report.html").stat().st_size < 2_100_000
    held = elements(tmp_path / "report.html")
    shown = [sum(len(json.dumps(v)) for k, v in held.items() if k.startswith(f"text-{place}-")) for place in (0, 1)]
    assert min(shown) > 0.5 * max(shown) > 0
