# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which files of the host go into an archive, under which names, and what has changed since."""

from __future__ import annotations

import os
import shutil
import stat
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._names import (
    Patterns,
    from_text,
    parents,
    shown,
    tidy,
    told,
)
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    FILE,
    FOLDER,
    HARDLINK,
    KEPT,
    kind_of,
    read_xattrs,
)

# Within so many seconds of its last change, another one may leave a file's times as they are.
_GRAIN = 0.02


@dataclass(frozen=True)
class Source:
    """One of the places that are saved.

    Attributes:
        path: where it is; symlinks are resolved.
        name: what it is called in the archive; empty for the archive's own folder.
        given: the path as the operator wrote it.
        like: a file whose owner, mode, times and attributes are taken; it is saved in this one's place.
    """

    path: bytes
    name: bytes
    given: str
    like: bytes = b""

    def alias_of(self, path: bytes) -> bytes:
        """The path as somebody sees it who doesn't know of symlinks."""
        return os.path.normpath(from_text(self.given)) + path[len(self.path) :]

    def name_of(self, path: bytes) -> bytes:
        below = path[len(self.path) :].lstrip(b"/")
        return b"/".join(part for part in (self.name, below) if part)


@dataclass(frozen=True)
class Item:
    """A file, folder or link that goes into the archive, as it was when it was looked at."""

    path: bytes
    name: bytes
    info: os.stat_result
    source: Source

    @property
    def kind(self) -> str:
        return kind_of(self.info.st_mode)

    @property
    def holes(self) -> bool:
        return self.kind == FILE and self.info.st_blocks * 512 < self.info.st_size


@dataclass
class Selection:
    """All of them in the order of their names, and what was left out."""

    items: list[Item] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)
    taken: float = 0.0

    @property
    def files(self) -> list[Item]:
        """Each file once, under the first of its names."""
        known: dict[tuple[int, int], Item] = {}
        for item in self.items:
            if item.kind == FILE:
                known.setdefault((item.info.st_dev, item.info.st_ino), item)
        return list(known.values())

    @property
    def bytes(self) -> int:
        return sum(item.info.st_size for item in self.files)

    @property
    def allocated(self) -> int:
        return sum(min(item.info.st_size, item.info.st_blocks * 512) for item in self.files)

    def counts(self) -> dict[str, int]:
        """As an archive counts them: another name of a file is a hard link."""
        found = {kind: sum(item.kind == kind for item in self.items) for kind in KEPT}
        files = len(self.files)
        return {**found, FILE: files, HARDLINK: found[FILE] - files}


def sources_of(paths: t.Sequence[t.Mapping[str, t.Any]]) -> list[Source]:
    """From the module's parameter.

    Raises:
        BackupError: naming the entry that is wrong.
    """
    found: list[Source] = []
    for entry in paths:
        given, like = entry["path"] or "", entry.get("like") or ""
        for option, value in (("path", given), ("like", like)):
            if (value or option == "path") and not os.path.isabs(value):
                raise BackupError(
                    f"paths: {option}: {value or 'empty'}: not an absolute path",
                    hint="Name it from the root folder on.",
                )
        path = os.path.realpath(from_text(given))
        name = entry.get("name") or os.path.normpath(like or given).lstrip("/")
        try:
            tidied = tidy(from_text(name))
        except ValueError as exc:
            raise BackupError(
                f"paths: name: {name}: {exc}", hint="Give a relative name, such as config/nginx."
            ) from exc
        if path == b"/":
            raise BackupError("paths: /: the whole host", hint="Name the folders that are to be saved.")
        if not os.path.lexists(path):
            raise BackupError(f"paths: {given}: no such file or folder", hint="Leave it out, or name another one.")
        source = Source(path, tidied, given, os.path.realpath(from_text(like)) if like else b"")
        _check_like(source)
        found.append(source)
    if not found:
        raise BackupError("paths: empty", hint="Name at least one file or folder.")
    for one in found:
        for other in found:
            if one is not other and one.path == other.path:
                raise BackupError(f"paths: {one.given}: there twice", hint="Name it once.")
            if one is not other and not one.like and not other.like and one.name == other.name:
                raise BackupError(f"paths: name: {shown(one.name)}: there twice", hint="Give each a name of its own.")
    return found


def _check_like(source: Source) -> None:
    if not source.like:
        return
    for path in (source.path, source.like):
        if not os.path.isfile(path):
            raise BackupError(
                f"paths: {shown(path)}: not a file, and like is given", hint="Only a file can take another's place."
            )


def select(sources: t.Sequence[Source], patterns: Patterns, never: t.Collection[bytes]) -> Selection:
    """Look at everything that will be saved.

    Args:
        never: folders of this run's own, which aren't saved wherever they lie.
    Raises:
        BackupError: something can't be read, or has a name that another one has too.
    """
    result = Selection()
    unreadable: list[str] = []
    taken: dict[bytes, Item] = {}
    by_path: dict[bytes, Item] = {}
    for source in sorted(sources, key=lambda found: bool(found.like)):
        for item in _below(source, patterns, never, result, unreadable):
            former = taken.get(item.name)
            if former is not None and not source.like:
                raise BackupError(
                    f"paths: name: {shown(item.name)}: {shown(former.path)} and {shown(item.path)} both have it",
                    hint="Give each path a name of its own.",
                )
            if item.path in by_path:
                raise BackupError(
                    f"paths: {source.given}: {shown(item.path)} is saved by {by_path[item.path].source.given}",
                    hint="Name only the folder above, or exclude it there.",
                )
            taken[item.name] = by_path[item.path] = item
    if unreadable:
        more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise BackupError(
            f"paths: can't be read: {'; '.join(unreadable[:3])}{more}",
            hint="Run with become, or exclude what must not be saved.",
        )
    for name in taken:
        for above in parents(name):
            if above in taken and taken[above].kind != FOLDER:
                raise BackupError(
                    f"paths: name: {shown(name)}: it would lie below {shown(above)}, which is no folder",
                    hint="Give one of them another name.",
                )
    result.items = [taken[name] for name in sorted(taken)]
    result.left_out.sort(key=lambda entry: entry["name"])
    _settle(result)
    return result


def _below(
    source: Source, patterns: Patterns, never: t.Collection[bytes], result: Selection, unreadable: list[str]
) -> t.Iterator[Item]:
    waiting = [source.path]
    while waiting:
        path = waiting.pop()
        name = source.name_of(path)
        if path in never:
            result.left_out.append({"name": told(name), "why": "made by the backup itself"})
            continue
        # What was prepared to be saved in another's place isn't meant by what leaves the other one out.
        if not source.like and (pattern := patterns.match((path, source.alias_of(path)), name)):
            result.left_out.append({"name": told(name), "why": f"excluded by {pattern}"})
            continue
        try:
            info = os.lstat(path)
            kind = kind_of(info.st_mode)
            if kind not in KEPT:
                result.left_out.append({"name": told(name), "why": kind})
                continue
            if kind == FOLDER:
                waiting += [os.path.join(path, inside) for inside in os.listdir(path)]
            elif kind == FILE:
                os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            result.vanished.append(name)
            continue
        except OSError as exc:
            unreadable.append(f"{shown(path)}: {exc.strerror}")
            continue
        yield Item(path, name, info, source)


def _settle(result: Selection) -> None:
    """Look again at what was changed just before: its times couldn't tell of another change."""
    result.taken = time.time()
    newest = max((item.info.st_ctime for item in result.items), default=0.0)
    if newest + _GRAIN <= result.taken or newest > result.taken + 1:
        return
    time.sleep(_GRAIN)
    items = []
    for item in result.items:
        if item.info.st_ctime + _GRAIN > result.taken:
            try:
                info = os.lstat(item.path)
            except FileNotFoundError:
                result.vanished.append(item.name)
                continue
            item = Item(item.path, item.name, info, item.source)
        items.append(item)
    # One that became something else is found out afterwards: it isn't what the archive says.
    result.items = items


def changed(selection: Selection) -> tuple[list[bytes], list[bytes]]:
    """Names of those that aren't any more as they were selected, and of those that are gone."""
    different, gone = [], list(selection.vanished)
    for item in selection.items:
        try:
            now = os.lstat(item.path)
        except (FileNotFoundError, NotADirectoryError):
            gone.append(item.name)
            continue
        if _state(now) != _state(item.info):
            different.append(item.name)
    return different, gone


def _state(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_dev, info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def stand_in(item: Item, folder: str, number: int) -> Item:
    """A copy of a prepared file with everything but the contents of the file that it stands for."""
    path = os.path.join(os.fsencode(folder), b"%d" % number)
    like = item.source.like
    with open(item.path, "rb") as source, open(path, "wb") as out:
        shutil.copyfileobj(source, out)
    info = os.stat(like)
    try:
        if (info.st_uid, info.st_gid) != (os.geteuid(), os.getegid()) or os.geteuid() == 0:
            os.chown(path, info.st_uid, info.st_gid)
        for name, value in read_xattrs(like).items():
            os.setxattr(path, name, value)
        os.chmod(path, stat.S_IMODE(info.st_mode))
    except OSError as exc:
        raise BackupError(
            f"paths: like: {shown(like)}: its owner or attributes can't be given to another file: {exc.strerror}",
            hint="Run with become.",
        ) from exc
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))
    return Item(path, item.name, os.lstat(path), Source(path, item.name, item.source.given))
