"""SpaceR-151k as it is distributed → a folder to train from, whatever is wrong or comes between."""

from __future__ import annotations

import json
import os
import random
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spacer.data.index import SCHEMA
from tests.cli.conftest import Command, Kill, fails, succeeds
from tests.cli.test_train import rows
from tests.disks import enlarge, small_disk
from tests.distributed import LINES, PREFIX, Folder

LONG = pytest.mark.long
WITHHELD = "videos/train_00005.mp4"  # trained on, were it not asked about in heldout.jsonl


def test_prepare_says_what_is_there_and_indexes_it(whole: tuple[Folder, str]) -> None:
    folder, said = whole
    train, heldout = rows(folder.source / LINES), rows(folder.source / "heldout.jsonl")
    maps = {row["video_id"] for row in rows(folder.source / "annotation/cognitive_map.jsonl")}
    table = pq.read_table(folder.root / "index.parquet")
    assert table.schema.names == SCHEMA.names
    index = table.to_pylist()
    assert [(row["split"], row["line"]) for row in index] == [
        (split, number + 1) for split, lines in (("train", train), ("heldout", heldout)) for number in range(len(lines))
    ]
    for row, line in zip(index, train + heldout, strict=True):
        assert row["path"] == line.get("path", line.get("video"))
        assert row["problem_id"] == str(line["problem_id"]) and row["problem"] == line["problem"]
        assert row["problem_type"] == line.get("problem_type", line.get("question_type"))
        assert row["has_map"] == (Path(row["path"]).stem in maps)
        assert (row["excluded"] is not None) == (row["split"] == "train" and row["path"] == WITHHELD)
    withheld = sum(line.get("path") == WITHHELD for line in train)
    kept = [row for row in index if row["excluded"] is None]
    assert withheld == 4 and len(kept) == len(train) + len(heldout) - withheld
    counts = Counter((row["data_source"], row["problem_type"]) for row in kept)
    summary = json.loads((folder.out / "summary.json").read_text())["dataset"]
    assert {(row["data_source"], row["problem_type"]): row["questions"] for row in summary["questions"]} == counts
    assert len({kind for _, kind in counts}) == 5
    for kind in {kind for _, kind in counts}:
        assert re.search(rf"{kind} +{counts['SR_dataset', kind]} +{counts['general', kind]}\b", said), said
    assert f": {len(kept)} questions" in " ".join(said.split()) and "SR_dataset" in said and "general" in said
    assert f"8 videos of 0.01 hours, 7 images; {sum(r['has_map'] for r in kept)} questions have a cognitive map" in said
    assert summary["hours"] == pytest.approx(8 * 4 / 3600)
    assert "0 files missing, 0 do not open" in said and "left out, in a benchmark: 4 questions" in said


def missing(source: Path) -> tuple[str, ...]:
    (source / f"{PREFIX}04").unlink()
    return "part 04 of 10 is missing", "download it again"


def short(source: Path) -> tuple[str, ...]:
    os.truncate(source / f"{PREFIX}04", 1234)
    return f"{PREFIX}04 is truncated: 1,234 bytes", "download it again"


def last_short(source: Path) -> tuple[str, ...]:
    os.truncate(source / f"{PREFIX}09", 1234)
    return "damaged or truncated", f"{PREFIX}09, which has 1,234 bytes", "Download"


def no_lines(source: Path) -> tuple[str, ...]:
    (source / LINES).unlink()
    return LINES, "neither in the archive nor next to it", str(source), "download what is missing"


@pytest.mark.parametrize("harm", [missing, *(pytest.param(h, marks=LONG) for h in (short, last_short, no_lines))])
def test_a_bad_source_is_told_and_mended(
    harm: Callable[[Path], tuple[str, ...]], command: Command, whole: tuple[Folder, str], copied: Folder
) -> None:
    words = harm(copied.source)
    fails(command(*copied.words), *words)
    assert not (copied.root / "index.parquet").exists()
    copied.restore(whole[0])
    told = succeeds(command(*copied.words)), whole[1]  # as if nothing had been, below the table's title
    assert told[0].partition("Problem type")[2] == told[1].partition("Problem type")[2]
    assert copied.content() == whole[0].content()


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("../x", tarfile.REGTYPE, "has '..' in its name"),
        pytest.param("/{tmp}/x", tarfile.REGTYPE, "has an absolute path", marks=LONG),
        pytest.param("videos/x", tarfile.SYMTYPE, "is a symbolic link", marks=LONG),
        pytest.param("videos/x", tarfile.LNKTYPE, "is a hard link", marks=LONG),
    ],
)
def test_hostile_members_are_refused(
    name: str, kind: bytes, why: str, command: Command, whole: tuple[Folder, str], copied: Folder, tmp_path: Path
) -> None:
    member = tarfile.TarInfo(name.format(tmp=str(tmp_path)[1:]))
    member.type, member.linkname = kind, "../../x"
    copied.pack(whole[0], {}, member, tarfile.TarInfo("videos/later.mp4"))
    (tmp_path / "outside").write_text("as it was")
    fails(command(*copied.words), repr(member.name), why, "get this one from a source that you trust")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "deep", "out", "outside"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["root"]
    assert copied.media().keys() == whole[0].media().keys()
    assert not any(path.is_symlink() for path in copied.root.rglob("*"))
    copied.restore(whole[0])
    succeeds(command(*copied.words))
    assert copied.content() == whole[0].content()


def too_large(folder: Folder, whole: Folder, work: Path) -> tuple[str, ...]:
    (work / "large").write_bytes(random.Random(0).randbytes(2_000_000))
    folder.pack(whole, {"large.bin": work / "large"})
    return "needs about 0.002 GB more", "but only 0.001 GB are free: free some space"


def too_compressed(folder: Folder, whole: Folder, work: Path) -> tuple[str, ...]:
    (work / "large").write_bytes(bytes(3_000_000))  # a few kilobytes of the archive: nobody can know before
    folder.pack(whole, {"large.bin": work / "large"})
    return "is full (No space left on device): 'large.bin'", "run the same command again: it resumes"


def too_many_lines(folder: Folder, whole: Folder, work: Path) -> tuple[str, ...]:
    with open(folder.source / LINES, "a") as file:
        file.write(" " * 2_000_000 + "\n")
    return "No space left on device", "run the same command again"


@pytest.mark.long
@pytest.mark.parametrize("fill", [too_large, too_compressed, too_many_lines])
def test_a_full_disk_is_told_and_goes_on_with_more_room(
    fill: Callable[[Folder, Folder, Path], tuple[str, ...]],
    command: Command,
    whole: tuple[Folder, str],
    copied: Folder,
    tmp_path: Path,
) -> None:
    words = fill(copied, whole[0], tmp_path)
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        folder = Folder(copied.source, disk, copied.out)
        fails(command(*folder.words), str(disk), *words)
        enlarge(disk, 64_000_000)
        succeeds(command(*folder.words))
        assert folder.content() == whole[0].content()
        assert not list(disk.glob(".unpacking-*"))


@pytest.mark.long
def test_a_killed_prepare_goes_on(
    command: Command, kill: Kill, whole: tuple[Folder, str], copied: Folder, tmp_path: Path
) -> None:
    (tmp_path / "extra").write_bytes(random.Random(0).randbytes(2_000_000))
    copied.pack(whole[0], {f"extra/{number}": tmp_path / "extra" for number in range(20)})
    kill(copied.words, (copied.root / "extra/0").exists)
    there = len(list((copied.root / "extra").glob("[0-9]*")))
    assert 1 <= there < 20 and not (copied.root / "index.parquet").exists()
    said = succeeds(command(*copied.words))
    found = re.search(r"unpacked (\d+) files, (\d+) were already there", said)
    assert found and int(found[1]) < 20 and int(found[1]) + int(found[2]) == 36
    assert copied.content() == whole[0].content()
    assert len({path.read_bytes() for path in (copied.root / "extra").iterdir()}) == 1
    assert not list(copied.root.rglob(".unpacking-*"))
