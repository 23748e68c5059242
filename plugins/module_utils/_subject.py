# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""From what an operator names (a set's id, `latest`, a file) to what can be proven or restored."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet, resolve
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of, opened_key
from ansible_collections.mazevault.backup.plugins.module_utils._set_proof import ArchiveSubject, SetSubject
from ansible_collections.mazevault.backup.plugins.module_utils._staging import COMPONENTS, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored, files_of
from ansible_collections.mazevault.backup.plugins.module_utils._sums import check_sums
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Subject

_CLOSED = "encrypted: without this set's key, or an identity, only its bytes can be looked at"


def is_path(wanted: str) -> bool:
    """A name with a slash is a file's path; ids and `latest` have none."""
    return "/" in wanted


def subject_of_path(path: str) -> Subject:
    if not os.path.lexists(path):
        raise BackupError(f"set: {path}: no such file", hint="Name a set's id, latest, or the path of a dump.")
    return Subject(path)


def set_of_staging(staging: Staging, wanted: t.Sequence[str] = ()) -> SetSubject:
    """What an open set has so far, with the keys that its run still holds.

    Args:
        wanted: components; nothing means all that are there.
    """
    reports = {name: read_json(staging.report_path(name)) for name in COMPONENTS if _reported(staging, name)}
    chosen = _chosen(staging.name, sorted(reports), wanted)
    archives: list[ArchiveSubject] = []
    database = None
    for name in chosen:
        report = reports[name]
        if name == "postgres":
            private, public, key = report["private"], report["public"], key_of(staging, "data")
            database = _recorded(staging.set_path, report["artefacts"], private, public, None, key)
            continue
        facts = report["private"]["archives"]
        for entry in report["artefacts"]:
            stored = _stored(staging.set_path, entry, key_of(staging, entry["class"]))
            archives.append(ArchiveSubject(stored, entry, facts.get(entry["path"])))
    return SetSubject(chosen, database, tuple(archives))


def set_of_published(found: RecoverySet, key: SetKey | None, *, sums: bool, wanted: t.Sequence[str] = ()) -> SetSubject:
    """A published set, or some of its components.

    Args:
        key: of class data; None: the set is in plain. What it can't open is looked at from outside.
        sums: check the set's own SHA256SUMS too.
    """
    chosen = _chosen(found.set_id, list(found.manifest["components"]), wanted)
    problems = tuple(check_sums(found.path)) if sums else None
    proof = found.manifest["verification"]
    before = str(proof["level"]) if proof["verdict"] != FAIL else ""
    closed = key is not None and not key.is_open
    private: t.Mapping[str, t.Any] = {} if closed else found.private(key)
    database = None
    if "postgres" in chosen:
        database = _locked(found, problems, before) if closed else _database(found, private, key, problems)
    archives: list[ArchiveSubject] = []
    for entry in found.manifest["artefacts"]:
        name = entry["component"]
        if name not in chosen or name == "postgres":
            continue
        mine = key if entry["class"] == "data" else None
        locked = _CLOSED if closed else ""
        if entry["class"] == "keys" and key is not None:
            locked = "class keys: only who may open key material can look into it"
        facts = (private.get(name) or {}).get("archives", {}).get(entry["path"])
        archives.append(ArchiveSubject(_stored(found.path, entry, mine), entry, facts, locked, before))
    return SetSubject(chosen, database, tuple(archives), problems)


def subject_of_set(found: RecoverySet, key: SetKey | None, *, sums: bool) -> Subject:
    """A published set's database.

    Args:
        key: of class data, with its private half; None: the set is in plain.
        sums: check the set's own SHA256SUMS too.
    """
    if "postgres" not in found.manifest:
        raise BackupError(f"set: {found.set_id}: it holds no database", hint="Name another set.")
    return _database(found, found.private(key), key, tuple(check_sums(found.path)) if sums else None)


def _database(
    found: RecoverySet, private: t.Mapping[str, t.Any], key: SetKey | None, problems: tuple[str, ...] | None
) -> Subject:
    if "postgres" not in found.manifest or "postgres" not in private:
        raise BackupError(f"set: {found.set_id}: it holds no database", hint="Name another set.")
    artefacts = [entry for entry in found.manifest["artefacts"] if entry["component"] == "postgres"]
    return _recorded(found.path, artefacts, private["postgres"], found.manifest["postgres"], problems, key)


def published_key(found: RecoverySet, params: t.Mapping[str, t.Any]) -> SetKey | None:
    """The key of class data that a module's options `set_key_file` and `identity_file` bring."""
    brought = {name: params[name] or "" for name in ("set_key_file", "identity_file")}
    return opened_key(found.path, found.scheme, "data", records=found.records_path, **brought)


def _locked(found: RecoverySet, problems: tuple[str, ...] | None, before: str) -> Subject:
    """The database of a published set whose key isn't here."""
    artefacts = tuple(entry for entry in found.manifest["artefacts"] if entry["component"] == "postgres")
    return Subject(found.path, found.path, artefacts, problems, locked=_CLOSED, proven_before=before)


def _reported(staging: Staging, component: str) -> bool:
    return os.path.isfile(staging.report_path(component))


def _chosen(set_id: str, there: t.Sequence[str], wanted: t.Sequence[str]) -> tuple[str, ...]:
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise BackupError(
            f"components: {', '.join(missing)}: not in {set_id}",
            hint=f"It has {', '.join(there) or 'none so far'}; leave components out to prove all of them.",
        )
    if not there:
        raise BackupError(f"set: {set_id}: it has no component yet", hint="Back up a component first.")
    return tuple(wanted) or tuple(there)


def _stored(folder: str, entry: t.Mapping[str, t.Any], key: SetKey | None) -> Stored:
    for relative in (entry["path"], *files_of(entry)):
        _stay_inside(folder, relative)
    return Stored(tuple(os.path.join(folder, name) for name in files_of(entry)), key)


def _stay_inside(folder: str, relative: str) -> None:
    if not os.path.normpath(os.path.join(folder, relative)).startswith(folder + os.sep):
        raise BackupError(
            f"manifest: {relative}: leads out of the set", hint="The set was tampered with: choose another one."
        )


def find_set(root: str | None, wanted: str, trust: Trust, *, component: str = "") -> RecoverySet:
    if not wanted:
        raise BackupError("set: empty", hint="Name a set's id, latest, or the path of a dump.")
    if not root:
        raise BackupError("backup_root: missing", hint="Give the folder of all sets, or the path of a dump in set.")
    return resolve(root, wanted, trust, component=component)


def _recorded(
    folder: str,
    artefacts: t.Sequence[t.Mapping[str, t.Any]],
    private: t.Mapping[str, t.Any],
    public: t.Mapping[str, t.Any],
    sums: tuple[str, ...] | None,
    key: SetKey | None,
) -> Subject:
    files = [name for entry in artefacts for name in (entry["path"], *files_of(entry))]
    for relative in (private["dump_path"], *files):
        _stay_inside(folder, relative)
    return Subject(os.path.join(folder, private["dump_path"]), folder, tuple(artefacts), sums, private, public, key)
