# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Evidence of restores: kept apart from sets, with its own retention; the ledger vouches for each file."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger, _records
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    read_json,
    sha256_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_signed
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

_SCHEMA_VERSION = 1


def write_evidence(root: str, name: str, what: str, facts: t.Mapping[str, t.Any], trust: Trust) -> str:
    """Write `evidence/<name>.json`, signed, enter its hash in the ledger, return its path."""
    path = os.path.join(root, "evidence", f"{name}.json")
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    said = {"schema_version": _SCHEMA_VERSION, "what": what, "at": _clock.rfc3339(_clock.now())}
    content = {**said, **trust.stamp(), **facts}
    unsigned = {}
    try:
        digest = write_signed(path, content, trust)
    except BackupError as exc:
        # It has been done, so it is told; that nobody vouches for the words is told too.
        write_json(path, content)
        digest, unsigned = sha256_file(path), {"unsigned": exc.msg}
    _ledger.append(root, what, evidence_sha256=digest, restore=name, **unsigned)
    return path


def known_evidence(chain: Chain) -> dict[str, str]:
    """SHA-256 by file name, as the ledger has it."""
    return {
        f"{entry['restore']}.json": str(entry["evidence_sha256"])
        for entry in chain.vouching
        if entry.get("evidence_sha256")
    }


def old_evidence(root: str, trust: Trust, chain: Chain, before: dt.datetime) -> dict[str, str]:
    """Evidence of before that moment: SHA-256 by file name.

    Only what the ledger knows and a key that counts has signed: of other files nobody can say how old they are.
    """
    found = {}
    for name, digest in known_evidence(chain).items():
        path = os.path.join(root, "evidence", name)
        if os.path.isfile(path) and sha256_file(path) == digest and trust.signed_by(path):
            with contextlib.suppress(KeyError, TypeError, ValueError, BackupError):
                if _clock.parse(read_json(path)["at"]) < before:
                    found[name] = digest
    return found


def remove_evidence(root: str, trust: Trust, files: t.Mapping[str, str]) -> None:
    """Remove evidence after a signed record has said so; what a dead run left of it too."""
    told = _records.removed_evidence(root, trust, _ledger.load(root))
    fresh = {name: digest for name, digest in files.items() if told.get(name) != digest}
    if fresh:
        _records.write_record(root, _records.ABOUT_EVIDENCE, "removed", {"by": "retention", "files": fresh}, trust)
    folder = os.path.join(root, "evidence")
    for name in {*files, *told}:
        path = os.path.join(folder, os.path.basename(name))
        if name in files:
            os.unlink(path)
        if not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + SUFFIX)
    if files:
        fsync_path(folder)
