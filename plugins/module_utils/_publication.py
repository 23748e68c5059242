# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""How a staged set becomes a published one: manifest, instructions, sums, signature, a single rename, the ledger."""

from __future__ import annotations

import glob
import json
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger, _policy, _set_generations
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    fsync_tree,
    read_json,
    write_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._instructions import restore_instructions, start_here
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    PRIVATE,
    SCHEMA_VERSION,
    RecoverySet,
    all_sets,
    load_set,
    resolve,
    shelf_of,
    state_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of, noted
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._stored import store
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS, check_sums, sums_text
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import PASS, UNPROVEN, combine

REASONS = ("scheduled", "pre_change", "on_change", "rotation", "manual")
# What no set holds, by specification or because it never was on the host.
NEVER_COVERED = (
    "Redis (an ephemeral cache, by specification)",
    "private keys in an HSM, or kept on the servers that use them",
)


def prepare_root(root: str) -> None:
    """The folders of the backup root; the ledger is mended where a crash tore it."""
    for name in ("sets", "records", "evidence", "staging"):
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)


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


def next_sequence(root: str) -> tuple[int, str | None]:
    """Sequence number of the next set, and the hash of the newest set's SHA256SUMS."""
    good, _bad = all_sets(root)
    chain = _ledger.load(root)
    last = max([int(found.manifest["sequence"]) for found in good] + [chain.last_set_sequence(), 0])
    former = good[-1].sums_sha256 if good else list(chain.published().values() or [None])[-1]
    return last + 1, former


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


def write_start_here(root: str, trust: Trust) -> None:
    shelf = shelf_of(root, trust)
    states = [state_of(found, shelf) for found in all_sets(root)[0]]
    write_file(os.path.join(root, "START-HERE.txt"), start_here(root, states))
