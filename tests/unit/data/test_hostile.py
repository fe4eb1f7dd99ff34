"""Files that were made to hang a reader, to fill its memory or disk, or to show it what lies elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spacer.benchmarks.files import json_file, parquet_rows
from spacer.config.choices import OnBad
from spacer.data.index import NAME, fingerprint, is_fresh, read_index
from spacer.data.prepare import archive, media
from spacer.data.prepare.archive import ArchiveError, unpack
from spacer.data.prepare.build import build_index
from spacer.data.prepare.parts import SUMS
from spacer.data.samples import DataError, Fault, read_maps, read_samples
from spacer.data.sources import load_train
from spacer.errors import UserError
from spacer.files import parse_yaml, read_ordinary
from spacer.report.html.lines import read_lines
from tests.unit.configs import problems
from tests.unit.data.archives import contents, member, split, tar
from tests.unit.data.written import jsonl, row, write

pytestmark = pytest.mark.usefixtures("unopened")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD: dict[str, Callable[[Path], None]] = {"pipe": pipe, "socket": bound, "device": device, "folder": Path.mkdir}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Makes what would keep a reader waiting for ever, or never end."""
    return ODD[request.param]


def test_what_is_no_file_is_not_waited_for(odd: Callable[[Path], None], tmp_path: Path) -> None:
    odd(tmp_path / "x")
    with pytest.raises(OSError):
        read_ordinary(tmp_path / "x")
    (said,) = problems(dataset__prompts_file=str(tmp_path / "x"))
    assert "dataset.prompts_file" in said and "cannot be read" in said
    faults: list[Fault] = []
    assert json_file(tmp_path, "x", dict, faults) == {}
    odd(tmp_path / "a-00000-of-00001.parquet")
    assert not list(parquet_rows(tmp_path, "a-*.parquet", ["id"], faults))
    assert [fault.kind for fault in faults] == ["unreadable file", "unreadable file"]
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path / "x", [])


def test_media_and_checksums_that_are_no_files(odd: Callable[[Path], None], root: Path, tmp_path: Path) -> None:
    odd(root / "videos/odd.mp4")
    _, (fault,) = read_samples(write(root / "i.jsonl", row(1, path="videos/odd.mp4")), root, {})
    assert fault.kind in ("missing file", "outside the data root")
    parts = split(tmp_path / "parts", gzip.compress(tar({"a": b"1"})), 2)
    odd(tmp_path / "parts" / SUMS)
    with pytest.raises(ArchiveError, match="not a regular file"):
        unpack(parts, tmp_path / "target")


# what lies elsewhere


@pytest.fixture
def secret(root: Path) -> Path:
    """A file beside the data root, which is not to be read."""
    place = root.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    (place / "m.jsonl").write_text('{"video_id": "a", "cognitive_map": {"secret": [[1, 1]]}}\n')
    (place / "a.mp4").touch()
    return write(place / "i.jsonl", row(7, problem="secret"))


@pytest.mark.parametrize("which", ["index", "maps", "heldout"])
def test_a_link_in_the_root_does_not_lead_out_of_it(which: str, secret: Path, root: Path) -> None:
    write(root / "own.jsonl", row(1))
    (root / "link.jsonl").symlink_to(secret.with_name("m.jsonl") if which == "maps" else secret)
    settings = jsonl(root, **{"index": "own.jsonl", which: "link.jsonl"})
    for read in (lambda: load_train(settings), lambda: fingerprint(settings), lambda: build_index(settings)):
        with pytest.raises(UserError, match=r"link\.jsonl is a link to .*, outside the data root") as raised:
            read()
        assert "secret" not in str(raised.value)
    # by its own path it is the user who names it
    own = str(secret.with_name("m.jsonl")) if which == "maps" else str(secret)
    assert len(load_train(jsonl(root, **{"index": "own.jsonl", which: own})).samples) == 1


def test_a_link_inside_the_root_is_followed(root: Path) -> None:
    write(root / "videos/own.jsonl", row(1))
    (root / "i.jsonl").symlink_to(root / "videos/own.jsonl")
    assert len(load_train(jsonl(root)).samples) == 1


def forged(root: Path, **changes: object) -> None:
    """An index that says of itself that it was made from the lines, with other rows."""
    settings = jsonl(root)
    write(root / "i.jsonl", row(1), row(2))
    build_index(settings)
    rows = pq.read_table(root / NAME)
    made = rows.to_pylist()
    made[1] |= changes
    pq.write_table(pa.Table.from_pylist(made, rows.schema), root / NAME)
    assert is_fresh(settings)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("../elsewhere/a.mp4", "outside the data root"),
        ("videos/../../elsewhere/a.mp4", "outside the data root"),
        ("/etc/hostname", "outside the data root"),
        ("out.mp4", "outside the data root"),
        ("outdir/a.mp4", "outside the data root"),
        ("videos/none.mp4", "missing file"),
        ("videos", "missing file"),
        ("videos/a.mp4/x", "missing file"),
        ("videos/\0.mp4", "missing file"),
    ],
)
def test_an_index_that_comes_with_the_data_is_checked_as_lines_are(
    path: str, kind: str, secret: Path, root: Path
) -> None:
    for link, target in (("out.mp4", secret.with_name("a.mp4")), ("outdir", secret.parent)):
        if not (root / link).is_symlink():
            (root / link).symlink_to(target)
    forged(root, path=path)
    with pytest.raises(DataError, match=f"line 2.*{path if path.isprintable() else ''}"):
        load_train(jsonl(root))
    split_ = load_train(jsonl(root, on_bad=OnBad.skip))
    assert [sample.id for sample in split_.samples] == ["1"]
    assert [(fault.where, fault.kind) for fault in split_.faults] == [("line 2", kind)]


@pytest.mark.parametrize(
    "changes", [{"problem_type": "essay"}, {"data_type": "audio"}, {"options": None}, {"problem_id": "1"}]
)
def test_an_index_that_lines_could_not_have_come_to_is_not_used(changes: dict, root: Path) -> None:
    forged(root, **changes)
    assert read_index(jsonl(root), "train", {}) is None
    assert [sample.id for sample in load_train(jsonl(root)).samples] == ["1", "2"]


def test_an_index_that_is_a_link_is_not_used(root: Path) -> None:
    forged(root)
    (root / NAME).rename(root.parent / "elsewhere.parquet")
    (root / NAME).symlink_to(root.parent / "elsewhere.parquet")
    assert not is_fresh(jsonl(root))


def test_what_is_kept_beside_the_data_is_not_written_through_a_link(root: Path) -> None:
    victim = root.parent / "victim"
    victim.write_text("no newline at its end")
    (root / media.NAME).symlink_to(victim)
    with pytest.raises(UserError, match=r"\.media\.jsonl is not a regular file"):
        media.survey(root, {"videos/a.mp4": "video"})
    assert victim.read_text() == "no newline at its end"


# bombs


def sparse_gnu() -> bytes:
    """A member of GNU's sparse type: a terabyte of which a header alone is there."""
    header = bytearray(member("videos/a.mp4", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = (1 << 40).to_bytes(12, "big").replace(b"\0", b"\x80", 1)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def sparse_pax() -> bytes:
    out = io.BytesIO()
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        content = b"1\n0\n0\n".ljust(512, b"\0")
        file.addfile(member("videos/a.mp4", size=512, pax_headers=headers), io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("make", [sparse_gnu, sparse_pax])
def test_sparse_members_are_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    parts = split(tmp_path / "parts", gzip.compress(make()), 2)
    with pytest.raises(ArchiveError, match=r"'videos/a\.mp4' is sparse"):
        unpack(parts, tmp_path / "target")
    assert contents(tmp_path / "target") == {}


def test_a_sparse_members_map_that_is_cut_short_is_damage(tmp_path: Path) -> None:
    whole = sparse_pax()
    at = whole.rindex(b"1\n0\n0\n")
    cut = whole[:at] + b"99999999999\n0\n"
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(split(tmp_path / "parts", gzip.compress(cut), 2), tmp_path / "target")


def squeezed(head: bytes, zeros: int) -> bytes:
    """A gzip stream of the head and so many zeros, which is a thousandth as long."""
    squeeze = zlib.compressobj(9, wbits=31)
    block = bytes(1 << 20)
    return b"".join([squeeze.compress(head), *(squeeze.compress(block) for _ in range(zeros >> 20)), squeeze.flush()])


@pytest.mark.parametrize("kind", ["one file", "many names"])
def test_an_archive_that_unpacks_to_a_thousandfold_is_refused_early(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FREE_RATIO", 1 << 20)
    if kind == "one file":
        stream = squeezed(member("a.mp4", size=64 << 20).tobuf(), 64 << 20)
    else:
        stream = gzip.compress(b"".join(member(f"videos/{n}.mp4").tobuf() for n in range(20_000)), 9)
    with pytest.raises(ArchiveError, match=r"unpacks to more than 100 times its size: [0-9,]+ bytes from") as raised:
        unpack(split(tmp_path / "parts", stream, 2), tmp_path / "target")
    out = int(str(raised.value).split("size: ")[1].split(" ")[0].replace(",", ""))
    assert out < 16 << 20  # of 64 MB
    assert not list((tmp_path / "target").rglob(f"{archive.TEMPORARY}*"))


def test_text_that_compresses_well_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_RATIO", 1 << 10)
    lines = "".join(json.dumps(row(n)) + "\n" for n in range(20_000)).encode()
    stream = gzip.compress(tar({"i.jsonl": lines}))
    assert len(lines) > 10 * len(stream)
    unpack(split(tmp_path / "parts", stream, 2), tmp_path / "target")
    assert contents(tmp_path / "target") == {"i.jsonl": lines}


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "aliases"),
        ("a: &a\n  <<: *a\n", "aliases"),
        ("[" * 100_000, "nested more than 50 levels deep"),
        ("plain: " + "9" * 100_000, "digits"),
        ("x" * (1 << 20) + "x", "characters"),
        ("plain: 2026-13-45", "month"),
        ("a: [", "expected"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
    ids=["billion laughs", "itself", "deep", "long number", "long", "no date", "cut", "code"],
)
def test_yaml_that_was_made_to_grow(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        parse_yaml(text)
    (tmp_path / "p.yaml").write_text(text)
    (said,) = problems(dataset__prompts_file=str(tmp_path / "p.yaml"))
    assert "cannot be read as YAML" in said and len(said) < 5000


def test_shards_that_count_to_a_hundred_billion_are_one_fault(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "test-00000-of-99999999999.parquet")
    faults: list[Fault] = []
    assert len(list(parquet_rows(tmp_path, "test-*.parquet", ["id"], faults))) == 1
    assert [fault.kind for fault in faults] == ["unusable name"] and "99999999999 shards" in faults[0].detail


@pytest.mark.parametrize("number", ["9" * 100_000, "9" * 400, "1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_no_float_holds(number: str, root: Path) -> None:
    text = json.dumps(row(2)).replace('"problem_id": 2', f'"problem_id": 2, "extra": {number}')
    samples, faults = read_samples(write(root / "i.jsonl", row(1), text, row(3)), root, {})
    assert len(samples) + len(faults) == 3 and len(samples) >= 2
    (root / "m.jsonl").write_text(f'{{"video_id": "a", "cognitive_map": {{"bed": [[1, {number}]]}}}}\n')
    with pytest.raises(UserError, match=r"m\.jsonl:1: expected"):
        read_maps(root / "m.jsonl")
