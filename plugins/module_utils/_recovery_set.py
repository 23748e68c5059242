# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Published recovery sets: their names, manifests, sums, and how one becomes visible by a single rename."""

from __future__ import annotations

import glob
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
    fsync_path,
    fsync_tree,
    read_json,
    sha256_file,
    write_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._instructions import (
    restore_instructions,
    start_here,
)
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of, noted
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._standing import standing_of
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored, store
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS, check_sums, sums_text
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check, combine

SCHEMA_VERSION = 1
ID = re.compile(r"mazevault_\d{8}_\d{6}\Z")
PRIVATE = "manifest.private.json"
REASONS = ("scheduled", "pre_change", "on_change", "rotation", "manual")
# What no set holds, by specification or because it never was on the host.
NEVER_COVERED = (
    "Redis (an ephemeral cache, by specification)",
    "private keys in an HSM, or kept on the servers that use them",
)


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


def next_sequence(root: str) -> tuple[int, str | None]:
    """Sequence number of the next set, and the hash of the newest set's SHA256SUMS."""
    good, _bad = all_sets(root)
    chain = _ledger.load(root)
    last = max([int(found.manifest["sequence"]) for found in good] + [chain.last_set_sequence(), 0])
    former = good[-1].sums_sha256 if good else list(chain.published().values() or [None])[-1]
    return last + 1, former


def same_as_before(staging: Staging, components: t.Iterable[str], trust: Trust) -> bool:
    """Whether an open set has nothing that isn't in the newest sets, of each component the newest one that is good.

    Archives of the same files have the same plaintext; of a dump that is never so.
    """
    for component in components:
        gone = bool(looked_at(staging, component).get("nothing"))
        mine = {} if gone else _plaintexts(read_json(staging.report_path(component))["artefacts"], component)
        try:
            last = resolve(staging.root, "latest", trust, component=component)
        except BackupError:
            last = None
        if mine != (_plaintexts(last.manifest["artefacts"], component) if last else {}):
            return False
    return True


def _plaintexts(artefacts: t.Iterable[t.Mapping[str, t.Any]], component: str) -> dict[str, str]:
    return {entry["path"]: entry["sha256_plaintext"] for entry in artefacts if entry["component"] == component}


def seal(staging: Staging, facts: t.Mapping[str, t.Any], progress: Progress, trust: Trust) -> RecoverySet:
    """Write manifest, instructions, sums and signature into the staged set, flush everything, publish by one rename.

    Args:
        facts: `installation`, `site`, `reason`, `components`, `images`, `versions`, `verification`, and `wanted`,
            which is compared with the pinned policy.
    Raises:
        BackupError: a component is missing, or a set of this id exists.
    """
    root, set_id = staging.root, staging.name
    reports = {}
    for component in facts["components"]:
        if not os.path.isfile(staging.report_path(component)):
            if looked_at(staging, component).get("nothing"):
                continue
            raise BackupError(
                f"components: {component}: it left no report, so the set isn't complete",
                hint="Nothing was published. Look for the step that failed before.",
            )
        reports[component] = read_json(staging.report_path(component))
    if not reports:
        raise BackupError(
            f"components: {', '.join(facts['components'])}: nothing of them is on this host",
            hint="Nothing was published. See to the components and their paths.",
        )
    if os.path.exists(os.path.join(root, "sets", set_id)):
        raise BackupError(f"set_id: {set_id}: is published already", hint="Open a new one.")
    progress.step("seal: manifest")
    manifest, private = compose(staging, reports, facts, trust)
    manifest["policy_overridden"] = list(_policy.refuse(trust.policy, _as_made(manifest, facts)))
    text = json.dumps(private, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for old in glob.glob(f"{glob.escape(os.path.join(staging.set_path, PRIVATE))}*"):
        os.unlink(old)  # of an attempt that was killed
    store(os.path.join(staging.set_path, PRIVATE), text.encode(), key_of(staging, "data"))
    write_json(os.path.join(staging.set_path, "manifest.json"), manifest)
    write_file(os.path.join(staging.set_path, "RESTORE.md"), restore_instructions(manifest, private))
    progress.step("seal: sums")
    write_file(os.path.join(staging.set_path, SUMS), sums_text(staging.set_path))
    progress.step("seal: signature")
    trust.signer.sign(os.path.join(staging.set_path, SUMS))
    progress.step("seal: flush")
    fsync_tree(staging.set_path)
    os.makedirs(os.path.join(root, "sets"), mode=0o700, exist_ok=True)
    progress.step("seal: rename")
    os.rename(staging.set_path, os.path.join(root, "sets", set_id))
    progress.step("seal: published")
    fsync_path(os.path.join(root, "sets"))
    found = load_set(root, set_id)
    progress.step("seal: ledger")
    enter_in_ledger(found, trust)
    return found


def enter_in_ledger(found: RecoverySet, trust: Trust, *, late: bool = False) -> None:
    extra = {"found_after_a_crash": True} if late else {}
    reason = (found.manifest.get("encryption") or {}).get("reason")
    _ledger.append(
        found.root,
        "published",
        set_id=found.set_id,
        set_sequence=found.manifest["sequence"],
        sums_sha256=found.sums_sha256,
        signed_by=trust.signed_by(os.path.join(found.path, SUMS)),
        verdict=found.manifest["verification"]["verdict"],
        # So that what is promised can be judged when the set itself is long gone.
        level=found.manifest["verification"].get("level"),
        recovery_point=found.manifest["recovery_point"],
        **({"encryption_reason": reason} if reason else {}),
        **extra,
    )


def looked_at(staging: Staging, component: str) -> dict[str, t.Any]:
    """What was found of a component before it was saved: `certificates`, and `nothing` where none of it is there."""
    path = staging.report_path(f"{component}.found")
    return t.cast("dict[str, t.Any]", read_json(path)) if os.path.isfile(path) else {}


def _proof_of(
    verification: t.Mapping[str, t.Any], components: t.Collection[str], escrow: t.Mapping[str, t.Any]
) -> dict[str, t.Any]:
    """The proof as the manifest has it: what nobody looked at isn't proven, whatever the rest is.

    Nor is what only keys open that may be lost with the host.
    """
    proof = {**verification, "components": sorted(set(verification["components"]) & set(components))}
    if proof["verdict"] == PASS and set(proof["components"]) != set(components):
        proof = {**proof, "verdict": UNPROVEN, "level": ""}
    if escrow["expected"]:
        proof["verdict"] = combine([proof["verdict"], escrow["verdict"]])
    return proof


def _as_made(manifest: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a set really is, where the policy has a say; what was only wished for elsewhere."""
    return {
        **(facts.get("wanted") or {}),
        "installation": manifest["installation"],
        "recipients": {name: [one["fingerprint"] for one in found] for name, found in manifest["recipients"].items()},
        "encryption": sorted({str(artefact.get("encryption") or "none") for artefact in manifest["artefacts"]}),
        "verify_level": manifest["verification"].get("wanted"),
    }


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


def settle_ledger(root: str, trust: Trust) -> dict[str, t.Any]:
    """Bring the ledger to where a new run can add to it.

    A broken one is set aside, one that is gone is begun anew, and a set that a dying run published without saying so is
    entered late: only the one whose number comes next and that is signed, as a crash leaves no other.

    Returns:
        `healed`: ids of sets entered late; `set_aside`: what was wrong with the ledger, or None.
    """
    chain, sets = _ledger.load(root), all_sets(root)[0]
    if chain.problem:
        # Whatever is added next sets it aside; there has to be something, so that the chain says so even if this run
        # comes to nothing.
        _ledger.append(root, "noticed", what="the ledger before this one is broken")
        return {"healed": [], "set_aside": chain.problem}
    newest = max([int(found.manifest["sequence"]) for found in sets], default=0)
    if not chain.entries and newest > 1:
        problem = f"there is no ledger, though there are {len(sets)} sets"
        _ledger.begin_anew(root, problem, former_sets=newest)
        return {"healed": [], "set_aside": problem}
    healed = []
    last = chain.last_set_sequence()
    for found in sets:
        if (
            int(found.manifest["sequence"]) == last + 1
            and found.set_id not in chain.published()
            and trust.signed_by(os.path.join(found.path, SUMS))
            and not check_sums(found.path)
        ):
            enter_in_ledger(found, trust, late=True)
            healed.append(found.set_id)
            last += 1
    return {"healed": healed, "set_aside": None}


def compose(
    staging: Staging,
    reports: t.Mapping[str, t.Mapping[str, t.Any]],
    facts: t.Mapping[str, t.Any],
    trust: Trust,
) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """(public, private) manifest from the components' reports."""
    sequence, former = next_sequence(staging.root)
    owner, protected = staging.owner(), noted(staging)
    artefacts = [artefact for report in reports.values() for artefact in report["artefacts"]]
    not_covered = list(NEVER_COVERED)
    for report in reports.values():
        not_covered += report["public"].get("not_covered", [])
    found = {component: looked_at(staging, component) for component in facts["components"]}
    not_covered += [f"{component}: {one['nothing']}" for component, one in found.items() if one.get("nothing")]
    certificates = [one for component in found.values() for one in component.get("certificates", ())]
    known = {one["sha256"]: {key: one[key] for key in ("sha256", "not_after")} for one in certificates}
    marked = [one["generation"] for one in found.values() if one.get("generation")]
    needs = _set_generations.needs_of(staging, trust, marked)
    escrow = _set_generations.judged(staging.root, needs, trust, facts.get("wanted"))
    kept = (
        f"in escrow, as key generation {needs.ids[0]}" if escrow["verdict"] == PASS else "in no set, nor in an escrow"
    )
    not_covered.append(f"secrets.vault and vault.key, where there are any ({kept})")
    open_to_all = protected["scheme"] == "none"
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "set_id": staging.name,
        "sequence": sequence,
        "former_set_sha256": former,
        "installation": facts["installation"],
        "site": facts["site"],
        "reason": facts["reason"],
        "recovery_point": min(report["recovery_point"] for report in reports.values()),
        "started": owner["opened"],
        "ended": _clock.rfc3339(_clock.now()),
        "components": sorted(reports),
        "artefacts": artefacts,
        **{component: report["public"] for component, report in reports.items()},
        "key_generations": list(needs.ids),
        "escrow": escrow,
        "encryption": {"scheme": protected["scheme"], "reason": protected["reason"]},
        "recipients": protected["recipients"],
        "policy_sha256": trust.policy_sha256,
        "certificates": sorted(known.values(), key=lambda one: (one["not_after"], one["sha256"])),
        "images": facts["images"],
        "not_covered": not_covered,
        "missing_protection": [
            *(["escrow"] if escrow["verdict"] != PASS else []),
            *(["encryption"] if open_to_all else []),
        ],
        "verification": _proof_of(facts["verification"], reports, escrow),
        "versions": facts["versions"],
    }
    return manifest, {
        "schema_version": SCHEMA_VERSION,
        "set_id": staging.name,
        "host": owner["host"],
        "certificates": certificates,
        **{component: report["private"] for component, report in reports.items()},
    }


def prepare_root(root: str) -> None:
    """The folders of the backup root; the ledger is mended where a crash tore it."""
    for name in ("sets", "records", "evidence", "staging"):
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)


def write_start_here(root: str, trust: Trust) -> None:
    shelf = shelf_of(root, trust)
    states = [state_of(found, shelf) for found in all_sets(root)[0]]
    write_file(os.path.join(root, "START-HERE.txt"), start_here(root, states))


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
