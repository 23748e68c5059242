# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Unpacking an archive that was looked through before into an empty folder that nobody else can enter."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits, Member, TarReader
from ansible_collections.mazevault.backup.plugins.module_utils._names import parents
from ansible_collections.mazevault.backup.plugins.module_utils._refusals import part_of
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import Contents, Opener
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    ACL,
    DEFAULT_ACL,
    FILE,
    FOLDER,
    HARDLINK,
    SYMLINK,
    Difference,
    Entry,
    Judging,
    canonical,
    differences,
    read_tree,
)

_HOLE = 1 << 16
# A file system without them, or an account that may not: told to the operator, and no reason to stay without the data.
_CANT = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS)


class Unpacker:
    """Fills a folder; what it couldn't keep of the attributes is in `without` afterwards.

    Args:
        top: an empty folder, made for this.
        part: the archive's folder that is unpacked; empty for all.
    """

    def __init__(self, top: str, part: str = "") -> None:
        self._top, self._part = os.fsencode(top), part
        self._root = os.geteuid() == 0
        self.without: dict[bytes, set[str]] = {}

    def unpack(self, source: Opener, checked: Contents, limits: Limits) -> list[Entry]:
        """Unpack what was checked, and nothing else.

        Returns:
            what is there now, as it is wanted.
        Raises:
            Damaged: the archive isn't the one any more that was checked.
        """
        chosen = part_of(checked.entries, self._part)
        prefix = part_prefix(self._part)
        self.folders(chosen)
        self.fill(source, checked, limits, {b"/".join(filter(None, (prefix, one.name))): one for one in chosen})
        self.finish(chosen)
        return chosen

    def fill(self, source: Opener, checked: Contents, limits: Limits, wanted: t.Mapping[bytes, Entry]) -> None:
        """Unpack what isn't a folder; their folders are there.

        Args:
            wanted: by the name in the archive, what is to be made of it; the rest is left out.
        Raises:
            Damaged: the archive isn't the one any more that was checked.
        """
        with source() as stream:
            reader = TarReader(stream, limits)
            expected = iter(checked.entries)
            for member in reader.members():
                before = next(expected, None)
                if before is None or dataclasses.replace(before, sha256="") != member.entry:
                    raise _changed(member.entry.shown)
                entry = wanted.get(before.name)
                if entry is not None:
                    self._one(entry, member)
            if next(expected, None) is not None or reader.sha256 != checked.sha256:
                raise _changed("its end")

    def finish(self, entries: t.Iterable[Entry]) -> None:
        """Folders get their attributes when nothing comes into them any more."""
        for entry in sorted(entries, key=lambda found: found.name, reverse=True):
            if entry.kind == FOLDER:
                self._attributes(self._path(entry.name), entry)

    def compare(self, wanted: t.Iterable[Entry]) -> list[Difference]:
        """In what the folder isn't as it is wanted."""
        judging = Judging(owners=self._root, without=self.without)
        return _compare(canonical(wanted), read_tree(self._top), judging)

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self._top, name) if name else self._top

    def folders(self, entries: t.Collection[Entry]) -> None:
        """All of them first, closed to others until their attributes come, last."""
        names = {entry.name for entry in entries if entry.kind == FOLDER}
        known = {entry.name: entry for entry in entries}
        missing = set(implied(known))
        for name in sorted((names | missing) - {b""}):
            os.mkdir(self._path(name), 0o755 if name in missing else 0o700)
            if name in missing:
                os.chmod(self._path(name), 0o755)
        if b"" not in names:
            os.chmod(self._top, 0o755)

    def _one(self, entry: Entry, member: Member) -> None:
        path = self._path(entry.name)
        if entry.kind == FILE:
            self._file(path, entry, member)
        elif entry.kind == SYMLINK:
            os.symlink(entry.target, path)
            self._attributes(path, entry)
        elif entry.kind == HARDLINK:
            os.link(self._path(entry.target), path, follow_symlinks=False)

    def _file(self, path: bytes, entry: Entry, member: Member) -> None:
        digest = hashlib.sha256()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for piece in member.pieces():
                digest.update(piece)
                (_write_around_holes if member.sparse else _write)(fd, piece)
            if member.sparse:
                os.ftruncate(fd, entry.size)
            if digest.hexdigest() != entry.sha256:
                raise _changed(entry.shown)
            self._attributes(path, entry)
        finally:
            os.close(fd)

    def _attributes(self, path: bytes, entry: Entry) -> None:
        if without := set_attributes(path, entry):
            self.without[entry.name] = without


def set_attributes(place: bytes | int, entry: Entry) -> set[str]:
    """Owner, mode, ACLs, extended attributes and times of a path (links aren't followed) or an open folder.

    Owner first, as changing it takes set-uid bits away; times last, as everything changes them.

    Returns:
        names of the extended attributes that can't be kept here.
    """
    here: dict[str, t.Any] = {} if isinstance(place, int) else {"follow_symlinks": False}
    without = set()
    if os.geteuid() == 0:
        os.chown(place, entry.uid, entry.gid, **here)
    acls = {name: value for name, value in entry.xattrs.items() if name in (ACL, DEFAULT_ACL)}
    for name, value in entry.xattrs.items():
        if name in acls:
            continue
        try:
            os.setxattr(place, name, value, **here)
        except OSError as exc:
            if exc.errno not in _CANT:
                raise
            without.add(name)
    if entry.kind != SYMLINK:
        os.chmod(place, entry.mode)
    for name, value in acls.items():
        # Without it others than it says could have rights here: that is no loss to pass over.
        os.setxattr(place, name, value, **here)
    os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), **here)
    return without


def difference_from(
    target: str,
    wanted: t.Iterable[Entry],
    *,
    merge: bool,
    without: t.Mapping[bytes, t.AbstractSet[str]] | None = None,
) -> list[Difference]:
    """In what an existing folder isn't as it is wanted.

    Args:
        merge: only what is wanted counts; folders have times of their own.
        without: extended attributes that can't be set here, by name.
    """
    expected, top = canonical(wanted), os.fsencode(target)
    judging = Judging(owners=os.geteuid() == 0, folder_times=not merge, extras=not merge, without=without or {})
    found = read_tree(top, {*expected, *implied(expected)} if merge else None)
    for name in implied(expected) if merge else ():
        if name in found and found[name].kind != FOLDER:
            raise BackupError(
                f"target: {target}: {found[name].shown}: a {found[name].kind}, and a folder in the archive's names",
                hint="The archive doesn't say what folder has to be there. Move it away, or restore to a new folder.",
            )
    return _compare(expected, found, judging)


def _compare(expected: dict[bytes, Entry], found: t.Mapping[bytes, Entry], judging: Judging) -> list[Difference]:
    for name in implied(expected):
        # Folders that the archive has only in the names of others have no attributes to compare.
        expected[name] = found.get(name, Entry(name, FOLDER))
    return differences(expected, found, judging)


def space_for(checked: Contents, part: str) -> int:
    """Bytes that the unpacked files will take on the disk, about."""
    prefix = part_prefix(part)
    chosen = [entry for entry in checked.entries if not prefix or entry.name.startswith(prefix + b"/")]
    return sum(4096 + (0 if entry.name in checked.sparse else entry.size) for entry in chosen)


def part_prefix(part: str) -> bytes:
    return b"/".join(piece for piece in os.fsencode(part).split(b"/") if piece not in (b"", b"."))


def implied(entries: t.Mapping[bytes, Entry]) -> list[bytes]:
    """Folders that an archive doesn't hold, though what lies in them; the tree's own among them."""
    above = {folder for name in entries for folder in parents(name)}
    return sorted((above | {b""}) - entries.keys())


def _changed(what: str) -> Damaged:
    return Damaged(
        f"archive: {what}: not what it was a moment ago", hint="Somebody changed the archive meanwhile: run again."
    )


def _write(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _write_around_holes(fd: int, piece: bytes) -> None:
    for start in range(0, len(piece), _HOLE):
        block = piece[start : start + _HOLE]
        if block.count(0) == len(block):
            os.lseek(fd, len(block), os.SEEK_CUR)
        else:
            _write(fd, block)
