# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Whether a published set is still what the host signed and entered in its ledger; artefacts are not read."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import ANEW, Chain
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS, read_sums
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

# What the manifest says is believed before the whole set is read: so these files are compared with their sums at once.
_READ_EARLY = ("manifest.json", "manifest.private.json")


def standing_of(
    folder: str,
    manifest: t.Mapping[str, t.Any],
    trust: Trust,
    chain: Chain,
    accepted: t.Mapping[str, str],
) -> list[Check]:
    """Signature, manifest and line in the ledger of one set.

    Args:
        folder: of the set; its name is the set's id.
        accepted: sets of earlier ledgers that a person accepted, with the SHA-256 of their sums.
    """
    set_id = os.path.basename(folder)
    try:
        listed, digest = read_sums(folder), sha256_file(os.path.join(folder, SUMS))
    except (OSError, ValueError) as exc:
        return [Check("signature", "checksum", FAIL, f"{SUMS} can't be read: {exc}")]
    return [
        _signature(folder, set_id, trust, chain),
        _manifest(folder, set_id, manifest, listed),
        _entry(set_id, digest, chain, accepted),
    ]


def _signature(folder: str, set_id: str, trust: Trust, chain: Chain) -> Check:
    if not os.path.exists(os.path.join(folder, SUMS + SUFFIX)):
        return Check("signature", "checksum", UNPROVEN, f"no {SUMS}{SUFFIX}: nobody says where this set is from")
    if not trust.keys:
        return Check("signature", "checksum", UNPROVEN, "no verification key is here")
    signed = trust.signed_by(os.path.join(folder, SUMS))
    if signed:
        return Check("signature", "checksum", PASS, observed=f"key {signed[:16]}")
    if set_id in chain.published():
        return Check("signature", "checksum", FAIL, f"{SUMS} is not what a key that counts has signed")
    return Check("signature", "checksum", UNPROVEN, "signed by no key that is known here, and in no ledger either")


def _manifest(folder: str, set_id: str, manifest: t.Mapping[str, t.Any], listed: t.Mapping[str, str]) -> Check:
    if manifest.get("set_id") != set_id:
        return Check("manifest", "checksum", FAIL, f"it is that of {manifest.get('set_id')}")
    for name in _READ_EARLY:
        path = os.path.join(folder, name)
        if os.path.lexists(path) != (name in listed) or (name in listed and sha256_file(path) != listed[name]):
            return Check("manifest", "checksum", FAIL, f"{name} is not the one in {SUMS}")
    return Check("manifest", "checksum", PASS)


def _entry(set_id: str, digest: str, chain: Chain, accepted: t.Mapping[str, str]) -> Check:
    if chain.problem:
        return Check("ledger", "checksum", FAIL, f"the ledger is broken: {chain.problem}")
    entered = chain.published().get(set_id) or accepted.get(set_id)
    if entered and entered != digest:
        return Check("ledger", "checksum", FAIL, f"{SUMS} is not the one that was published", entered[:16], digest[:16])
    if entered:
        return Check("ledger", "checksum", PASS)
    if chain.of(ANEW):
        began = chain.of(ANEW)[0]
        return Check(
            "ledger",
            "checksum",
            UNPROVEN,
            f"it is older than the ledger, which began anew at {began['at']} ({began.get('problem')})"
            " and nobody has accepted it since",
        )
    return Check("ledger", "checksum", UNPROVEN, "the ledger doesn't know it")
