# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Several archives as one tree, the later over the earlier, and which part of it belongs in which folder of a host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    existing_parent,
    private_folder,
    require_space,
)
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._names import parents, shown
from ansible_collections.mazevault.backup.plugins.module_utils._put_back import Workplace
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import Contents, Opener
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    FOLDER,
    HARDLINK,
    Difference,
    Entry,
    canonical,
)
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import Unpacker, difference_from, implied


@dataclass(frozen=True)
class Layer:
    """An archive that was checked."""

    source: Opener
    checked: Contents
    limits: Limits


@dataclass(frozen=True)
class Overlay:
    """What several archives come to.

    Attributes:
        layers: the later one wins.
        entries: by name, each from the layer that `origin` has for it.
    """

    layers: tuple[Layer, ...]
    entries: t.Mapping[bytes, Entry]
    origin: t.Mapping[bytes, int]


def overlay(layers: t.Sequence[Layer], *, without: t.Collection[bytes] = ()) -> Overlay:
    """One tree of several archives.

    Args:
        without: names that are left out.
    Raises:
        BackupError: a name of one archive can't be beside that of another one.
    """
    entries: dict[bytes, Entry] = {}
    origin: dict[bytes, int] = {}
    for number, layer in enumerate(layers):
        for entry in layer.checked.entries:
            former = entries.get(entry.name)
            if entry.name in without or (former is not None and former.kind == entry.kind == FOLDER):
                continue
            if former is not None and FOLDER in (former.kind, entry.kind):
                raise _unclear(entry.name, f"a {former.kind} in one archive and a {entry.kind} in another")
            entries[entry.name], origin[entry.name] = entry, number
    for name, entry in entries.items():
        if entry.kind == HARDLINK and origin.get(entry.target) != origin[name]:
            raise _unclear(name, f"another name of {shown(entry.target)}, which comes from elsewhere")
        for above in parents(name):
            if above in entries and entries[above].kind != FOLDER:
                raise _unclear(above, "it is no folder, and others lie below it")
    return Overlay(tuple(layers), entries, origin)


def _unclear(name: bytes, why: str) -> BackupError:
    return BackupError(
        f"set: {shown(name)}: {why}", hint="Restore the archives one by one to new folders (files_restore)."
    )


@dataclass(frozen=True)
class Portion:
    """What of a tree comes to lie in one folder.

    Attributes:
        target: the folder.
        wanted: by the name in the archives, the entry as it is called in the folder.
    """

    target: str
    wanted: t.Mapping[bytes, Entry]

    @property
    def entries(self) -> list[Entry]:
        return list(self.wanted.values())


def whole(found: Overlay, target: str) -> Portion:
    """All of it in one folder, under the names that the archives have."""
    return Portion(target, dict(found.entries))


def portions(found: Overlay, places: t.Mapping[bytes, str]) -> list[Portion]:
    """All of it where it was taken from.

    What no place is given for lies where its name says, seen from the root folder.

    Args:
        places: by name in the archives, the folder of this host that this is.
    Raises:
        BackupError: the names of one file would come to lie in folders that are moved apart.
    """
    roots = {name: os.path.realpath(path) for name, path in places.items()}
    for name, entry in sorted(found.entries.items()):
        if _root_of(name, roots) is None:
            top = name if entry.kind == FOLDER else os.path.dirname(name)
            roots[top] = os.path.realpath(b"/" + top).decode("utf-8", "surrogateescape")
    folders = {name for name, entry in found.entries.items() if entry.kind == FOLDER} | set(implied(found.entries))
    for name in sorted(folders - roots.keys()):
        root = _root_of(name, roots)
        if root is not None:
            path = os.path.join(roots[root], os.fsdecode(name[len(root) :].lstrip(b"/")))
            # Nothing can be renamed from one file system to another.
            if os.path.ismount(path):
                roots[name] = path
    parts: dict[bytes, dict[bytes, Entry]] = {}
    for name, entry in found.entries.items():
        root = t.cast(bytes, _root_of(name, roots))
        target = entry.target
        if entry.kind == HARDLINK:
            if _root_of(target, roots) != root:
                raise _unclear(name, f"another name of {shown(target)}, which lies in another place")
            target = target[len(root) :].lstrip(b"/")
        inside = dataclasses.replace(entry, name=name[len(root) :].lstrip(b"/"), target=target)
        parts.setdefault(root, {})[name] = inside
    for root in parts:
        if roots[root] == "/":
            raise BackupError(
                "places: /: nothing is put into the root folder itself",
                hint="Restore to a folder beside, and move the files from there.",
            )
    return [Portion(roots[root], wanted) for root, wanted in sorted(parts.items())]


def _root_of(name: bytes, roots: t.Collection[bytes]) -> bytes | None:
    """The innermost of the places that a name lies in."""
    inside = [root for root in roots if name == root or name.startswith(root + b"/") or not root]
    return max(inside, key=len, default=None)


class Putting:
    """One portion on its way to its folder.

    Args:
        merge: what else is in the folder stays.
        mode: of folders above it that have to be made.
    """

    def __init__(self, found: Overlay, portion: Portion, stamp: str, *, merge: bool, mode: int) -> None:
        self._found, self._portion, self._mode = found, portion, mode
        self._merge = merge and os.path.isdir(portion.target)
        self.place = Workplace(portion.target, stamp)
        self.wrong: list[Difference] = []
        self.action = "none"

    @property
    def target(self) -> str:
        return self._portion.target

    @property
    def _above(self) -> str:
        return self.target if self.place.inside else os.path.dirname(self.target)

    def look(self) -> None:
        """In what the folder isn't as it is wanted, and what is to be done about it.

        Raises:
            BackupError: nothing can be put there.
        """
        if os.path.isdir(self._above):
            self.place.check()
        else:
            private_folder(existing_parent(self._above), parameter="target")
        entries = self._portion.entries
        if not os.path.isdir(self.target):
            if os.path.lexists(self.target):
                raise BackupError(
                    f"target: {self.target}: there, and no folder", hint="Move it away, or name another place."
                )
            self.wrong = [Difference(name, "missing") for name in canonical(entries)]
            self.action = "created"
            return
        self.wrong = difference_from(self.target, entries, merge=self._merge)
        there = self.place.occupied()
        changed = ("merged" if self._merge else "replaced") if there else "created"
        self.action = changed if self.wrong else "none"
        if self.action != "none" and self.place.inside and not self._merge:
            raise BackupError(
                f"target: {self.target}: a mount point, which can't be replaced",
                hint="Restore to a folder of its own.",
            )

    def described(self) -> dict[str, t.Any]:
        return {
            "target": self.target,
            "action": self.action,
            "kept": self.place.kept or None,
            "entries": len(self._portion.entries),
            "different": len(self.wrong),
        }

    def leftovers(self) -> list[str]:
        return self.place.leftovers()

    def tidy(self) -> None:
        """Remove what a killed run left, where nothing else is to be done."""
        if self.leftovers():
            with self.place.locked():
                self.place.clean()

    def require_space(self, reserve: int | None) -> None:
        """Refuse before anything is touched where the unpacked files don't fit."""
        sparse = {name for layer in self._found.layers for name in layer.checked.sparse}
        sizes = ((name, entry.size) for name, entry in self._portion.wanted.items())
        needed = sum(4096 + (0 if name in sparse else size) for name, size in sizes)
        require_space(self._above, needed, parameter="target", what="the unpacked archive", reserve=reserve)

    def put(self, progress: Progress) -> dict[str, t.Any]:
        """Do it; what a killed run left goes first.

        Returns:
            `kept`, and `without`: how many entries lack which extended attribute.
        """
        _make_folders(self._above, self._mode)
        with self.place.locked():
            self.place.clean()
            self.look()
            if self.action == "none":
                return {"kept": None, "without": {}}
            if not os.path.isdir(self.target) and not self._merge:
                # The tree takes over what the folder that it comes to be has of modes and owners.
                os.mkdir(self.target, self._mode)
                os.chmod(self.target, self._mode)
            unpacker = Unpacker(self.place.tree)
            return self.place.put(
                unpacker, lambda: self._unpack(unpacker), progress, self.wrong if self._merge else None
            )

    def _unpack(self, unpacker: Unpacker) -> list[Entry]:
        entries = self._portion.entries
        unpacker.folders(entries)
        for number, layer in enumerate(self._found.layers):
            mine = {name: one for name, one in self._portion.wanted.items() if self._found.origin[name] == number}
            if mine:
                unpacker.fill(layer.source, layer.checked, layer.limits, mine)
        unpacker.finish(entries)
        return entries


def _make_folders(path: str, mode: int) -> None:
    """Make a folder and those above it, whatever the umask; those that are there stay as they are."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)
