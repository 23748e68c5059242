# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Whether ledger, sets, records and evidence of a backup root are whole, signed, and as a witness saw them."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _pins, _policy, _records, _testimony
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import known_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import ANEW
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    Shelf,
    all_sets,
    shelf_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._signature import key_id
from ansible_collections.mazevault.backup.plugins.module_utils._testimony import Testimony
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    UNPROVEN,
    Check,
    combine,
    complete,
)

REQUIRED = ("policy", "ledger chain", "signatures", "sets entered", "sets in order", "records", "evidence")
OF_A_WITNESS = ("ledger as witnessed", "sets as witnessed", "host key", "time")
_SHOWN = 3


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        checks: every required one, with a result or without.
        sets: verdict and doubts by set id.
    """

    checks: list[Check]
    sets: dict[str, dict[str, t.Any]]

    @property
    def verdict(self) -> str:
        return combine(check.verdict for check in self.checks)


def examine(root: str, trust: Trust, testimony: Testimony | None, wanted: t.Mapping[str, t.Any]) -> Examined:
    """Look at everything but the artefacts' bytes.

    Args:
        testimony: what a witness saw; None where there is none.
        wanted: what the run goes by, for the policy; unless `witness` is False there, a testimony is required.
    """
    shelf = shelf_of(root, trust)
    good, bad = all_sets(root)
    standings = {found.set_id: shelf.standing(found) for found in good}
    checks = [
        _policy_check(trust, wanted),
        _chain(root, shelf),
        _signatures(standings, bad),
        _entered(shelf, good, bad),
        _order(shelf, good),
        _records_check(shelf, [*standings, *bad]),
        _evidence(shelf),
    ]
    required = [*REQUIRED]
    if testimony is not None:
        present = {found.set_id: found.sums_sha256 for found in good if os.path.exists(f"{found.path}/SHA256SUMS")}
        checks += [
            _testimony.compare_ledger(shelf.chain, testimony),
            _testimony.compare_sets(present, _removed(shelf), testimony),
            _testimony.compare_key(trust.signer.public(), testimony),
            _testimony.compare_time(good[-1].set_id if good else None, testimony),
        ]
    if wanted.get("witness") is not False:
        required += OF_A_WITNESS
    sets = {
        set_id: {
            "verdict": combine(check.verdict for check in found),
            "doubts": [f"{check.name}: {check.reason}" for check in found if check.verdict != PASS],
        }
        for set_id, found in standings.items()
    }
    sets.update({name: {"verdict": FAIL, "doubts": ["its manifest is not readable"]} for name in bad})
    return Examined(complete(checks, {"checksum": required}), sets)


def _check(name: str, failed: list[str], open_questions: list[str], *, nothing: str = "", looked: int = 1) -> Check:
    """One check out of what was found for many things; nothing looked at is unproven."""
    for verdict, found in ((FAIL, failed), (UNPROVEN, open_questions)):
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            return Check(name, "checksum", verdict, "; ".join(found[:_SHOWN]) + more)
    if not looked:
        return Check(name, "checksum", UNPROVEN, nothing)
    return Check(name, "checksum", PASS)


def _policy_check(trust: Trust, wanted: t.Mapping[str, t.Any]) -> Check:
    if trust.policy is None:
        return Check("policy", "checksum", PASS, "no policy is pinned on this host")
    found = _policy.compare(trust.policy.content, wanted)
    own = trust.signer.public()
    if own and own not in trust.keys:
        reason = f"it doesn't name the key that this host signs with ({key_id(own)[:16]}): nothing new can count"
        return Check("policy", "checksum", FAIL, reason)
    if found.refusals:
        return Check("policy", "checksum", FAIL, "; ".join(found.refusals))
    if found.overrides:
        return Check("policy", "checksum", UNPROVEN, f"policy overridden: {', '.join(found.overrides)}")
    return Check("policy", "checksum", PASS, observed=f"sha256 {trust.policy.sha256[:16]}")


def _chain(root: str, shelf: Shelf) -> Check:
    chain = shelf.chain
    if chain.problem:
        return Check("ledger chain", "checksum", FAIL, f"ledger.jsonl: {chain.problem}")
    if not chain.entries:
        return Check("ledger chain", "checksum", UNPROVEN, "there is no ledger")
    for began in chain.of(ANEW)[-1:]:
        if not _accepted_since(root, shelf, began):
            reason = f"it began anew at {began['at']} ({began.get('problem')}), and nobody has accepted that"
            return Check("ledger chain", "checksum", UNPROVEN, reason)
    torn = "a crash tore its last line off; the next run says so in it" if chain.torn else ""
    return Check("ledger chain", "checksum", PASS, torn, observed=f"{len(chain.entries)} lines")


def _accepted_since(root: str, shelf: Shelf, began: t.Mapping[str, t.Any]) -> bool:
    found = _records.look_at(root, _records.ABOUT_THE_LEDGER, shelf.trust, shelf.chain)
    return any(record.get("kind") == "accepted" and record["at"] >= began["at"] for record in found.counting)


def _signatures(standings: t.Mapping[str, list[Check]], bad: list[str]) -> Check:
    failed = [f"{name}: its manifest is not readable" for name in bad]
    open_questions = []
    for set_id, checks in standings.items():
        failed += [f"{set_id}: {check.name}: {check.reason}" for check in checks if check.verdict == FAIL]
        open_questions += [f"{set_id}: {check.name}: {check.reason}" for check in checks if check.verdict == UNPROVEN]
    return _check("signatures", failed, open_questions, nothing="there is no set", looked=len(standings))


def _removed(shelf: Shelf) -> set[str]:
    """Sets that were removed on purpose: a signed record says so, a bare line of the ledger doesn't.

    One whose removal was broken off lies where retention puts it, and a signed record said that it would go.
    """
    told = [*shelf.chain.of(f"record {_pins.REMOVING}"), *shelf.chain.of(f"record {_pins.REMOVED}")]
    aside = _records.aside_of(shelf.root)
    found = set()
    for set_id in {str(entry.get("set_id")) for entry in told}:
        records = _records.look_at(shelf.root, set_id, shelf.trust, shelf.chain).counting
        lies_aside = os.path.isdir(os.path.join(aside, os.path.basename(set_id)))
        if _pins.was_removed(records) or (lies_aside and _pins.is_leaving(records)):
            found.add(set_id)
    return found


def _entered(shelf: Shelf, good: t.Sequence[RecoverySet], bad: t.Sequence[str]) -> Check:
    present = {*bad, *(found.set_id for found in good)}
    removed = _removed(shelf)
    failed = [
        f"{set_id}: was published and is gone, and no signed record says why"
        for set_id in shelf.chain.published()
        if set_id not in present and set_id not in removed
    ]
    return _check("sets entered", failed, [], nothing="the ledger knows no set", looked=len(shelf.chain.published()))


def _order(shelf: Shelf, good: t.Sequence[RecoverySet]) -> Check:
    """Each set names the one before it; a number that nobody knows was a set that somebody removed with its line."""
    chain = shelf.chain
    anew = chain.of(ANEW)
    begins = max([entry["former_sets"] for entry in anew if isinstance(entry.get("former_sets"), int)], default=0)
    sums = {*chain.published().values(), *shelf.accepted.values()}
    # Whoever rewrote a ledger may have written anything into it.
    lines = [entry for entry in chain.of("published") if isinstance(entry.get("set_sequence"), int)]
    numbers: dict[int, str] = {entry["set_sequence"]: str(entry.get("set_id")) for entry in lines}
    failed = []
    for found in good:
        number, former = int(found.manifest["sequence"]), found.manifest.get("former_set_sha256")
        if numbers.setdefault(number, found.set_id) != found.set_id:
            failed.append(f"{found.set_id}: number {number} is that of {numbers[number]}")
        if number > begins + 1 and former not in sums:
            failed.append(f"{found.set_id}: the set before it is not known here")
    known = sorted(number for number in {begins, *numbers} if number >= begins)
    for before, after in zip(known, known[1:]):
        if after - before > 1:
            gap = f"number {before + 1}" if after - before == 2 else f"numbers {before + 1} to {after - 1}"
            failed.append(f"set {gap} is neither here nor in the ledger")
    return _check("sets in order", failed, [], nothing="there is no set", looked=len(numbers))


def _records_check(shelf: Shelf, set_ids: t.Sequence[str]) -> Check:
    folder = os.path.join(shelf.root, "records")
    names = sorted({*set_ids, *(os.listdir(folder) if os.path.isdir(folder) else ())})
    failed = []
    for name in names:
        filed = _records.look_at(shelf.root, name, shelf.trust, shelf.chain)
        # With a broken chain no record counts, and that has been said.
        failed += [f"records/{name}/{what}: {why}" for what, why in filed.forged.items()]
    return _check("records", failed, [])


def _evidence(shelf: Shelf) -> Check:
    folder = os.path.join(shelf.root, "evidence")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []
    known = known_evidence(shelf.chain)
    gone = known.keys() - set(names) - _records.removed_evidence(shelf.root, shelf.trust, shelf.chain).keys()
    failed = [f"evidence/{name}: the ledger knows it, and it is gone" for name in sorted(gone)]
    doubtful = []
    for name in names:
        path = os.path.join(folder, name)
        if name in known and sha256_file(path) != known[name]:
            failed.append(f"evidence/{name}: not the file that the ledger knows")
        elif shelf.trust.keys and shelf.trust.signed_by(path) is None:
            failed.append(f"evidence/{name}: no signature of a key that counts")
        elif name not in known and not shelf.chain.problem:
            doubtful.append(f"evidence/{name}: the ledger doesn't know it")
    return _check("evidence", failed, doubtful)
