# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Evidence of restores: kept apart from sets, with its own retention; the ledger vouches for each file."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_signed
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
