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
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._stored import files_of
from ansible_collections.mazevault.backup.plugins.module_utils._sums import check_sums
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Subject


def is_path(wanted: str) -> bool:
    """A name with a slash is a file's path; ids and `latest` have none."""
    return "/" in wanted


def subject_of_path(path: str) -> Subject:
    if not os.path.lexists(path):
        raise BackupError(f"set: {path}: no such file", hint="Name a set's id, latest, or the path of a dump.")
    return Subject(path)


def subject_of_staging(staging: Staging) -> Subject:
    """The database of an open set, with the key that its run still holds."""
    report = read_json(staging.report_path("postgres"))
    private, public, key = report["private"], report["public"], key_of(staging, "data")
    return _recorded(staging.set_path, report["artefacts"], private, public, None, key)


def subject_of_set(found: RecoverySet, key: SetKey | None, *, sums: bool) -> Subject:
    """A published set's database.

    Args:
        key: of class data, with its private half; None: the set is in plain.
        sums: check the set's own SHA256SUMS too.
    """
    private = found.private(key)
    if "postgres" not in found.manifest or "postgres" not in private:
        raise BackupError(f"set: {found.set_id}: it holds no database", hint="Name another set.")
    artefacts = [entry for entry in found.manifest["artefacts"] if entry["component"] == "postgres"]
    problems = tuple(check_sums(found.path)) if sums else None
    return _recorded(found.path, artefacts, private["postgres"], found.manifest["postgres"], problems, key)


def published_key(found: RecoverySet, params: t.Mapping[str, t.Any]) -> SetKey | None:
    """The key of class data that a module's options `set_key_file` and `identity_file` bring."""
    brought = {name: params[name] or "" for name in ("set_key_file", "identity_file")}
    return opened_key(found.path, found.scheme, "data", records=found.records_path, **brought)


def locked_subject(found: RecoverySet, *, sums: bool) -> Subject:
    """A published set whose key isn't here."""
    artefacts = tuple(entry for entry in found.manifest["artefacts"] if entry["component"] == "postgres")
    proof = found.manifest["verification"]
    return Subject(
        found.path,
        found.path,
        artefacts,
        tuple(check_sums(found.path)) if sums else None,
        locked="encrypted: without this set's key, or an identity, only its bytes can be looked at",
        proven_before=str(proof["level"]) if proof["verdict"] != FAIL else "",
    )


def find_set(root: str | None, wanted: str, trust: Trust) -> RecoverySet:
    if not wanted:
        raise BackupError("set: empty", hint="Name a set's id, latest, or the path of a dump.")
    if not root:
        raise BackupError("backup_root: missing", hint="Give the folder of all sets, or the path of a dump in set.")
    return resolve(root, wanted, trust)


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
        if not os.path.normpath(os.path.join(folder, relative)).startswith(folder + os.sep):
            raise BackupError(
                f"manifest: {relative}: leads out of the set", hint="The set was tampered with: choose another one."
            )
    return Subject(os.path.join(folder, private["dump_path"]), folder, tuple(artefacts), sums, private, public, key)
