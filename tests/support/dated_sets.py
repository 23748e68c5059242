# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery sets of any age on the disk: small, signed by the tests' key, in the ledger, as real ones are."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import typing as t
from pathlib import Path

from ansible_collections.mazevault.backup.plugins.module_utils._clock import now, rfc3339, stamp
from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    enter_in_ledger,
    next_sequence,
    prepare_root,
)
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    load_set,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sums import sums_text
from support.keys import own_trust


def days_ago(days: float) -> dt.datetime:
    return now() - dt.timedelta(days=days)


def manifest_of(number: int, point: dt.datetime, former: str | None, **changes: t.Any) -> dict[str, t.Any]:
    """A manifest as far as anything reads it that isn't a restore."""
    at = rfc3339(point)
    size = changes.pop("bytes", 1000)
    components = changes.get("components", ["postgres"])
    artefacts = [
        {"component": name, "path": f"{name}/data", "bytes": size, "sha256": hashlib.sha256(b"x" * size).hexdigest()}
        for name in components
    ]
    public = {"schema_version": 7, "format": "custom", "compression": "zstd", "rows": changes.pop("rows", 100)}
    return {
        "schema_version": 1,
        "set_id": f"mazevault_{stamp(point)}",
        "sequence": number,
        "former_set_sha256": former,
        "installation": "vault1",
        "site": None,
        "reason": "scheduled",
        "recovery_point": at,
        "started": at,
        "ended": at,
        "components": components,
        "artefacts": artefacts,
        **({"postgres": {**public, "server_version": "17.0", "size_bytes": size}} if "postgres" in components else {}),
        "encryption": {"scheme": "none", "reason": "a test"},
        "recipients": {"data": [], "keys": []},
        "policy_sha256": None,
        "policy_overridden": [],
        "certificates": [],
        "images": [],
        "not_covered": [],
        "missing_protection": [],
        "verification": {"verdict": "pass", "level": "restore", "wanted": "restore", "seconds": 1.0, "at": at},
        **changes,
    }


def publish(root: Path, point: dt.datetime, **changes: t.Any) -> RecoverySet:
    """One set with the recovery point `point`; `bytes` and `rows` of its database, and anything of the manifest."""
    prepare_root(str(root))
    number, former = next_sequence(str(root))
    manifest = manifest_of(number, point, former, **changes)
    folder = root / "sets" / manifest["set_id"]
    for artefact in manifest["artefacts"]:
        path = folder / artefact["path"]
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * artefact["bytes"])
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "RESTORE.md").write_text("a test\n", encoding="utf-8")
    (folder / "SHA256SUMS").write_text(sums_text(str(folder)), encoding="utf-8")
    trust = own_trust()
    trust.signer.sign(str(folder / "SHA256SUMS"))
    found = load_set(str(root), manifest["set_id"])
    enter_in_ledger(found, trust)
    return found
