"""A gzip tar that came in numbered parts → its files, without the joined archive ever lying on disk.

SpaceR-151k is distributed so: `split` cut tens of GB into `SpaceR-151k.part_00` … `part_09`. Unpacking may be stopped
at any point and started again. A file stands under its name only when it is whole, and one that is already there is
kept only if its bytes are those of the archive: nothing else could tell it from a leftover of a damaged part.
"""

from __future__ import annotations

import dataclasses
import errno
import gzip
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

from spacer.preparing.parts import CHUNK, ArchiveError, Joined, check_digests, fingerprint, listed_digests
from spacer.progress import progress_bar

MARGIN = 1.05  # unpacked over compressed bytes: videos hardly compress, and a file takes whole blocks
STATE = ".unpacked.json"  # in the target: of which parts which files were unpacked, and the digests of the parts
TEMPORARY = ".unpacking-"  # begins the name of a file that is being written

DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
FULL = (errno.ENOSPC, errno.EDQUOT)
KINDS = {
    **{tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a pipe"},
    **{tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"},
}


@dataclass(frozen=True)
class Unpacked:
    """What lies in the target: files written by this call, files that were there, bytes of both."""

    written: int
    kept: int
    bytes: int


def unpack(parts: tuple[Path, ...], target: Path) -> Unpacked:
    """Unpacks the joined parts into `target`, or returns at once if all of it lies there already.

    Parts that a SHA256SUMS file beside them lists are compared with it first. Files are made with mode 0644 and folders
    with 0755, less the umask; owners and times are not taken over.

    Raises:
        ArchiveError: a part does not match its checksum; the archive is damaged or cut short; a member would leave the
            target, is no file or folder, or stands in another's place; or there is no room on the disk. Files that are
            whole by then stay, and the next call goes on from them.
    """
    if target.exists() and not target.is_dir():
        raise ArchiveError(f"{target} is a file: unpacking needs a folder, so name another or move the file away")
    target.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    state = _load(target)
    sources = [fingerprint(part) for part in parts]
    total = sum(part.stat().st_size for part in parts)
    complete = state.sources == sources and all(_lies(target / name, size) for name, size in state.members.items())
    if not complete:
        _check_room(total, target, {part.resolve() for part in parts})
    digests = listed_digests(parts, state.digests)
    if digests != state.digests:
        state = dataclasses.replace(state, digests=digests)
        _save(target, state)  # before the comparison: when one part was fetched again, only that one is read again
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
            more = max(total * MARGIN - done, (total - joined.done) * MARGIN)  # by `_check_room`, or by what is unread
            raise ArchiveError(
                f"the disk of {target} became full ({error.strerror}) while {work.current!r} was being written. "
                f"{len(work.members)} files ({_gb(done)}) are unpacked and stay. Make room for about "
                f"{_gb(more)} more and run the same command again: it goes on from there."
            ) from error
    return Unpacked(len(work.written), len(work.members) - len(work.written), sum(work.members.values()))


def is_unpacked(target: Path) -> bool:
    """Whether an archive was unpacked here to its end and all of its files are there; the parts may be gone."""
    state = _load(target)
    return bool(state.sources) and all(_lies(target / name, size) for name, size in state.members.items())


@dataclass
class _Work:
    """How far unpacking has come; `members` are sizes by name."""

    target: Path
    temporary: str  # the name of a file that is being written, beside the place where it belongs
    members: dict[str, int] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)  # known to be folders inside the target
    written: set[str] = field(default_factory=set)
    current: str = STATE


class _Member(tarfile.TarInfo):
    """Takes a header that cannot be read for damage, where tarfile, past the first member, takes it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the mark of a proper end
            raise
        except (tarfile.HeaderError, ValueError, RecursionError) as error:  # numbers and chains made to confuse too
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,} of the tar") from error


def _extract(joined: Joined, work: _Work) -> None:
    with (
        gzip.GzipFile(fileobj=joined) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_Member) as archive,
    ):
        for member in archive:
            work.current = member.name
            path = _place(member, work)
            if member.isdir():
                _make_folder(path, member, work)
                continue
            _make_folder(path.parent, member, work)
            if path.is_dir() and not path.is_symlink():
                raise ArchiveError(f"{member.name!r} is a file in the archive, but {path} is a folder: move it away")
            source = archive.extractfile(member)
            assert source is not None  # `_place` lets only files and folders through
            name = str(path.relative_to(work.target))
            if _write(source, path, member.size, path.with_name(work.temporary)):
                work.written.add(name)
            work.members[name] = member.size
        # tarfile stops at the mark of the end; the checksum of the whole comes after it
        assert archive.fileobj is not None
        while rest := archive.fileobj.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is data after the end of the tar")
    work.current = STATE


def _place(member: tarfile.TarInfo, work: _Work) -> Path:
    """Where a member belongs; an error if that is nowhere in the target."""
    path = PurePosixPath(member.name)
    name_limit, path_limit = os.pathconf(work.target, "PC_NAME_MAX"), os.pathconf(work.target, "PC_PATH_MAX")
    if not (member.isfile() or member.isdir()):
        fault = f"is {KINDS.get(member.type, f'of the unknown kind {member.type!r}')}, not a file or folder"
    elif not member.name or (member.isfile() and not path.parts):
        fault = "has no name"
    elif "\0" in member.name:
        fault = "has a NUL character in its name"
    elif path.is_absolute():
        fault = "has an absolute name"
    elif ".." in path.parts:
        fault = "has '..' in its name"
    elif any(part.startswith(TEMPORARY) for part in path.parts) or STATE in path.parts[:1]:
        fault = f"has a name that unpacking needs for itself ({STATE}, {TEMPORARY}…)"
    elif any(len(os.fsencode(part)) > name_limit for part in path.parts):
        fault = f"has a name of more than {name_limit} bytes"
    elif len(os.fsencode(work.target / path)) + len(work.temporary) >= path_limit:
        fault = f"has a path that is too long: the disk allows {path_limit} bytes"
    else:
        return work.target / path
    shown = repr(member.name if len(member.name) <= 200 else member.name[:200] + "…")
    raise ArchiveError(
        f"the archive's member {shown} {fault}. It is not unpacked, nor is anything after it: media archives hold "
        "plain files under the target, so get this one from a source that you trust."
    )


def _make_folder(folder: Path, member: tarfile.TarInfo, work: _Work) -> None:
    if folder in work.folders:
        return
    real = os.path.realpath(folder)  # before anything is made: a link that lies in the target may lead out of it
    if not Path(real).is_relative_to(work.target):
        raise ArchiveError(
            f"the archive's member {member.name!r} would be written to {real}, outside {work.target}, through a link "
            "that lies there: remove the link, or unpack into another folder"
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
    """Whether the file had to be written: it is left alone if it has the very bytes."""
    same = 0
    chunk = source.read(CHUNK)
    if _lies(path, size):
        with open(path, "rb") as old:
            while chunk and old.read(CHUNK) == chunk:
                same += len(chunk)
                chunk = source.read(CHUNK)
        if same == size:
            return False
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as new:
            if same:  # the stream is past them, but the old file has them
                with open(path, "rb") as old:
                    for _ in range(same // CHUNK):
                        new.write(old.read(CHUNK))
            while chunk:
                new.write(chunk)
                chunk = source.read(CHUNK)
            assert new.tell() == size  # tarfile raises an error where the data end early
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _lies(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _check_room(total: int, target: Path, parts: set[Path]) -> None:
    """Removes what killed runs left; raises an ArchiveError if too little is free for parts of `total` bytes."""
    lying = 0
    for folder, _, names in os.walk(target):
        for path in (Path(folder) / name for name in names):
            if path.name.startswith(TEMPORARY):
                path.unlink()
            elif path not in parts:  # they may lie in the target themselves
                lying += path.lstat().st_size
    needed, free = total * MARGIN - lying, shutil.disk_usage(target).free
    if needed > free:
        raise ArchiveError(
            f"unpacking into {target} needs about {_gb(needed)} more ({MARGIN} × the {_gb(total)} of the parts, less "
            f"the {_gb(lying)} there), but only {_gb(free)} are free: make room, or unpack into a folder elsewhere"
        )


def _gb(count: float) -> str:
    return f"{count / 1e9:,.3f} GB"


@dataclass(frozen=True)
class _State:
    """What the target remembers. `sources` are the fingerprints of the parts that were unpacked to the end, none before
    that; `members` sizes by name; `digests` the SHA-256 of a part by its fingerprint."""

    sources: list[str] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def _load(target: Path) -> _State:
    try:
        raw = json.loads((target / STATE).read_text())
        return _State(list(raw["sources"]), dict(raw["members"]), dict(raw["digests"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return _State()  # what is not remembered is done again, which is always safe


def _save(target: Path, state: _State) -> None:
    temporary = target / f"{TEMPORARY}{secrets.token_hex(4)}"
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(state)))
        os.replace(temporary, target / STATE)
    finally:
        temporary.unlink(missing_ok=True)
