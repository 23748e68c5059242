# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Published recovery sets: their names, manifests, and how they stand."""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import (
    _clock,
    _ledger,
    _pins,
    _policy,
    _records,
    _set_generations,
)
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey, part_name
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    read_json,
    sha256_file,
)
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._standing import standing_of
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check, combine

SCHEMA_VERSION = 1
ID = re.compile(r"mazevault_\d{8}_\d{6}\Z")
PRIVATE = "manifest.private.json"


@dataclass(frozen=True)
class RecoverySet:
    """A published set; `manifest` is parsed, nothing of it is checked yet."""

    root: str
    set_id: str
    manifest: t.Mapping[str, t.Any]

    @property
    def path(self) -> str:
        return os.path.join(self.root, "sets", self.set_id)

    @property
    def records_path(self) -> str:
        return os.path.join(self.root, "records", self.set_id)

    @property
    def scheme(self) -> str:
        """Of its encryption; former sets have none."""
        return str((self.manifest.get("encryption") or {}).get("scheme", "none"))

    def private(self, key: SetKey | None = None) -> dict[str, t.Any]:
        """The rest of the manifest.

        Args:
            key: of class data, with its private half; None: the set is in plain.
        Raises:
            BackupError: the set is encrypted and the key isn't here, or what it opens isn't what was written.
        """
        path = os.path.join(self.path, PRIVATE)
        if self.scheme == "none":
            return t.cast("dict[str, t.Any]", read_json(path))
        name = part_name(path, 0, self.scheme)
        with Stored((name,), key).opened() as stream:
            content = stream.read()
        try:
            return t.cast("dict[str, t.Any]", json.loads(content))
        except ValueError as exc:
            raise Damaged(f"{name}: not readable as JSON: {exc}", hint="Take another copy of the set.") from exc

    @property
    def sums_sha256(self) -> str:
        return sha256_file(os.path.join(self.path, SUMS))


def set_names(root: str) -> list[str]:
    """Names under `sets/` that look like ours; foreign ones are nobody's business."""
    try:
        return sorted(name for name in os.listdir(os.path.join(root, "sets")) if ID.match(name))
    except FileNotFoundError:
        return []


def load_set(root: str, set_id: str) -> RecoverySet:
    if not ID.match(set_id):
        raise BackupError(f"set: {set_id}: not a set id", hint="Set ids look like mazevault_20261123_020000.")
    if not os.path.isdir(os.path.join(root, "sets", set_id)):
        known = set_names(root)
        raise BackupError(
            f"set: {set_id}: no such set under {root}/sets",
            hint=f"The newest one is {known[-1]}." if known else "There is no set yet: run backup.yml first.",
        )
    manifest = read_json(os.path.join(root, "sets", set_id, "manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION or not _readable(manifest):
        raise BackupError(
            f"set: {set_id}: its manifest isn't of schema version {SCHEMA_VERSION}",
            hint="It is damaged, or was made by a newer version of the collection.",
        )
    return RecoverySet(root, set_id, manifest)


def _readable(manifest: t.Mapping[str, t.Any]) -> bool:
    """Whether it has what every list of sets needs. One that somebody laid beside the others must not stop them all."""
    try:
        return bool(
            isinstance(manifest["sequence"], int)
            and isinstance(manifest["verification"], dict)
            and _clock.parse(manifest["recovery_point"]).tzinfo
            and sum(int(artefact["bytes"]) for artefact in manifest["artefacts"]) >= 0
            and all(isinstance(manifest[key], str) for key in ("installation", "reason"))
            and all(isinstance(manifest[key], list) for key in ("components", "not_covered", "missing_protection"))
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def all_sets(root: str) -> tuple[list[RecoverySet], list[str]]:
    """Every readable set in the order of their sequence numbers, and the names of those that aren't readable."""
    good, bad = [], []
    for name in set_names(root):
        try:
            good.append(load_set(root, name))
        except BackupError:
            bad.append(name)
    return sorted(good, key=lambda found: (int(found.manifest.get("sequence", 0)), found.set_id)), bad


@dataclass(frozen=True)
class Shelf:
    """What is needed to judge the sets of a root, read once."""

    root: str
    trust: Trust
    chain: Chain
    accepted: t.Mapping[str, str]
    kept: _set_generations.Kept
    _known: dict[str, list[_records.Record]] = field(default_factory=dict)

    def records(self, found: RecoverySet) -> list[_records.Record]:
        """Those of a set that count, oldest first; their signatures are looked at once."""
        if found.set_id not in self._known:
            looked = _records.look_at(self.root, found.set_id, self.trust, self.chain)
            self._known[found.set_id] = looked.counting
        return self._known[found.set_id]

    def standing(self, found: RecoverySet) -> list[Check]:
        return standing_of(found.path, found.manifest, self.trust, self.chain, self.accepted)

    def judge(self, found: RecoverySet) -> dict[str, t.Any]:
        """`verdict`, `level`, `at` of the newest proof, with `doubts`: why the set itself isn't to be believed."""
        proof = _records.newest_proof(found.manifest, self.records(found))
        checks = [*self.standing(found), *self._overridden(found, proof["level"]), *self._keys(found)]
        return {
            **proof,
            "verdict": combine([proof["verdict"], *(check.verdict for check in checks)]),
            "doubts": [f"{check.name}: {check.reason}" for check in checks if check.verdict != PASS],
            "genuine": not any(check.name == "signature" and check.verdict != PASS for check in checks),
        }

    def proofs(self, found: RecoverySet) -> list[dict[str, t.Any]]:
        """Every proof of a set that counts, that of its publication first."""
        proofs = _records.proofs_of(found.manifest, self.records(found))
        return [{key: proof.get(key) for key in ("verdict", "level", "at")} for proof in proofs]

    def _keys(self, found: RecoverySet) -> list[Check]:
        """Whether the keys that it needs are where they are to be, now and not only when it was published."""
        if not (found.manifest.get("escrow") or {}).get("expected"):
            return []
        return self.kept.checks(found.manifest.get("key_generations") or ())

    def _overridden(self, found: RecoverySet, level: str) -> list[Check]:
        """That a set was made under weaker rules than the policy's; a level that was too low can be made up for."""
        names = list(map(str, found.manifest.get("policy_overridden") or ()))
        if "verify_level" in names and not _policy.against(self.trust.policy, {"verify_level": level}).overrides:
            names.remove("verify_level")
        return [Check("policy", "checksum", UNPROVEN, f"policy overridden: {', '.join(names)}")] if names else []


def shelf_of(root: str, trust: Trust) -> Shelf:
    chain = _ledger.load(root)
    accepted = _records.accepted_sets(root, trust, chain)
    return Shelf(root, trust, chain, accepted, _set_generations.Kept(root, trust, chain))


def resolve(root: str, wanted: str, trust: Trust, *, component: str = "") -> RecoverySet:
    """`latest` is the newest set that hasn't failed; an id is taken as it is.

    Sets that a key which counts has signed come first: anybody who can write here can lay a newer one beside them.

    Args:
        component: what the newest one has to hold; empty takes any.
    """
    if wanted and wanted != "latest":
        return load_set(root, wanted)
    good, bad = all_sets(root)
    shelf = shelf_of(root, trust)
    unsigned = None
    for found in reversed(good):
        if component and component not in found.manifest["components"]:
            continue
        judged = shelf.judge(found)
        if judged["verdict"] != FAIL and judged["genuine"]:
            return found
        if judged["verdict"] != FAIL:
            unsigned = unsigned or found
    if unsigned is not None:
        return unsigned
    broken = f"; {_ledger.path_of(root)}: {shelf.chain.problem}" if shelf.chain.problem else ""
    raise BackupError(
        f"set: latest: no usable set {f'with {component} ' if component else ''}under {root}/sets"
        + (f" ({len(good) + len(bad)} are there, all failed or damaged{broken})" if good or bad else ""),
        hint="Name a set's id to choose one on your own risk, or run backup.yml.",
    )


def refuse_untrusted(found: RecoverySet, trust: Trust, *, unsigned: bool) -> None:
    """Before anything of a set is used: it has to be what a key that counts has signed.

    A ledger that is broken or gone refuses nothing: a set comes to a new host without one.

    Args:
        unsigned: the operator takes that upon himself.
    """
    checks = {check.name: check for check in shelf_of(found.root, trust).standing(found)}
    signature, manifest = checks["signature"], checks.get("manifest")
    if signature.verdict != PASS and not unsigned:
        raise BackupError(
            f"set: {found.set_id}: signature: {signature.reason}",
            hint="Nothing was touched. Pin a policy that names the key of the host that made it, or accept unsigned.",
        )
    if manifest is not None and manifest.verdict == FAIL:
        raise BackupError(
            f"set: {found.set_id}: damaged: manifest: {manifest.reason}",
            hint="Nothing was touched. Restore another set, or this one from another copy.",
        )


def seen_by_a_witness(root: str, trust: Trust) -> dict[str, t.Any]:
    """What somebody else has to keep of a root's ledger, so that it can't be cut or rewritten unseen."""
    chain = _ledger.load(root)
    return {
        "ledger_head": chain.head,
        "ledger_lines": len(chain.entries),
        "host_key": trust.signer.public() or None,
        "host_time": _clock.rfc3339(_clock.now()),
        "policy_sha256": trust.policy_sha256,
    }


def state_of(found: RecoverySet, shelf: Shelf) -> dict[str, t.Any]:
    """A set as other playbooks want it: flat, no secret, no table name."""
    manifest = found.manifest
    proof = shelf.judge(found)
    point = _clock.parse(manifest["recovery_point"])
    return {
        "set_id": found.set_id,
        "path": found.path,
        "sequence": manifest["sequence"],
        "installation": manifest["installation"],
        "reason": manifest["reason"],
        "recovery_point": manifest["recovery_point"],
        "started": manifest.get("started"),
        "published_at": manifest.get("ended"),
        "age_seconds": max(0, int((_clock.now() - point).total_seconds())),
        "components": manifest["components"],
        "bytes": sum(artefact["bytes"] for artefact in manifest["artefacts"]),
        "verdict": proof["verdict"],
        "level": proof["level"],
        "doubts": proof["doubts"],
        "proven_at": proof["at"],
        "pinned": [pin.as_dict() for pin in _pins.pins_of(manifest, shelf.records(found), _clock.now())],
        "proofs": shelf.proofs(found),
        "proof_seconds": manifest["verification"].get("seconds"),
        "policy_sha256": manifest.get("policy_sha256"),
        "not_covered": manifest["not_covered"],
        "missing_protection": manifest["missing_protection"],
        "key_generations": manifest.get("key_generations") or [],
        "postgres": manifest.get("postgres"),
    }
