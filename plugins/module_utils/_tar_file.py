# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A file with a tar archive in it: what is around it, its stream, and what a record says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import typing as t
import zlib
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._archive import Archive, opened
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits, TarReader
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._refusals import refuse
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    FILE,
    Entry,
    Judging,
    canonical,
    differences,
    from_record,
)

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_TAR = slice(257, 262)

# Gives an archive's bytes from their beginning, as tar wrote them, each time it is called.
Opener = t.Callable[[], t.ContextManager[t.IO[bytes]]]


@dataclass(frozen=True)
class Record:
    """What was recorded of an archive when it was made.

    Attributes:
        sha256: of the stream of tar.
        size: of the stream of tar, in bytes.
        artefact: `bytes` and `sha256` of the file; None where they aren't recorded.
    """

    entries: tuple[Entry, ...]
    sha256: str
    size: int
    artefact: t.Mapping[str, t.Any] | None = None

    @property
    def limits(self) -> Limits:
        files = sum(entry.size for entry in self.entries if entry.kind == FILE)
        return Limits(max(self.size, files), len(self.entries))


@dataclass(frozen=True)
class Contents:
    """What a whole read of an archive found; `sparse` are the names of files with holes."""

    entries: tuple[Entry, ...]
    sha256: str
    size: int
    sparse: frozenset[bytes] = frozenset()


def wrapper_of(stored: Stored) -> str:
    """`zstd`, `gzip`, or nothing, by the first bytes; a name decides nothing.

    Raises:
        BackupError: it can't be read.
        Damaged: it is no archive.
    """
    path = stored.files[0]
    try:
        with stored.opened() as stream:
            head = stream.read(512)
    except OSError as exc:
        raise BackupError(f"archive: {path}: {exc.strerror}", hint="Name an archive that this user can read.") from exc
    for magic, wrapper in _MAGIC.items():
        if head.startswith(magic):
            return wrapper
    if head[_TAR] == b"ustar":
        return ""
    raise Damaged(
        f"archive: {path}: not a tar archive, neither plain nor in zstd or gzip{'' if head else ' (empty file)'}",
        hint="Name a file that files_backup or tar has made.",
    )


def opener(stored: Stored, runtime: Runtime) -> Opener:
    """How to get at an archive's stream of tar."""
    archive = Archive(stored.files[0], "tar", wrapper_of(stored), stored)
    return lambda: _opened(archive, runtime)


@contextlib.contextmanager
def _opened(archive: Archive, runtime: Runtime) -> t.Iterator[t.IO[bytes]]:
    if archive.wrapper == "gzip":
        with gzip.open(archive.path, "rb") as unzipped:
            yield t.cast("t.IO[bytes]", _Unzipped(t.cast("t.IO[bytes]", unzipped)))
        return
    try:
        with opened(archive, runtime) as stream:
            yield stream
    except Damaged as exc:
        if exc.msg.startswith("archive: "):
            raise
        raise Damaged(f"archive: {exc.msg}", hint="Take another copy of it.", details=exc.details) from exc


class _Unzipped:
    """gzip's errors are told where they are met: what the reader does meanwhile can fail for reasons of its own."""

    def __init__(self, stream: t.IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, OSError, zlib.error) as exc:
            raise Damaged(f"archive: gzip: {exc}", hint="Take another copy of it.") from exc


def read_contents(source: Opener, limits: Limits, *, contents: bool = True) -> Contents:
    """Read a whole archive into nothing.

    Args:
        contents: hash what the files hold; False lists them.
    Raises:
        Damaged, Unsafe: see TarReader.
    """
    entries, sparse = [], set()
    with source() as stream:
        reader = TarReader(stream, limits)
        for member in reader.members():
            entry = member.entry
            if entry.kind == FILE and contents:
                digest = hashlib.sha256()
                for piece in member.pieces():
                    digest.update(piece)
                entry = dataclasses.replace(entry, sha256=digest.hexdigest())
            entries.append(entry)
            if member.sparse:
                sparse.add(entry.name)
    if not entries:
        raise Damaged("archive: nothing is in it", hint="An archive of nothing proves nothing.")
    return Contents(tuple(entries), reader.sha256, reader.size, frozenset(sparse))


def check_archive(
    source: Opener, limits: Limits, *, record: Record | None = None, allowed: t.Collection[str] = ()
) -> Contents:
    """Read a whole archive and find nothing wrong with it.

    Args:
        record: what has to be in it, and nothing else.
        allowed: words of ALLOWANCES.
    Raises:
        Damaged: it is broken, or isn't what is recorded.
        Unsafe: it must not be unpacked.
    """
    contents = read_contents(source, limits)
    recorded = {entry.name: entry for entry in record.entries} if record else {}
    refuse(contents.entries, allowed=allowed, recorded=recorded)
    if record is not None and (wrong := against_record(contents, record)):
        raise Damaged(
            f"archive: it isn't what was recorded when it was made: {wrong[0]}", hint="Take another copy of it."
        )
    return contents


def against_record(contents: Contents, record: Record) -> list[str]:
    """In what a whole read differs from the record."""
    wrong = [
        str(difference) for difference in differences(canonical(record.entries), canonical(contents.entries), Judging())
    ]
    if not wrong and contents.sha256 != record.sha256:
        wrong.append("its bytes")
    return wrong


def load_record(path: str, archive: str, component: str = "") -> Record:
    """What a report, or a set's private manifest, says of an archive.

    Args:
        path: the report that files_backup wrote, or `manifest.private.json`.
        archive: the archive's path; where several are recorded, its name tells which it is.
        component: whose part of a private manifest is meant.
    Raises:
        BackupError: the file isn't such a report, or says nothing of this archive.
    """
    report = read_json(path)
    private = report.get("private") if isinstance(report, dict) else None
    if private is None and isinstance(report, dict):
        private = report.get(component)
    archives = private.get("archives") if isinstance(private, dict) else None
    if not isinstance(archives, dict) or not archives:
        raise BackupError(
            f"report: {path}: no archive is recorded in it", hint="Name the report of files_backup, and the component."
        )
    wanted = os.path.basename(archive)
    # An encrypted copy has the same name with something behind it.
    found = [name for name in archives if os.path.basename(name) == wanted] or list(archives)
    if len(found) > 1:
        raise BackupError(
            f"report: {path}: {wanted} isn't among the recorded: {', '.join(sorted(map(os.path.basename, found)))}",
            hint="Give the archive the name that it was recorded by.",
        )
    artefacts = report.get("artefacts") or ()
    return record_from(archives[found[0]], next((entry for entry in artefacts if entry["path"] == found[0]), None))


def record_from(facts: t.Mapping[str, t.Any], artefact: t.Mapping[str, t.Any] | None) -> Record:
    """A Record from what a report has under `private.archives`."""
    try:
        entries = tuple(from_record(entry) for entry in facts["entries"])
        return Record(entries, str(facts["sha256_plaintext"]), int(facts["bytes_plaintext"]), artefact)
    except (KeyError, TypeError, ValueError) as exc:
        raise BackupError(
            f"report: what it says of the archive isn't whole: {exc}",
            hint="The report is damaged: take another copy of it.",
        ) from exc
