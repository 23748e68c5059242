# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Why an archive may not be unpacked. Pure: nothing is touched."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._names import parents, shown, tidy
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    CAPABILITY,
    FILE,
    FOLDER,
    HARDLINK,
    KEPT,
    SYMLINK,
    Entry,
)

ALLOWANCES = ("privileges", "outside_links")
_SET_ID = 0o6000
_MOST_LINKS = 40


def refuse(
    entries: t.Sequence[Entry],
    *,
    allowed: t.Collection[str] = (),
    recorded: t.Mapping[bytes, Entry] | None = None,
) -> None:
    """Raise unless every entry can be unpacked, and all of them below one folder.

    Args:
        entries: in the archive's order, names tidy.
        allowed: words of ALLOWANCES.
        recorded: what a record that is trusted says of the archive; what it says is there is allowed to be.
    Raises:
        Unsafe: with up to three of the reasons.
    """
    wrong = [*_shape(entries), *_links(entries, allowed, recorded or {}), *_rights(entries, allowed, recorded or {})]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Unsafe(
            f"archive: {'; '.join(wrong[:3])}{more}",
            hint="Nothing was unpacked. If you know who made it and why, see the parameters allow and report.",
        )


def _shape(entries: t.Sequence[Entry]) -> t.Iterator[str]:
    kinds: dict[bytes, str] = {}
    for entry in entries:
        if entry.kind not in KEPT:
            yield f"{entry.shown}: a {entry.kind}"
        if entry.name in kinds:
            yield f"{entry.shown}: it is there twice"
        kinds[entry.name] = entry.kind
    for entry in entries:
        if not entry.name and entry.kind != FOLDER:
            yield f"{entry.shown}: a {entry.kind} in the place of the target itself"
        for above in parents(entry.name):
            if kinds.get(above, FOLDER) != FOLDER:
                yield f"{entry.shown}: it lies below {shown(above)}, which is a {kinds[above]}"


def _links(
    entries: t.Sequence[Entry], allowed: t.Collection[str], recorded: t.Mapping[bytes, Entry]
) -> t.Iterator[str]:
    symlinks = {entry.name: entry.target for entry in entries if entry.kind == SYMLINK}
    files: set[bytes] = set()
    for entry in entries:
        if entry.kind == FILE:
            files.add(entry.name)
        elif entry.kind == HARDLINK and entry.target not in files:
            yield f"{entry.shown}: another name of {shown(entry.target) or '.'}, which is no file before it"
        elif entry.kind == SYMLINK and "outside_links" not in allowed:
            known = recorded.get(entry.name)
            if (known is None or known.target != entry.target) and leads_outside(entry.name, symlinks):
                yield f"{entry.shown}: it leads outside the target, to {shown(entry.target)}"


def leads_outside(name: bytes, symlinks: t.Mapping[bytes, bytes]) -> bool:
    """Whether a symlink of a tree leads out of it, over other symlinks of the tree too; one in a circle does."""
    waiting = name.split(b"/")
    place: list[bytes] = []
    followed = 0
    while waiting:
        part = waiting.pop(0)
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not place:
                return True
            place.pop()
            continue
        place.append(part)
        target = symlinks.get(b"/".join(place))
        if target is not None:
            followed += 1
            if target.startswith(b"/") or followed > _MOST_LINKS:
                return True
            place.pop()
            waiting = target.split(b"/") + waiting
    return False


def _rights(
    entries: t.Sequence[Entry], allowed: t.Collection[str], recorded: t.Mapping[bytes, Entry]
) -> t.Iterator[str]:
    if "privileges" in allowed:
        return
    for entry in entries:
        known = recorded.get(entry.name, Entry(entry.name, FILE))
        more = entry.mode & _SET_ID & ~known.mode
        if more and entry.kind != SYMLINK:
            yield f"{entry.shown}: mode {entry.mode:04o} (set-{'uid' if more & 0o4000 else 'gid'})"
        if CAPABILITY in entry.xattrs and entry.xattrs[CAPABILITY] != known.xattrs.get(CAPABILITY):
            yield f"{entry.shown}: it has capabilities"


def part_of(entries: t.Sequence[Entry], part: str) -> list[Entry]:
    """What lies in the folder `part` of an archive, as if this were the whole.

    Raises:
        BackupError: nothing does, or one of them is another name of a file that doesn't.
    """
    try:
        top = tidy(part.encode("utf-8", "surrogateescape"))
    except ValueError as exc:
        raise BackupError(f"part: {part}: {exc}", hint="Name a folder as the archive has it.") from exc
    if not top:
        return list(entries)
    found = []
    for entry in entries:
        if entry.name != top and not entry.name.startswith(top + b"/"):
            continue
        target = entry.target
        if entry.kind == HARDLINK:
            if not target.startswith(top + b"/"):
                raise BackupError(
                    f"part: {part}: {entry.shown} is another name of {shown(target)}, which lies outside this part",
                    hint="Restore the whole archive to a new folder, and take from there what you need.",
                )
            target = target[len(top) + 1 :]
        if entry.name == top and entry.kind != FOLDER:
            raise BackupError(f"part: {part}: a {entry.kind}", hint="Name a folder as the archive has it.")
        found.append(dataclasses.replace(entry, name=entry.name[len(top) + 1 :], target=target))
    if not found:
        raise BackupError(f"part: {part}: not in the archive", hint="Name a folder as the archive has it.")
    return found
