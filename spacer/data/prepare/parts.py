"""The numbered parts of an archive that was split by `split`: completeness, checksums and concatenation."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from spacer.errors import UserError
from spacer.terminal.progress import progress_bar

CHUNK = 1 << 20  # bytes read and written at once
SUMS = "SHA256SUMS"  # optional file next to the parts, as written by sha256sum


class ArchiveError(UserError):
    """A fault of the parts, of a member or of the disk, with its remedy."""


def find_parts(folder: Path, prefix: str, count: int) -> tuple[Path, ...]:
    """The parts `prefix00`, `prefix01`, … in order.

    Raises:
        ArchiveError: parts are missing, empty, truncated or too many; all faults are reported at once.
    """
    parts = tuple(folder / f"{prefix}{index:02d}" for index in range(count))
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is not a folder: it should contain {parts[0].name} to {parts[-1].name}")
    there = [part for part in parts if part.is_file()]
    missing = [part.name.removeprefix(prefix) for part in parts if part not in there]
    faults = []
    if missing:
        named = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
        which = f"parts {named} of {count} are" if missing[1:] else f"part {named} of {count} is"
        faults.append(f"{which} missing: download {'them' if missing[1:] else 'it'} again")
    numbered = re.compile(re.escape(prefix) + r"\d+")
    further = sorted(path.name for path in folder.iterdir() if numbered.fullmatch(path.name) and path not in parts)
    if further:
        faults.append(f"there should be {count} parts, but there are also {', '.join(further)}: move them away")
    sizes = {part: part.stat().st_size for part in there}
    faults += [f"{part.name} is empty: download it again" for part, size in sizes.items() if size == 0]
    # `split -b` makes all parts but the last equally long, and the last no longer; `split -n` makes all equally long
    # but for a remainder, fewer bytes than there are parts, which goes to the last part or is spread over the first
    before_last = {part: size for part, size in sizes.items() if part != parts[-1]}
    usual, last = max(before_last.values(), default=0), sizes.get(parts[-1], 0)
    if before_last and last >= usual + count and usual - min(before_last.values()) < count:
        faults.append(
            f"{parts[-1].name} has {last:,} bytes, more than any part before it (at most {usual:,}), which the last "
            "part of a split archive cannot have: download it again, then the others"
        )
    else:
        longest = max(usual, last)
        faults += [
            f"{part.name} is truncated: {size:,} bytes, but the longest part has {longest:,}: download it again"
            for part, size in before_last.items()
            if 0 < size <= longest - count
        ]
    if faults:
        raise ArchiveError(f"the archive in {folder} is not complete\n" + "\n".join(f"  {fault}" for fault in faults))
    return parts


class Joined(io.IOBase):
    """A stream over the concatenated parts; `done` counts the bytes read."""

    def __init__(self, parts: tuple[Path, ...], bar: tqdm[Any]) -> None:
        self.parts = parts
        self.done = 0
        self._bar = bar
        self._opened = 0
        self._file: BinaryIO = io.BytesIO()

    def read(self, size: int) -> bytes:
        """`size` bytes, across parts; fewer only at the end, since gzip treats a short read in a field as damage."""
        chunk = self._file.read(size)
        while len(chunk) < size and self._opened < len(self.parts):
            self._file.close()
            self._file = open(self.parts[self._opened], "rb", buffering=CHUNK)  # noqa: SIM115
            self._opened += 1
            chunk += self._file.read(size - len(chunk))
        self.done += len(chunk)
        self._bar.update(len(chunk))
        return chunk

    def close(self) -> None:
        self._file.close()
        super().close()

    def blame(self, error: BaseException) -> str:
        """The error message for damage detected at this point. The damage itself may be earlier: stored video bytes can
        have any value, so only the checksum at the end detects it."""
        part = self.parts[max(self._opened, 1) - 1]
        earlier = ", then the parts before it, since the damage may be there" if part != self.parts[0] else ""
        return (
            f"the archive is damaged or truncated ({error}): detected at byte {self._file.tell():,} of {part}, "
            f"which has {part.stat().st_size:,} bytes. Download {part.name} again{earlier}, and run the same command. "
            f"With a {SUMS} file next to the parts, the damaged one is found by its checksum."
        )


def fingerprint(part: Path) -> str:
    """Name, size and modification time of a part, which change when the part does."""
    found = part.stat()
    return f"{part.name} {found.st_size} {found.st_mtime_ns}"


def listed_digests(parts: tuple[Path, ...], known: Mapping[str, str]) -> dict[str, str]:
    """Fingerprint → SHA-256 of the parts listed in SHA256SUMS; `known` ones are not hashed again.

    Raises:
        ArchiveError: a line of SHA256SUMS is malformed.
    """
    expected = _read_sums(parts[0].parent / SUMS)
    listed = {fingerprint(part): part for part in parts if part.name in expected}
    digests = {print_: known[print_] for print_ in listed if print_ in known}
    unknown = {print_: part for print_, part in listed.items() if print_ not in known}
    if unknown:
        total = sum(part.stat().st_size for part in unknown.values())
        with progress_bar(total=total, desc="checking", unit="B", unit_scale=True) as bar:
            digests |= {print_: _sha256(part, bar) for print_, part in unknown.items()}
    return digests


def check_digests(parts: tuple[Path, ...], digests: Mapping[str, str]) -> None:
    """Raises an ArchiveError that lists every part whose digest differs from SHA256SUMS."""
    listing = parts[0].parent / SUMS
    expected = _read_sums(listing)
    wrong = [
        f"  {part.name}: expected {expected[part.name]}, found {digests[fingerprint(part)]}"
        for part in parts
        if part.name in expected and digests[fingerprint(part)] != expected[part.name]
    ]
    if wrong:
        raise ArchiveError(f"these parts do not match {listing}: download them again\n" + "\n".join(wrong))


def _read_sums(listing: Path) -> dict[str, str]:
    if not listing.exists():
        return {}
    if not listing.is_file():
        raise ArchiveError(f"{listing} is not a regular file: remove it, or put the parts' checksums there")
    sums = {}
    for number, line in enumerate(listing.read_text(errors="surrogateescape").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if match:
            sums[os.path.normpath(match[2])] = match[1].lower()
        elif line.strip():
            raise ArchiveError(f"{listing}:{number}: {line!r} is not '<64 hex digits>  <name>', as sha256sum writes it")
    return sums


def _sha256(part: Path, bar: tqdm[Any]) -> str:
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
