# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Removing sets so that a crash at any point leaves whole sets only, and nobody mistakes it for an attack.

A signed record says that a set goes; then one rename takes it out of `sets/`; then a signed record says that it is
gone; then its bytes go. What a dead run left, the next one finishes; what no signed record tells of, nobody touches.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _pins, _records
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Busy
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path, remove_tree, tree_files
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import ID, RecoverySet, Shelf
from ansible_collections.mazevault.backup.plugins.module_utils._retention import Candidate
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging, locked
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS, read_sums
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust


def retention_lock(root: str) -> t.ContextManager[None]:
    """Held by whoever removes, pins or holds sets."""
    return locked(os.path.join(root, ".retention.lock"))


def candidate_of(found: RecoverySet, shelf: Shelf) -> Candidate:
    """A set as retention sees it."""
    manifest, judged, records = found.manifest, shelf.judge(found), shelf.records(found)
    postgres = manifest.get("postgres") or {}
    sizes: dict[str, int] = {}
    for artefact in manifest["artefacts"]:
        name = str(artefact.get("component"))
        sizes[name] = sizes.get(name, 0) + int(artefact["bytes"])
    images = sorted(str(image.get("digest")) for image in manifest.get("images") or ())
    alike = (
        tuple(sorted(manifest["components"])),
        *(postgres.get(name) for name in ("schema_version", "format", "compression", "server_version")),
        *images,
    )
    return Candidate(
        found.set_id,
        int(manifest["sequence"]),
        _clock.parse(manifest["recovery_point"]).timestamp(),
        tuple(map(str, manifest["components"])),
        genuine=judged["genuine"],
        doubts=tuple(judged["doubts"]),
        verdict=judged["verdict"],
        level=judged["level"],
        proven_at=_seconds(judged["at"]),
        alike=alike,
        sizes=sizes,
        rows=postgres.get("rows"),
        certificates=tuple(
            (str(one.get("sha256")), _seconds(one.get("not_after"))) for one in manifest.get("certificates") or ()
        ),
        pins=tuple(_pins.pins_of(manifest, records, _clock.now())),
        accepted=_pins.accepted(records),
    )


def _seconds(text: t.Any) -> float | None:
    try:
        return _clock.parse(str(text)).timestamp()
    except ValueError:
        return None


def strangers(found: RecoverySet) -> list[str]:
    """Why a set isn't only what was published: a link, or files that somebody laid into it."""
    if os.path.islink(found.path):
        return ["it is a link"]
    try:
        listed = read_sums(found.path)
        extra = [name for name in tree_files(found.path) if name not in listed and not name.startswith(SUMS)]
    except (OSError, ValueError) as exc:
        return [str(exc)]
    except BackupError as exc:
        return [exc.msg]
    return [f"{name} is no file of this set" for name in extra[:3]]


def refuse_busy(root: str, stale_after: float) -> None:
    """Raise while another run is at work: it may be reading a set that is to go."""
    top = os.path.join(root, "staging")
    for name in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        why = "" if name.startswith(".") else Staging(root, name).busy(stale_after)
        if why:
            raise Busy(
                f"backup_root: {root}: another run is under way: {name} ({why})",
                hint="Nothing was removed. Wait for that run, then run again.",
            )


def left_over(root: str, shelf: Shelf) -> tuple[list[str], list[str]]:
    """What lies aside: ids of sets whose removal a dead run had begun, and what nobody said would go."""
    begun: list[str] = []
    strange: list[str] = []
    top = _records.aside_of(root)
    for name in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        path = os.path.join(top, name)
        records = _records.look_at(root, name, shelf.trust, shelf.chain).counting if ID.match(name) else []
        whole = stat.S_ISDIR(os.lstat(path).st_mode)
        (begun if whole and _pins.is_leaving(records) else strange).append(name)
    return begun, strange


def finish(root: str, trust: Trust, begun: t.Iterable[str], progress: Progress) -> None:
    """Say of sets that lie aside that they are gone, then delete them."""
    for set_id in begun:
        path = os.path.join(_records.aside_of(root), set_id)
        if os.path.islink(path):
            raise BackupError(f"{path}: is a link", hint="Somebody put it there: find out who, and remove it by hand.")
        if not _pins.was_removed(_records.records_of(root, set_id, trust)):
            _records.write_record(root, set_id, _pins.REMOVED, {"by": "retention"}, trust)
        progress.step("retention: recorded")
        for number, name in enumerate(sorted(os.listdir(path)), 1):
            progress.step(f"retention: delete {number}")
            part = os.path.join(path, name)
            remove_tree(part) if os.path.isdir(part) and not os.path.islink(part) else os.unlink(part)
        os.rmdir(path)
        fsync_path(_records.aside_of(root))
        progress.step("retention: deleted")
    # What is strange to us stays, and so does its folder.
    with contextlib.suppress(OSError):
        os.rmdir(_records.aside_of(root))


def set_aside(
    root: str,
    trust: Trust,
    going: t.Mapping[str, t.Mapping[str, t.Any]],
    progress: Progress,
    *,
    stale_after: float,
) -> None:
    """Take sets out of `sets/`, each by one rename, after a signed record has said so.

    Args:
        going: what the records say, by set id.
    """
    if not going:
        return
    top = _records.aside_of(root)
    os.makedirs(top, mode=0o700, exist_ok=True)
    for set_id, facts in going.items():
        if not _pins.is_leaving(_records.records_of(root, set_id, trust)):
            progress.step("retention: intent")
            _records.write_record(root, set_id, _pins.REMOVING, facts, trust)
    progress.step("retention: all said")
    # Nobody opens a run in here, and so none begins to read what goes.
    with locked(os.path.join(root, "staging", ".lock")):
        refuse_busy(root, stale_after)
        for set_id in going:
            os.rename(os.path.join(root, "sets", set_id), os.path.join(top, set_id))
            progress.step("retention: aside")
        fsync_path(os.path.join(root, "sets"))
        fsync_path(top)
    progress.step("retention: all aside")


def take_back(shelf: Shelf, staying: t.Iterable[RecoverySet]) -> None:
    """Say of sets that a dead run was about to remove, and that stay after all, that they do."""
    for found in staying:
        if _pins.is_leaving(shelf.records(found)):
            _records.write_record(shelf.root, found.set_id, _pins.STAYING, {"by": "retention"}, shelf.trust)
