# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery sets without a database: small artefacts, published by the collection's own module."""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from support.flow import HOSTNAME, IN_PLAIN, StepFailed
from support.modules import Outcome, run_module

DUMP = "postgres/database.dump.zst"
RECOVERY_POINT = "2026-11-23T02:00:00.000000Z"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Site:
    """A backup root, and beside it the folder of its witness, as if that were on another machine."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "backups"

    @property
    def witness(self) -> Path:
        return self.folder / "control-node"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    def module(self, name: str, *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
        done = self.try_module(name, check=check, **params)
        if done.rc:
            raise StepFailed(f"{name}: {done.result.get('msg')}\n{done.result}\n{done.stderr[-3000:]}")
        return done.result

    def try_module(self, name: str, *, check: bool = False, **params: t.Any) -> Outcome:
        own = {"folder": str(self.witness)} if name == "recovery_set_witness" else {"backup_root": str(self.root)}
        if name == "backup_policy":
            own = {}
        if name == "recovery_set" and params.get("state") == "open":
            own |= IN_PLAIN
        return run_module(name, {**own, **params}, check=check)

    def publish(
        self,
        content: bytes = b"a dump",
        *,
        opening: t.Mapping[str, t.Any] | None = None,
        recovery_point: str = RECOVERY_POINT,
        **params: t.Any,
    ) -> dict[str, t.Any]:
        """One set, opened and sealed; what sealing returned."""
        set_id = self.module("recovery_set", **{"state": "open", **(opening or {})})["set_id"]
        stage(Staging(str(self.root), set_id), content, recovery_point)
        proof = {"verdict": "pass", "level": "restore", "wanted": "restore"}
        params = {"state": "sealed", "installation": HOSTNAME, "verification": proof, **params}
        return self.module("recovery_set", set_id=set_id, **params)

    def witnessed(self, sealed: t.Mapping[str, t.Any], **params: t.Any) -> dict[str, t.Any]:
        """Let the witness see what sealing returned, as the playbooks do."""
        return self.module("recovery_set_witness", installation=HOSTNAME, seen=what_is_seen(sealed), **params)

    def testimony(self) -> dict[str, t.Any]:
        read = self.module("recovery_set_witness", installation=HOSTNAME, state="read")
        return t.cast("dict[str, t.Any]", read["testimony"])

    def verify(self, testimony: t.Mapping[str, t.Any] | None = None, **params: t.Any) -> dict[str, t.Any]:
        return self.module("ledger_verify", testimony=testimony, **params)

    def sets(self) -> list[Path]:
        return sorted((self.root / "sets").iterdir())


def what_is_seen(sealed: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    keys = ("set_id", "sums_sha256", "ledger_head", "ledger_lines", "host_key", "host_time")
    return {**{key: sealed[key] for key in keys}, "set_sequence": sealed["sequence"]}


def stage(staging: Staging, content: bytes, recovery_point: str = RECOVERY_POINT) -> None:
    """What pg_dump leaves in staging, as far as publication looks at it."""
    path = Path(staging.set_path, DUMP)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    artefact = {
        "component": "postgres",
        "path": DUMP,
        "bytes": len(content),
        "sha256": _sha256(content),
        "sha256_plaintext": _sha256(content),
    }
    public = {
        "format": "custom",
        "compression": "zstd",
        "client_version": 17,
        "size_bytes": len(content),
        "tables": 1,
        "rows": 1,
        "not_covered": [],
    }
    report = {
        "recovery_point": recovery_point,
        "artefacts": [artefact],
        "public": public,
        "private": {"database_name": "mazevault", "dump_path": DUMP},
    }
    Path(staging.report_path("postgres")).write_text(json.dumps(report), encoding="utf-8")
