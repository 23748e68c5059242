# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which key generations a set's data need, whether those are in escrow, and whether this host has the keys for a set.

A set is as good as the keys that open what is in it: one whose generations aren't all in escrow isn't proven, however
well its database came back, and one that the host's keys don't fit isn't restored.
"""

from __future__ import annotations

import datetime as dt
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _escrow, _generations, _ledger, _material
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow import Escrowed
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._policy import HALVES, Policy
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check, combine

# What data are encrypted under; all other secrets may change without making older data unreadable. A vault may hold
# the master key, and nobody here can look into it.
DECIDING = (*_material.MASTER_KEYS, _material.VAULT)
# So long after a change of the keys rows may still be encrypted under the former ones.
MIXED_DAYS = 30
PLACES = ("env_file", "vault_file", "key_file")
NOT_IN_ESCROW, OTHER_GENERATION = "not_in_escrow", "other_generation"
RESTORED = "keys restored"
_NOTE = "generations"


@dataclass(frozen=True)
class Needs:
    """What a set's data need.

    Attributes:
        ids: the generation in use first, then those that rows of a dump may still need.
        problems: what was wrong with the keys while the set was made.
    """

    ids: tuple[str, ...] = ()
    problems: tuple[Check, ...] = ()


def places_of(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Where a module was told that the keys lie."""
    return {name: str(params.get(name) or "") for name in PLACES}


def expected(policy: Policy | None, wanted: t.Mapping[str, t.Any] | None) -> bool:
    """Whether keys are to be in escrow: the policy or the operator names places."""
    named = [(policy.content if policy else {}).get("escrow"), (wanted or {}).get("escrow")]
    return any((groups or {}).get(half) for groups in named for half in HALVES)


def note(staging: Staging, where: t.Mapping[str, str], trust: Trust, *, unlike: t.Sequence[str] = ()) -> None:
    """Write down which keys are in use as a set begins.

    Args:
        where: paths of the settings, the vault, and its key.
        unlike: what is known to use other keys than these files have, in words.
    """
    if any(where.values()):
        seen = [_looked(staging.root, where, trust)]
        write_json(staging.report_path(_NOTE), {"where": dict(where), "seen": seen, "unlike": list(unlike)})


def needs_of(staging: Staging, trust: Trust, also: t.Iterable[str] = ()) -> Needs:
    """What the data of an open set need; the keys are looked at once more, as they may have changed while it was made.

    Args:
        also: generations that its components were marked with.
    """
    path = staging.report_path(_NOTE)
    noted = read_json(path) if os.path.isfile(path) else {"where": {}, "seen": [], "unlike": []}
    seen = list(noted["seen"])
    if any(noted["where"].values()):
        seen.append(_looked(staging.root, noted["where"], trust))
    ids = [one["generation"] for one in reversed(seen)] + list(also)
    ids = [name for name in dict.fromkeys(ids) if name]
    if ids:
        begin = _clock.now() - dt.timedelta(days=MIXED_DAYS)
        ids += _generations.seen_since(staging.root, ids[0], DECIDING, begin, trust)
    problems = [Check("keys", "checksum", UNPROVEN, one["problem"]) for one in seen if one["problem"]]
    problems += [Check("keys", "checksum", FAIL, text) for text in noted["unlike"]]
    return Needs(tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(problems)))


def _looked(root: str, where: t.Mapping[str, str], trust: Trust) -> dict[str, str]:
    """The generation in use, and what is wrong with it; what nobody can read is no reason to do without a backup."""
    try:
        material = _material.read(**where)
        gone = _material.lost_since(root, material, trust)
        if not gone:
            id_ = _material.generation_of(root, material, trust).id if material.names else ""
            return {"generation": id_, "problem": ""}
        problem = f"keys: {', '.join(gone)}: there last time, and gone now; restore_keys.yml brings it back"
    except BackupError as exc:
        problem = exc.msg
    return {"generation": str((_generations.latest(root, trust) or {}).get("id", "")), "problem": problem}


class Kept:
    """What is in escrow, as ledger and signed indexes have it; read when it is first asked for."""

    def __init__(self, root: str, trust: Trust, chain: Chain | None = None) -> None:
        self._root, self._trust, self._chain = root, trust, chain
        self._bundles: dict[str, list[Escrowed]] | None = None
        self._arrived: set[tuple[str, str]] = set()
        self._back: set[str] = set()

    def checks(self, ids: t.Iterable[str]) -> list[Check]:
        """One for each generation, in words that tell what to do."""
        return [self._check(generation) for generation in ids]

    def _read(self) -> dict[str, list[Escrowed]]:
        if self._bundles is None:
            chain = self._chain or _ledger.load(self._root)
            # What was only made in the backup root isn't kept apart from anything.
            self._arrived = {(str(line.get("stamp")), str(line.get("half"))) for line in chain.of(_escrow.ARRIVED)}
            # What came from escrow is there.
            for line in chain.of(RESTORED):
                self._back |= {str(line.get("generation")), *map(str, line.get("in_escrow_too") or ())}
            self._bundles = {}
            for one in _escrow.load(self._root, self._trust)[0]:
                self._bundles.setdefault(one.generation, []).append(one)
        return self._bundles

    def _check(self, generation: str) -> Check:
        bundles, name = self._read().get(generation, []), f"key generation {generation}"
        if not bundles and generation in self._back:
            return Check(name, "checksum", PASS)
        if not bundles:
            reason = "isn't in escrow; backup.yml brings it there while its keys are on the host"
            return Check(name, "checksum", UNPROVEN, reason)
        states = [self._state(name, one) for one in reversed(bundles)]
        # Other recipients get a bundle of their own: one that is good is enough.
        return next((state for state in states if state.verdict == PASS), states[0])

    def _state(self, name: str, one: Escrowed) -> Check:
        away = [half for half in one.halves if (one.stamp, half) not in self._arrived]
        if away:
            halves = " and ".join(f"the half {half}" for half in away)
            reason = f"hasn't arrived at any place of {halves}; see to these places, then run backup.yml again"
            return Check(name, "checksum", UNPROVEN, reason)
        if damaged := one.damaged():
            reason = f"its escrowed copy isn't what was signed ({', '.join(damaged)}); backup.yml heals it from a place"
            return Check(name, "checksum", UNPROVEN, reason)
        shut = [check for check in one.content["checks"] if check["verdict"] == FAIL]
        if shut:
            return Check(name, "checksum", FAIL, f"its keys don't fit each other: {shut[0].get('reason', '')}")
        return Check(name, "checksum", PASS)


def judged(root: str, needs: Needs, trust: Trust, wanted: t.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    """What a manifest says of the keys: `expected`, `verdict`, and `reasons` why it isn't `pass`."""
    checks = [*Kept(root, trust).checks(needs.ids), *needs.problems]
    if not needs.ids:
        reason = "nobody knows which keys the data need: none were found on the host"
        checks.append(Check("keys", "checksum", UNPROVEN, reason))
    return {
        "expected": expected(trust.policy, wanted),
        "verdict": combine(check.verdict for check in checks),
        "reasons": [said(check) for check in checks if check.verdict != PASS],
    }


def said(check: Check) -> str:
    return check.reason if check.name == "keys" else f"{check.name}: {check.reason}"


@dataclass(frozen=True)
class Restoring:
    """What is known before a set is restored.

    Attributes:
        where: paths of this host's keys; all empty: nobody is to look at them.
        wanted: the operator's wishes, for whether there is an escrow.
        accept, because: refusals that the operator takes upon himself, and why.
    """

    where: t.Mapping[str, str]
    wanted: t.Mapping[str, t.Any]
    accept: t.Collection[str]
    because: str


def refuse_unfit(root: str, manifest: t.Mapping[str, t.Any], trust: Trust, how: Restoring) -> tuple[str, ...]:
    """Refuse a set whose keys aren't in escrow, or that this host's keys don't open.

    Returns:
        names of the refusals that were taken on.
    Raises:
        BackupError: in words that tell the generations and what to do; nothing was touched.
    """
    ids = tuple(manifest.get("key_generations") or ())
    wrong: dict[str, str] = {}
    made_for = (manifest.get("escrow") or {}).get("expected")
    if made_for or expected(trust.policy, how.wanted):
        away = [said(check) for check in Kept(root, trust).checks(ids) if check.verdict != PASS]
        if not ids:
            away = ["nobody knows which key generation its data need"]
        if away:
            wrong[NOT_IN_ESCROW] = "; ".join(away)
    if ids and any(how.where.values()):
        misfit = _misfit(root, ids[0], trust, how.where)
        if misfit:
            wrong[OTHER_GENERATION] = misfit
    refused = [name for name in wrong if name not in how.accept]
    if refused:
        raise BackupError(
            f"set: {manifest['set_id']}: {'; '.join(wrong[name] for name in refused)}",
            hint=(
                f"Nothing was touched. {_WAYS[refused[0]]} To restore it all the same, accept {' and '.join(refused)}"
                " by name, and say why (accept_because)."
            ),
        )
    if wrong and not how.because.strip():
        raise BackupError(
            f"accept_because: missing, and accept has {', '.join(wrong)}",
            hint="Say why; it is kept in the ledger. Nothing was touched.",
        )
    return tuple(wrong)


_WAYS = {
    NOT_IN_ESCROW: "Take another set, or bring the generation into escrow first.",
    OTHER_GENERATION: "Bring the set's keys back first (restore_keys.yml with mazevault_keys_generation).",
}


def _misfit(root: str, generation: str, trust: Trust, where: t.Mapping[str, str]) -> str:
    """Why data of a generation couldn't be decrypted with the keys of this host; empty where they can."""
    begin = f"its data need key generation {generation}, and"
    try:
        material = _material.read(**where)
    except BackupError as exc:
        return f"{begin} this host's keys can't be read ({exc.msg})"
    if not material.names:
        return f"{begin} this host has no keys ({', '.join(path for path in where.values() if path)})"
    live = _generations.current(root, material.values, material.files, trust, sources=material.sources, write=False).id
    if live == generation:
        return ""
    uses = f"{begin} this host uses {live or 'one that was never seen'}"
    try:
        found = _generations.differences(root, generation, material.values, material.files, trust)
    except BackupError:
        return f"{uses}; what the set's was isn't known here"
    names = [f"{name} ({found[name]})" for name in DECIDING if name in found]
    return f"{uses}: {', '.join(names)}" if names else ""
