# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""From what an operator names (a set's id, `latest`, a file) to what can be proven or restored."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet, resolve
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._sums import check_sums
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Subject


def is_path(wanted: str) -> bool:
    """A name with a slash is a file's path; ids and `latest` have none."""
    return "/" in wanted


def subject_of_path(path: str) -> Subject:
    if not os.path.lexists(path):
        raise BackupError(f"set: {path}: no such file", hint="Name a set's id, latest, or the path of a dump.")
    return Subject(path)


def subject_of_staging(staging: Staging) -> Subject:
    report = read_json(staging.report_path("postgres"))
    return _recorded(staging.set_path, report["artefacts"], report["private"], report["public"], None)


def subject_of_set(found: RecoverySet, *, sums: bool) -> Subject:
    """A published set's database.

    Args:
        sums: check the set's own SHA256SUMS too.
    """
    private = found.private()
    if "postgres" not in found.manifest or "postgres" not in private:
        raise BackupError(f"set: {found.set_id}: it holds no database", hint="Name another set.")
    artefacts = [entry for entry in found.manifest["artefacts"] if entry["component"] == "postgres"]
    problems = tuple(check_sums(found.path)) if sums else None
    return _recorded(found.path, artefacts, private["postgres"], found.manifest["postgres"], problems)


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
) -> Subject:
    for relative in (private["dump_path"], *(entry["path"] for entry in artefacts)):
        if not os.path.normpath(os.path.join(folder, relative)).startswith(folder + os.sep):
            raise BackupError(
                f"manifest: {relative}: leads out of the set", hint="The set was tampered with: choose another one."
            )
    return Subject(os.path.join(folder, private["dump_path"]), folder, tuple(artefacts), sums, private, public)
