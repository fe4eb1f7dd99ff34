"""Unpacks a gzipped tar that was split into numbered parts, without writing the joined archive to disk.

SpaceR-151k is distributed this way: `split` cut tens of GB into `SpaceR-151k.part_00` … `part_09`. Unpacking can be
interrupted at any point and started again. A file gets its name only once it is complete. An existing file is kept only
if its bytes are those of the archive, since it could be left over from a damaged part.
"""

from __future__ import annotations

import dataclasses
import errno
import gzip
import io
import json
import os
import secrets
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from spacer.data.prepare.parts import CHUNK, ArchiveError, Joined, check_digests, fingerprint, listed_digests
from spacer.files import read_ordinary
from spacer.terminal.progress import progress_bar

MAX_RATIO = 100  # upper bound of unpacked / compressed bytes for media and text; gzip reaches 1000 on zeros
FREE_RATIO = 16 << 20  # unpacked bytes before MAX_RATIO is enforced
MARGIN = 1.05  # expected unpacked / compressed bytes: videos hardly compress, and files take whole blocks
STATE = ".unpacked.json"  # in the target: the unpacked parts and files, and the digests of the parts
TEMPORARY = ".unpacking-"  # name prefix of files that are being written

DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
FULL = (errno.ENOSPC, errno.EDQUOT)
KINDS = {
    **{tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a pipe"},
    **{tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"},
}


@dataclass(frozen=True)
class Unpacked:
    """The result of unpacking: files written by this call, files that were already there, bytes of both."""

    written: int
    kept: int
    bytes: int


def unpack(parts: tuple[Path, ...], target: Path) -> Unpacked:
    """Unpacks the joined parts into `target`; returns at once if all files are already there.

    Parts listed in a SHA256SUMS file next to them are verified first. Files are created with mode 0644 and folders with
    0755, less the umask; owners and times are not restored.

    Raises:
        ArchiveError: a part does not match its checksum; the archive is damaged or truncated; a member would escape the
            target, is neither a file nor a folder, or conflicts with an existing path; or the disk is full. Complete
            files are kept, and the next call resumes from them.
    """
    if target.exists() and not target.is_dir():
        raise ArchiveError(f"{target} is a file: unpacking needs a folder, so name another or move the file away")
    target.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    state = _load(target)
    sources = [fingerprint(part) for part in parts]
    total = sum(part.stat().st_size for part in parts)
    complete = state.sources == sources and all(
        _exists_with_size(target / name, size) for name, size in state.members.items()
    )
    if not complete:
        _check_room(total, target, {part.resolve() for part in parts})
    digests = listed_digests(parts, state.digests)
    if digests != state.digests:
        state = dataclasses.replace(state, digests=digests)
        _save(target, state)  # before verifying, so that only parts that are downloaded again are hashed again
    check_digests(parts, digests)
    if complete:
        return Unpacked(0, len(state.members), sum(state.members.values()))
    started = _State(digests=digests)
    work = _Work(target, f"{TEMPORARY}{secrets.token_hex(4)}")
    with progress_bar(total=total, desc="unpacking", unit="B", unit_scale=True) as bar, Joined(parts, bar) as joined:
        try:
            _save(target, started)
            _extract(joined, work)
            _save(target, dataclasses.replace(started, sources=sources, members=work.members))
        except DAMAGE as error:
            raise ArchiveError(joined.blame(error)) from error
        except OSError as error:
            if error.errno not in FULL:
                raise
            done = sum(work.members.values())
            more = max(total * MARGIN - done, (total - joined.done) * MARGIN)  # as in `_check_room`, or by unread bytes
            raise ArchiveError(
                f"the disk of {target} is full ({error.strerror}): {work.current!r} could not be written. "
                f"{len(work.members)} files ({_gb(done)}) are unpacked and stay. Free about "
                f"{_gb(more)} and run the same command again: it resumes from there."
            ) from error
    return Unpacked(len(work.written), len(work.members) - len(work.written), sum(work.members.values()))


def is_unpacked(target: Path) -> bool:
    """Whether an archive was completely unpacked here and all of its files are still there; the parts may be gone."""
    state = _load(target)
    return bool(state.sources) and all(_exists_with_size(target / name, size) for name, size in state.members.items())


@dataclass
class _Work:
    """The progress of unpacking; `members` maps names to sizes."""

    target: Path
    temporary: str  # name of the file that is being written, in the same folder as its destination
    members: dict[str, int] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)  # known to be folders inside the target
    written: set[str] = field(default_factory=set)
    current: str = STATE


class _Member(tarfile.TarInfo):
    """Treats an unreadable header as damage; tarfile, after the first member, would treat it as the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the regular end marker
            raise
        except (
            tarfile.HeaderError,
            ValueError,
            IndexError,
            OverflowError,
            RecursionError,
        ) as error:  # also from malicious numbers and header chains
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,} of the tar") from error


class _Bounded(io.RawIOBase):
    """A decompressed stream whose compression ratio is bounded.

    Raises:
        ArchiveError: the ratio exceeds MAX_RATIO, as in an archive that is made to fill a disk (a zip bomb).
    """

    def __init__(self, stream: gzip.GzipFile, joined: Joined) -> None:
        super().__init__()
        self._stream = stream
        self._joined = joined
        self._out = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self._out += len(chunk)
        if self._out > FREE_RATIO and self._out > MAX_RATIO * self._joined.done:
            raise ArchiveError(
                f"the archive unpacks to more than {MAX_RATIO} times its size: {self._out:,} bytes from the first "
                f"{self._joined.done:,}. Media do not compress that well: get it from a source that you trust."
            )
        return chunk


def _extract(joined: Joined, work: _Work) -> None:
    with (
        gzip.GzipFile(fileobj=joined) as stream,
        tarfile.open(fileobj=_Bounded(stream, joined), mode="r|", bufsize=CHUNK, tarinfo=_Member) as archive,
    ):
        for member in archive:
            work.current = member.name
            path = _member_path(member, work)
            if member.isdir():
                _make_folder(path, member, work)
                continue
            _make_folder(path.parent, member, work)
            if path.is_dir() and not path.is_symlink():
                raise ArchiveError(f"{member.name!r} is a file in the archive, but {path} is a folder: move it away")
            source = archive.extractfile(member)
            assert source is not None  # `_member_path` lets only files and folders through
            name = str(path.relative_to(work.target))
            if _write(source, path, member.size, path.with_name(work.temporary)):
                work.written.add(name)
            work.members[name] = member.size
        # tarfile stops at the end marker; the checksum of the gzip stream comes after it
        assert archive.fileobj is not None
        while rest := archive.fileobj.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is data after the end of the tar")
    work.current = STATE


def _member_path(member: tarfile.TarInfo, work: _Work) -> Path:
    """The path of a member in the target. Raises ArchiveError if the member is not allowed."""
    path = PurePosixPath(member.name)
    name_limit, path_limit = os.pathconf(work.target, "PC_NAME_MAX"), os.pathconf(work.target, "PC_PATH_MAX")
    if member.issparse():
        fault = f"is sparse: {member.size:,} bytes, few of which are in the archive"
    elif not (member.isfile() or member.isdir()):
        fault = f"is {KINDS.get(member.type, f'of the unknown kind {member.type!r}')}, not a file or folder"
    elif not member.name or (member.isfile() and not path.parts):
        fault = "has no name"
    elif "\0" in member.name:
        fault = "has a NUL character in its name"
    elif path.is_absolute():
        fault = "has an absolute path"
    elif ".." in path.parts:
        fault = "has '..' in its name"
    elif any(part.startswith(TEMPORARY) for part in path.parts) or STATE in path.parts[:1]:
        fault = f"has a name that unpacking reserves ({STATE}, {TEMPORARY}…)"
    elif any(len(os.fsencode(part)) > name_limit for part in path.parts):
        fault = f"has a name of more than {name_limit} bytes"
    elif len(os.fsencode(work.target / path)) + len(work.temporary) >= path_limit:
        fault = f"has a path that is too long: the disk allows {path_limit} bytes"
    else:
        return work.target / path
    shown = repr(member.name if len(member.name) <= 200 else member.name[:200] + "…")
    raise ArchiveError(
        f"the archive's member {shown} {fault}. Neither it nor anything after it is unpacked: media archives contain "
        "plain files under the target, so get this one from a source that you trust."
    )


def _make_folder(folder: Path, member: tarfile.TarInfo, work: _Work) -> None:
    if folder in work.folders:
        return
    real = os.path.realpath(folder)  # before creating anything: an existing link in the target may lead out of it
    if not Path(real).is_relative_to(work.target):
        raise ArchiveError(
            f"the archive's member {member.name!r} would be written to {real}, outside {work.target}, through an "
            "existing link: remove the link, or unpack into another folder"
        )
    for step in (*reversed(folder.relative_to(work.target).parents[:-1]), folder.relative_to(work.target)):
        path = work.target / step
        if path.is_dir():
            continue
        if os.path.lexists(path):
            raise ArchiveError(f"{member.name!r} needs the folder {path}, but that is a file: move it away")
        path.mkdir(mode=0o755)
    work.folders.add(folder)


def _write(source: IO[bytes], path: Path, size: int, temporary: Path) -> bool:
    """Writes the file unless it already has the same bytes; returns whether it was written."""
    same = 0
    chunk = source.read(CHUNK)
    if _exists_with_size(path, size):
        with open(path, "rb") as old:
            while chunk and old.read(CHUNK) == chunk:
                same += len(chunk)
                chunk = source.read(CHUNK)
        if same == size:
            return False
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as new:
            if same:  # already consumed from the stream, but the old file has them
                with open(path, "rb") as old:
                    for _ in range(same // CHUNK):
                        new.write(old.read(CHUNK))
            while chunk:
                new.write(chunk)
                chunk = source.read(CHUNK)
            assert new.tell() == size  # tarfile raises an error if the data end early
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _exists_with_size(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _check_room(total: int, target: Path, parts: set[Path]) -> None:
    """Removes leftovers of killed runs; raises an ArchiveError if the disk has too little space for `total` bytes of
    parts."""
    lying = 0
    for folder, _, names in os.walk(target):
        for path in (Path(folder) / name for name in names):
            if path.name.startswith(TEMPORARY):
                path.unlink()
            elif path not in parts:  # the parts themselves may be in the target
                lying += path.lstat().st_size
    needed, free = total * MARGIN - lying, shutil.disk_usage(target).free
    if needed > free:
        raise ArchiveError(
            f"unpacking into {target} needs about {_gb(needed)} more ({MARGIN} × the parts' {_gb(total)}, less "
            f"the {_gb(lying)} there), but only {_gb(free)} are free: free some space, or unpack to another disk"
        )


def _gb(count: float) -> str:
    return f"{count / 1e9:,.3f} GB"


@dataclass(frozen=True)
class _State:
    """The state stored in the target. `sources` are the fingerprints of the parts, once completely unpacked; `members`
    maps names to sizes; `digests` maps a part's fingerprint to its SHA-256."""

    sources: list[str] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def _load(target: Path) -> _State:
    if (target / STATE).is_symlink():  # never created by unpacking
        return _State()
    try:
        raw = json.loads(read_ordinary(target / STATE))
        return _State(list(raw["sources"]), dict(raw["members"]), dict(raw["digests"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return _State()  # starts over, which is always safe


def _save(target: Path, state: _State) -> None:
    temporary = target / f"{TEMPORARY}{secrets.token_hex(4)}"
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(state)))
        os.replace(temporary, target / STATE)
    finally:
        temporary.unlink(missing_ok=True)
