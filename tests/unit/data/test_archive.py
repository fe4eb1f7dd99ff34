"""An archive in parts unpacks to its files, and its faults are reported."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.data.prepare import archive
from spacer.data.prepare.archive import Unpacked, unpack
from spacer.data.prepare.parts import ArchiveError, Joined, find_parts
from tests.unit.data.archives import FILES, PREFIX, TOTAL, contents, member, split, tar


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    read = Joined.read

    def counted(self: Joined, size: int) -> bytes:
        reads.append(size)
        return read(self, size)

    monkeypatch.setattr(Joined, "read", counted)
    return reads


def test_ten_parts_unpack_and_the_second_call_reads_nothing(
    parts: tuple[Path, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unpack(parts, target) == Unpacked(len(FILES), 0, TOTAL)
    assert contents(target) == FILES
    state = target / archive.STATE
    stamp = state.stat().st_mtime_ns
    reads = count_reads(monkeypatch)
    assert unpack(parts, target) == Unpacked(0, len(FILES), TOTAL)
    assert not reads and state.stat().st_mtime_ns == stamp


def test_only_the_names_and_bytes_are_taken_over(tmp_path: Path, target: Path) -> None:
    kinds = (member("made/", type=tarfile.DIRTYPE, mode=0o7777), member("./"), member("setuid", mode=0o4777, mtime=1))
    kinds[1].type = tarfile.DIRTYPE
    umask = os.umask(0o027)
    try:
        unpack(split(tmp_path / "parts", gzip.compress(tar({"deep/er/file": b"x"}, *kinds))), target)
    finally:
        os.umask(umask)
    for name, mode in {"made": 0o750, "deep": 0o750, "deep/er": 0o750, "deep/er/file": 0o640, "setuid": 0o640}.items():
        found = (target / name).stat()
        assert found.st_mode & 0o7777 == mode and found.st_mtime > 1 and found.st_uid == os.getuid(), name


def test_of_a_name_that_comes_twice_the_later_file_counts(tmp_path: Path, target: Path) -> None:
    tarred = tar({"a": b"first", "b": b"b", "./a": b"later"})
    parts = split(tmp_path / "parts", gzip.compress(tarred), 2)
    assert unpack(parts, target) == Unpacked(2, 0, 6)
    assert contents(target) == {"a": b"later", "b": b"b"}


HOSTILE: dict[str, tuple[tarfile.TarInfo, str]] = {
    "absolute": (member("/etc/evil"), "absolute"),
    "absolute twice": (member("//etc/evil"), "absolute"),
    "parent": (member("../evil"), r"'\.\.'"),
    "parent within": (member("videos/../../evil"), r"'\.\.'"),
    "parent folder": (member("..", type=tarfile.DIRTYPE), r"'\.\.'"),
    "symbolic link": (member("evil", type=tarfile.SYMTYPE, linkname="/etc"), "a symbolic link"),
    "hard link": (member("evil", type=tarfile.LNKTYPE, linkname="readme.txt"), "a hard link"),
    "device": (member("evil", type=tarfile.CHRTYPE), "a device"),
    "block device": (member("evil", type=tarfile.BLKTYPE), "a device"),
    "pipe": (member("evil", type=tarfile.FIFOTYPE), "a pipe"),
    "unknown kind": (member("evil", type=b"Z"), "unknown kind b'Z'"),
    "no name": (member(""), "no name"),
    "only a dot": (member("."), "no name"),
    "long name": (member("e" * 256), "more than 255 bytes"),
    "long folder name": (member("ü" * 128 + "/x"), "more than 255 bytes"),
    "long path": (member("/".join(["e" * 200] * 21)), "too long"),
    "state": (member(archive.STATE), "unpacking reserves"),
    "in the state's place": (member(archive.STATE + "/x"), "unpacking reserves"),
    "temporary": (member(f"videos/{archive.TEMPORARY}x"), "unpacking reserves"),
    "through a link": (member("link/evil"), "outside .* through an existing link"),
    "folder through a link": (member("link/evil", type=tarfile.DIRTYPE), "outside .* through an existing link"),
    "deep through a link": (member("link/deep/evil"), "outside .* through an existing link"),
    "through a dead link": (member("dead/evil"), "outside .* through an existing link"),
    "through a loop": (member("loop/evil"), "needs the folder"),
    "file on a folder": (member("videos"), "is a folder"),
    "folder on a file": (member("readme.txt", type=tarfile.DIRTYPE), "is a file"),
    "file in a file": (member("readme.txt/x"), "is a file"),
    "file deep in a file": (member("readme.txt/x/y"), "is a file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_member_that_is_no_file_of_the_target_is_refused(case: str, tmp_path: Path, target: Path) -> None:
    hostile, why = HOSTILE[case]
    (tmp_path / "outside").mkdir()
    target.mkdir()
    (target / "link").symlink_to(tmp_path / "outside")
    (target / "dead").symlink_to(tmp_path / "nowhere")
    (target / "loop").symlink_to(target / "loop")
    before = {"readme.txt": b"text", "videos/a.mp4": b"a"}
    with pytest.raises(ArchiveError, match=why) as raised:
        unpack(split(tmp_path / "parts", gzip.compress(tar(before, hostile, member("later"))), 2), target)
    assert repr(hostile.name)[:100].rstrip("'") in str(raised.value)
    assert contents(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "parts", "target"]
    assert not any((tmp_path / "outside").iterdir())
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_links_that_stay_in_the_target_are_followed_and_a_link_in_a_files_place_is_replaced(
    tmp_path: Path, target: Path
) -> None:
    (target / "real").mkdir(parents=True)
    (target / "inner").symlink_to(target / "real")
    (tmp_path / "secret").write_bytes(b"12345")
    (target / "file").symlink_to(tmp_path / "secret")
    unpack(split(tmp_path / "parts", gzip.compress(tar({"inner/x": b"x", "file": b"54321"})), 2), target)
    assert (target / "real/x").read_bytes() == b"x"
    assert (target / "file").read_bytes() == b"54321" and not (target / "file").is_symlink()
    assert (tmp_path / "secret").read_bytes() == b"12345"


def test_the_target_is_a_file(parts: tuple[Path, ...], target: Path) -> None:
    target.write_text("x")
    with pytest.raises(ArchiveError, match="is a file"):
        unpack(parts, target)


def test_all_that_is_wrong_with_the_parts_is_told_at_once(parts: tuple[Path, ...]) -> None:
    folder = parts[0].parent
    parts[3].unlink()
    parts[7].unlink()
    parts[5].write_bytes(b"")
    whole = parts[0].stat().st_size
    os.truncate(parts[4], 1234)
    (folder / f"{PREFIX}10").write_bytes(b"x")
    (folder / f"{PREFIX}02.lock").write_bytes(b"")  # of a downloader
    with pytest.raises(ArchiveError) as raised:
        find_parts(folder, PREFIX, 10)
    text = str(raised.value)
    assert str(folder) in text
    assert "parts 03 and 07 of 10 are missing: download them again" in text
    assert f"{PREFIX}10" in text and "lock" not in text
    assert f"{PREFIX}05 is empty" in text
    assert f"{PREFIX}04 is truncated: 1,234 bytes, but the longest part has {whole:,}" in text
    assert text.count("truncated") == 1


def test_faults_of_single_parts(parts: tuple[Path, ...], tmp_path: Path) -> None:
    folder = parts[0].parent
    with pytest.raises(ArchiveError, match="nowhere is not a folder"):
        find_parts(tmp_path / "nowhere", PREFIX, 10)
    last = parts[-1].read_bytes()
    parts[-1].unlink()
    with pytest.raises(ArchiveError, match="part 09 of 10 is missing: download it again"):
        find_parts(folder, PREFIX, 10)
    parts[-1].write_bytes(last * 3)
    with pytest.raises(ArchiveError, match=r"09 has .* more than any part before it") as raised:
        find_parts(folder, PREFIX, 10)
    assert "truncated" not in str(raised.value)
    shutil.rmtree(folder)
    assert len(split(folder, last, 1)) == 1


@pytest.mark.parametrize("sizes", [(7, 7, 7), (7, 7, 1), (7, 7, 9), (8, 8, 7), (8, 7, 7)])
def test_all_that_split_makes_is_taken(sizes: tuple[int, ...], tmp_path: Path) -> None:
    for index, size in enumerate(sizes):
        (tmp_path / f"p{index:02d}").write_bytes(bytes(size))
    assert len(find_parts(tmp_path, "p", 3)) == 3


def cut_last(parts: tuple[Path, ...]) -> None:
    os.truncate(parts[-1], parts[-1].stat().st_size - 100)


def flip_middle(parts: tuple[Path, ...]) -> None:
    content = bytearray(parts[4].read_bytes())
    content[len(content) // 2] ^= 1
    parts[4].write_bytes(content)


def cut_trailer(parts: tuple[Path, ...]) -> None:
    os.truncate(parts[-1], parts[-1].stat().st_size - 8)


def add_rubbish(parts: tuple[Path, ...]) -> None:
    with open(parts[-1], "ab") as file:
        file.write(b"rubbish")


def flip_trailer(parts: tuple[Path, ...]) -> None:
    content = bytearray(parts[-1].read_bytes())
    content[-8] ^= 1
    parts[-1].write_bytes(content)


def no_gzip(parts: tuple[Path, ...]) -> None:
    parts[0].write_bytes(b"PK" + parts[0].read_bytes()[2:])


@pytest.mark.parametrize("harm", [cut_last, flip_middle, cut_trailer, add_rubbish, flip_trailer, no_gzip])
def test_damage_is_told_and_mended_by_another_copy_of_the_part(
    harm: Callable[[tuple[Path, ...]], None], parts: tuple[Path, ...], target: Path
) -> None:
    whole = {part: part.read_bytes() for part in parts}
    stamps = {part: part.stat().st_mtime_ns for part in parts}
    harm(parts)
    with pytest.raises(ArchiveError, match=r"damaged or truncated .*part_\d\d, which has [\d,]+ bytes. Download"):
        unpack(parts, target)
    assert contents(target).items() <= FILES.items() or harm is flip_middle
    for part, content in whole.items():
        part.write_bytes(content)
        os.utime(part, ns=(stamps[part], stamps[part]))  # even if the copy looks no newer
    unpack(parts, target)
    assert contents(target) == FILES


@pytest.mark.parametrize(
    "harm",
    {
        "no end": lambda tarred: tarred[: 512 + 20_480],  # exactly after the first member
        "no end in a header": lambda tarred: tarred[: 512 + 20_480 + 100],
        "no end in a file": lambda tarred: tarred[: 512 + 10_000],
        "no header": lambda tarred: b"",
        "bad header": lambda tarred: tarred[: 512 + 20_480] + b"x" * 512 + tarred[512 + 20_480 + 512 :],
        "more after the end": lambda tarred: tarred + tarred,
    }.items(),
    ids=lambda item: item[0],
)
def test_a_tar_without_its_proper_end_is_damaged(
    harm: tuple[str, Callable[[bytes], bytes]], tmp_path: Path, target: Path
) -> None:
    parts = split(tmp_path / "parts", gzip.compress(harm[1](tar(FILES))), 2)
    with pytest.raises(ArchiveError, match="damaged or truncated"):
        unpack(parts, target)
    assert contents(target).items() <= FILES.items()
    assert not list(target.rglob(f"{archive.TEMPORARY}*"))


def write_sums(parts: tuple[Path, ...]) -> Path:
    lines = [f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts[:8]]
    lines[1] = lines[1].upper().replace(PREFIX.upper(), PREFIX)
    lines[2] = lines[2].replace("  ", " *./")
    listing = parts[0].parent / "SHA256SUMS"
    listing.write_text("".join([*lines, "\n", f"{'0' * 64}  another_file\n"]))
    return listing


def test_checksums_that_match_are_computed_once(
    parts: tuple[Path, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacer.data.prepare import parts as module

    hashed: list[str] = []
    sha256 = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda part, bar: hashed.append(part.name) or sha256(part, bar))
    write_sums(parts)
    unpack(parts, target)
    assert hashed == [part.name for part in parts[:8]]
    (target / "readme.txt").unlink()
    unpack(parts, target)
    unpack(parts, target)
    assert len(hashed) == 8
    assert contents(target) == FILES


def test_parts_that_do_not_match_are_all_named_and_only_they_are_read_again(
    parts: tuple[Path, ...], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacer.data.prepare import parts as module

    listing = write_sums(parts)
    whole = parts[4].read_bytes()
    flip_middle(parts)
    expected, found = hashlib.sha256(whole).hexdigest(), hashlib.sha256(parts[4].read_bytes()).hexdigest()
    listing.write_text(listing.read_text().replace(hashlib.sha256(parts[6].read_bytes()).hexdigest(), "1" * 64))
    with pytest.raises(ArchiveError) as raised:
        unpack(parts, target)
    assert f"{parts[4].name}: expected {expected}, found {found}" in str(raised.value)
    assert f"{parts[6].name}: expected {'1' * 64}" in str(raised.value)
    assert not contents(target)
    parts[4].write_bytes(whole)
    os.utime(parts[4], ns=(1, 1))
    write_sums(parts)
    hashed: list[str] = []
    sha256 = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda part, bar: hashed.append(part.name) or sha256(part, bar))
    unpack(parts, target)
    assert hashed == [parts[4].name]


def test_a_checksum_line_that_cannot_be_read(parts: tuple[Path, ...], target: Path) -> None:
    (parts[0].parent / "SHA256SUMS").write_text(f"\nabc  {parts[0].name}\n")
    with pytest.raises(ArchiveError, match=r"SHA256SUMS:2: 'abc .*64 hex digits"):
        unpack(parts, target)


folders = st.lists(st.text("ab é", min_size=1, max_size=3).map("d{}".format), max_size=3)
trees = st.dictionaries(
    st.builds(lambda path, name: "/".join([*path, f"f{name}"]), folders, st.text("xyñ%'", max_size=120)),
    st.binary(max_size=3000),
    max_size=8,
)


@hypothesis_settings(deadline=None, max_examples=40)
@given(tree=trees, part=st.integers(1, 5000), form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_any_tree_in_parts_of_any_size(tree: dict[str, bytes], part: int, form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for name, content in tree.items():
            file.addfile(member(name, size=len(content)), io.BytesIO(content))
    stream = gzip.compress(out.getvalue())
    part = max(part, -(-len(stream) // 100))  # two digits number the parts
    count = -(-len(stream) // part)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            (Path(folder) / f"p{index:02d}").write_bytes(stream[index * part : (index + 1) * part])
        target = Path(folder) / "target"
        found = unpack(find_parts(Path(folder), "p", count), target)
        assert found == Unpacked(len(tree), 0, sum(map(len, tree.values())))
        assert contents(target) == tree
        assert json.loads((target / archive.STATE).read_text())["members"] == {k: len(v) for k, v in tree.items()}
