"""What comes back from `index.parquet` is what the lines say, and it is never taken for newer lines than it was of."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.config.choices import OnBad
from spacer.config.settings import JsonlSettings
from spacer.data import index, sources
from spacer.data.index import NAME, IndexWriter, count_questions, is_fresh, read_index
from spacer.data.prepare import build as build_module
from spacer.data.prepare.build import build_index
from spacer.data.prepare.media import Media
from spacer.data.samples import PROBLEM_TYPES, DataError, Fault, Sample, read_maps, read_samples
from spacer.data.sources import load_heldout, load_train
from tests.unit.data.written import FAULTY, jsonl, row, write

pytestmark = pytest.mark.usefixtures("unopened")
DRAFT = {"question_type": "numerical", "problem": "How many beds?", "solution": "2", "data_source": "SR_dataset"}
MAPS = {"video_id": "a", "cognitive_map": {"bed": [[1, 2], [3, 4]], "sofa": []}}


def table(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / NAME).to_pylist()


def indexed(settings: JsonlSettings, split: str = "train") -> tuple[list[Sample], list[Fault]]:
    """What the index gives, with the maps that the settings name."""
    maps = read_maps(Path(settings.root) / settings.maps) if settings.maps is not None else {}
    found = read_index(settings, split, maps)
    return list(found.samples), list(found.faults)


# ---- there and back


def test_every_kind_of_line_comes_back_as_it_is_read(root: Path) -> None:
    media = {"video": "videos/a.mp4", "image": "picture.png", "text": ""}
    kinds = [(problem, data) for problem in PROBLEM_TYPES for data in media]
    lines = [
        row(
            number,
            problem_type=problem,
            data_type=data,
            path=media[data],
            options=["A. 1", "B. 2"],
            solution="<answer>B</answer>" if problem == "multiple choice" else "<answer>3</answer>",
        )
        for number, (problem, data) in enumerate(kinds)
    ]
    lines += [
        {"problem_id": 100, "video": "videos/b.mp4", **DRAFT},
        {"problem_id": "x/101", "video": "videos/a.mp4", "options": ["A. 1", "B. 2"], **DRAFT},
        row(102, scene="s", question_type="object_counting", reasoning="One, <b>, three.", path="in.mp4"),
        {key: value for key, value in row(103).items() if key != "data_source"},
        row(104, problem="Où est\u2028la 椅子?\r\nThere\u0085\0", solution="<think>…</think><answer>\n 7\n</answer>"),
    ]
    settings = jsonl(root, maps="m.jsonl")
    write(root / "m.jsonl", MAPS)
    expected, faults = read_samples(write(root / "i.jsonl", *lines), root, read_maps(root / "m.jsonl"))
    assert len(expected) == len(lines) and not faults
    build_index(settings)
    assert indexed(settings) == (expected, [])
    assert [entry["excluded"] for entry in table(root)] == [None] * len(lines)
    assert [entry["has_map"] for entry in table(root)] == [sample.true_map is not None for sample in expected]
    assert load_train(settings).samples == tuple(expected)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
solid = text.filter(str.strip)
rows = st.fixed_dictionaries(
    {
        "problem_id": st.integers(0, 5) | solid,
        "problem": solid,
        "problem_type": st.sampled_from(PROBLEM_TYPES),
        "data_type": st.sampled_from(["image", "video", "text"]),
        "options": st.lists(text, max_size=3),
        "solution": solid | solid.map("<answer>{}</answer>".format),
        "path": st.sampled_from(["a.mp4", "b.png", "./a.mp4", "none.mp4", "../x.mp4", ""]),
    },
    optional={"data_source": text, "scene": text, "question_type": text, "reasoning": text},
)


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(rows, min_size=1, max_size=6))
def test_the_index_says_what_the_lines_say(lines: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for media in ("a.mp4", "b.png"):
            (root / media).touch()
        samples, faults = read_samples(write(root / "i.jsonl", *lines), root, {})
        build_index(jsonl(root))
        found, found_faults = indexed(jsonl(root))
        assert found == samples
        # a line's faults are told together
        assert [fault.where for fault in found_faults] == list(dict.fromkeys(fault.where for fault in faults))
        assert is_fresh(jsonl(root))


@pytest.mark.parametrize(("kind", "path"), [("text", "videos/a.mp4"), ("video", "")])
def test_an_index_whose_files_do_not_fit_the_types_is_not_believed(kind: str, path: str, root: Path) -> None:
    settings = jsonl(root)
    write(root / "i.jsonl", row(1), row(2, data_type="text", path=""))
    build_index(settings)
    assert [sample.id for sample in indexed(settings)[0]] == ["1", "2"]
    entries = table(root)
    entries[1] |= {"data_type": kind, "path": path}
    pq.write_table(pa.Table.from_pylist(entries, pq.read_schema(root / NAME)), root / NAME)
    assert read_index(settings, "train", {}) is None


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_comes_back_with_its_line_and_kind(name: str, root: Path) -> None:
    line, kinds = FAULTY[name]
    write(root / "i.jsonl", row(1), line, row(3))
    build_index(jsonl(root))
    samples, faults = indexed(jsonl(root))
    _, read = read_samples(root / "i.jsonl", root, {})
    assert [sample.id for sample in samples] == ["1", "3"]
    assert [(fault.where, fault.kind) for fault in faults] == [("line 2", kinds[0])]
    assert all(fault.detail in faults[0].detail for fault in read)
    (reason,) = [entry["excluded"] for entry in table(root) if entry["excluded"] is not None]
    assert reason.startswith(f"{kinds[0]}: ")


@pytest.mark.parametrize(
    "line",
    [
        row(2, problem="half a character \ud800"),
        row(2, path="\ud800.mp4"),
        row("\ud800"),
        row(2, options=["A. \udfff", "B. x"]),
        row(2, problem_type="essay \ud800"),
    ],
    ids=["problem", "path", "id", "option", "type"],
)
def test_half_a_character_spoils_its_line_and_no_other(line: dict[str, Any], root: Path) -> None:
    """JSON can write "\\ud800" alone, which no file in UTF-8 and no tokenizer takes."""
    write(root / "i.jsonl", row(1), line, row(3))
    samples, faults = read_samples(root / "i.jsonl", root, {})
    assert [sample.id for sample in samples] == ["1", "3"] and [fault.where for fault in faults] == ["line 2"]
    build_index(jsonl(root))
    samples, faults = indexed(jsonl(root))
    assert [sample.id for sample in samples] == ["1", "3"] and [fault.where for fault in faults] == ["line 2"]


def test_a_file_that_does_not_open_is_left_out_and_stops_no_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"videos/b.mp4": Media(0.0, "b.mp4: cannot be opened: it is short")}
    monkeypatch.setattr(
        build_module, "survey", lambda root, files: {path: broken.get(path, Media(1.0, None)) for path in files}
    )
    write(root / "i.jsonl", row(1), row(2, path="videos/b.mp4"), row(3, path="in.mp4"), row(4))
    build_index(jsonl(root))
    split = load_train(jsonl(root, on_bad=OnBad.stop))
    assert [sample.id for sample in split.samples] == ["1", "4"]
    assert [(fault.where, fault.kind) for fault in split.faults] == [
        ("line 2", "unreadable media"),
        ("line 3", "unreadable media"),  # a link to the same file
    ]
    assert "it is short" in split.faults[0].detail


def test_faults_in_an_index_stop_or_are_skipped_as_those_of_lines_are(root: Path) -> None:
    write(root / "i.jsonl", row(1), row(2, path="none.mp4"), "oops", row(4))
    build_index(jsonl(root))
    with pytest.raises(DataError) as caught:
        load_train(jsonl(root))
    assert [fault.where for fault in caught.value.faults] == ["line 2", "line 3"]
    assert len(load_train(jsonl(root, on_bad=OnBad.skip)).samples) == 2


def test_the_columns(root: Path) -> None:
    write(root / "i.jsonl", row(7, path="in.mp4"), row(8, path="none.mp4"), "{", row(7))
    write(root / "h.jsonl", row(1, path="videos/b.mp4", data_source="other"))
    write(root / "m.jsonl", {"video_id": "b", "cognitive_map": {}})
    build_index(jsonl(root, maps="m.jsonl", heldout="h.jsonl"), [])
    required = (
        *("problem_id", "data_source", "problem_type", "data_type"),
        *("path", "split", "has_map", "excluded"),
    )
    found = [tuple(entry[name] for name in required) for entry in table(root)]
    here = ("SR_dataset", "numerical", "video")
    assert (
        [values[:7] for values in found]
        == [
            ("7", *here, "videos/b.mp4", "train", True),  # where the link leads, by which its map is found
            ("8", *here, "none.mp4", "train", False),
            (None, None, None, None, None, "train", False),
            ("7", *here, "videos/a.mp4", "train", False),
            ("1", "other", *here[1:], "videos/b.mp4", "heldout", True),
        ]
    )
    reasons = [(values[7] or "").partition(": ")[0] for values in found]
    assert reasons == ["in a benchmark", "missing file", "not JSON", "duplicate problem_id", ""]


# ---- splits and sources


def test_splits_are_kept_apart(root: Path) -> None:
    write(root / "i.jsonl", row(1), row(2))
    write(root / "h.jsonl", row(1, path="videos/b.mp4"), row(3, path="none.mp4"))
    settings = jsonl(root, heldout="h.jsonl", on_bad=OnBad.skip)
    read = load_train(settings), load_heldout(settings)
    build_index(settings)
    assert is_fresh(settings)
    assert (load_train(settings), load_heldout(settings)) == read
    assert [sample.id for sample in read[1].samples] == ["1"]
    assert [fault.where for fault in read[1].faults] == ["line 2"]


@pytest.mark.parametrize("ready", [False, True])
def test_questions_of_the_wanted_sources_alone_are_trained_on(ready: bool, root: Path) -> None:
    unnamed = {key: value for key, value in row(4).items() if key != "data_source"}
    lines = [row(1), row(2, data_source="b"), row(3, data_source="c"), unnamed]
    write(root / "i.jsonl", *lines, row(5, data_source="c", path="none.mp4"))
    write(root / "h.jsonl", row(1, data_source="asked", path="videos/b.mp4"))
    wanted = jsonl(root, data_sources=("SR_dataset", "b"), heldout="h.jsonl")
    if ready:
        build_index(jsonl(root, heldout="h.jsonl"))  # of all: one index serves every choice
    assert is_fresh(wanted) == ready
    assert count_questions(wanted) == (2 if ready else None)  # of these sources, and sound
    split = load_train(wanted)
    assert [sample.id for sample in split.samples] == ["1", "2"]
    assert not split.faults  # a fault of another source is none of this run's
    assert [sample.id for sample in load_heldout(wanted).samples] == ["1"]  # asked and never trained on
    with pytest.raises(DataError):
        load_train(jsonl(root, data_sources=("c",), heldout="h.jsonl"))
    with pytest.raises(ValueError, match=r"i\.jsonl has no question whose data_source is among .*\['nobody'\]"):
        load_train(jsonl(root, data_sources=("nobody",), heldout="h.jsonl"))
    with pytest.raises(ValueError, match=r"i\.jsonl has no question whose data_source is among .*\[\]"):
        load_train(jsonl(root, data_sources=(), heldout="h.jsonl"))


@pytest.mark.parametrize("ready", [False, True])
def test_a_line_whose_source_cannot_be_told_is_everyones_fault(ready: bool, root: Path) -> None:
    write(root / "i.jsonl", row(1), "oops", row(3, data_source=5))
    if ready:
        build_index(jsonl(root))
    with pytest.raises(DataError) as caught:
        load_train(jsonl(root, data_sources=("SR_dataset",)))
    assert [fault.where for fault in caught.value.faults] == ["line 2", "line 3"]


# ---- freshness


@pytest.mark.parametrize("changed", ["i.jsonl", "m.jsonl", "h.jsonl"])
def test_lines_are_read_again_when_a_file_has_changed(
    changed: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = jsonl(root, maps="m.jsonl", heldout="h.jsonl")
    write(root / "i.jsonl", row(1))
    write(root / "m.jsonl", MAPS)
    write(root / "h.jsonl", row(1, path="videos/b.mp4"))
    assert not is_fresh(settings)
    build_index(settings)
    assert is_fresh(settings)
    with monkeypatch.context() as without_lines:
        without_lines.setattr(sources, "read_samples", None)
        load_train(settings), load_heldout(settings)
    if changed == "m.jsonl":
        write(root / changed, MAPS | {"cognitive_map": {"bed": [[5, 5]]}})
    else:
        write(root / changed, row(5, path={"i": "videos/a.mp4", "h": "videos/b.mp4"}[changed[0]]))
    assert not is_fresh(settings)
    train, heldout = load_train(settings), load_heldout(settings)
    assert [sample.id for sample in train.samples] == ["5" if changed == "i.jsonl" else "1"]
    assert [sample.id for sample in heldout.samples] == ["5" if changed == "h.jsonl" else "1"]
    expected = {"bed": [[5, 5]]} if changed == "m.jsonl" else MAPS["cognitive_map"]
    assert [sample.true_map for sample in train.samples] == [expected]
    build_index(settings)
    assert is_fresh(settings)
    assert (load_train(settings), load_heldout(settings)) == (train, heldout)


def test_a_change_of_no_byte_count_is_seen(root: Path) -> None:
    write(root / "i.jsonl", row(1))
    build_index(jsonl(root))
    before = (root / "i.jsonl").stat()
    write(root / "i.jsonl", row(2))
    os.utime(root / "i.jsonl", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (root / "i.jsonl").stat().st_size == before.st_size
    assert not is_fresh(jsonl(root))


def test_an_index_of_other_settings_is_not_used(root: Path) -> None:
    """It has no rows of what they ask for."""
    write(root / "i.jsonl", row(1))
    write(root / "j.jsonl", row(2))
    write(root / "m.jsonl", MAPS)
    build_index(jsonl(root))
    for other in ({"index": "j.jsonl"}, {"maps": "m.jsonl"}, {"heldout": "j.jsonl"}):
        assert not is_fresh(jsonl(root, **other))
    assert [sample.id for sample in load_train(jsonl(root, index="j.jsonl")).samples] == ["2"]


@pytest.mark.parametrize("broken", ["cut", "foreign", "empty"])
def test_an_index_that_is_none_is_not_used(broken: str, root: Path) -> None:
    write(root / "i.jsonl", row(1))
    build_index(jsonl(root))
    whole = (root / NAME).read_bytes()
    if broken == "foreign":
        pq.write_table(pa.table({"x": [1]}), root / NAME)
    else:
        (root / NAME).write_bytes(whole[: len(whole) // 2] if broken == "cut" else b"")
    assert not is_fresh(jsonl(root))
    assert [sample.id for sample in load_train(jsonl(root)).samples] == ["1"]


def test_a_root_that_was_moved_keeps_its_index(root: Path) -> None:
    write(root / "i.jsonl", row(1))
    build_index(jsonl(root))
    moved = root.with_name("moved")
    root.rename(moved)
    assert is_fresh(jsonl(moved))
    assert load_train(jsonl(moved)).samples[0].path == (moved / "videos/a.mp4").resolve()


# ---- crashes


def crash(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["between rows", "in a group of rows", "in the last group", "while closing"])
def test_a_crash_while_writing_leaves_the_old_index_whole(
    where: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "i.jsonl", row(1))
    build_index(jsonl(root))
    before, names = (root / NAME).read_bytes(), sorted(path.name for path in root.iterdir())
    write(root / "i.jsonl", *map(row, range(5)))
    if where == "between rows":
        monkeypatch.setattr(build_module, "row_of", crash)
    elif where == "while closing":
        monkeypatch.setattr(pq.ParquetWriter, "close", crash)
    else:
        monkeypatch.setattr(index, "ROWS", 2 if where == "in a group of rows" else 10)
        monkeypatch.setattr(pq.ParquetWriter, "write_table", crash)
    with pytest.raises(OSError, match="No space left"):
        build_index(jsonl(root))
    assert (root / NAME).read_bytes() == before
    assert sorted(path.name for path in root.iterdir()) == names
    assert not is_fresh(jsonl(root)) and len(load_train(jsonl(root)).samples) == 5


def test_groups_of_rows_are_one_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "ROWS", 3)
    write(root / "i.jsonl", *map(row, range(7)))
    build_index(jsonl(root))
    assert pq.ParquetFile(root / NAME).num_row_groups == 3
    assert [sample.id for sample in indexed(jsonl(root))[0]] == [str(number) for number in range(7)]


def test_the_index_says_what_it_was_made_from(root: Path) -> None:
    with IndexWriter(root, {"train": "i.jsonl 5 7"}):
        pass
    metadata = pq.read_schema(root / NAME).metadata
    assert json.loads(metadata[b"made_from"]) == {"train": "i.jsonl 5 7"}
    assert table(root) == []
