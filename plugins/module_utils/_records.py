# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What was proven or done later: signed files whose hashes are lines of the ledger, and what they come to."""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN

RECORD_VERSION = 1
# Beside the sets' own folders: records that are about the ledger itself, and about evidence.
ABOUT_THE_LEDGER = "ledger"
ABOUT_EVIDENCE = "evidence"
Record = dict[str, t.Any]


@dataclass
class Filed:
    """The records of one folder.

    Attributes:
        counting: those that the ledger vouches for and that a key which counts has signed, in the ledger's order.
        forged: what is wrong with the others that no crash can have left, by file name.
        stray: those that a crash may have left before the ledger knew of them; they don't count either.
    """

    counting: list[Record] = field(default_factory=list)
    forged: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)


def folder_of(root: str, set_id: str) -> str:
    return os.path.join(root, "records", set_id)


def aside_of(root: str) -> str:
    """Where sets are moved before they are deleted: on the file system of `sets/`, and no run that is at work."""
    return os.path.join(root, "staging", ".removing")


def write_signed(path: str, content: t.Mapping[str, t.Any], trust: Trust) -> str:
    """Write a JSON file and its signature; the file's SHA-256.

    The signature comes first: a file without one was never ours, whatever crashed.
    """
    data = (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    write_file(path + SUFFIX, trust.signer.sign_bytes(data))
    write_file(path, data)
    return sha256_file(path)


def write_record(root: str, set_id: str, kind: str, content: t.Mapping[str, t.Any], trust: Trust) -> str:
    """Write `records/<set id>/<time>-<kind>.json`, signed, put its hash into the ledger, return its path."""
    moment = _clock.now()
    folder = folder_of(root, set_id)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{_clock.stamp(moment)}_{moment.microsecond:06d}-{kind}.json")
    whole = {
        "schema_version": RECORD_VERSION,
        "set_id": set_id,
        "kind": kind,
        "at": _clock.rfc3339(moment),
        **trust.stamp(),
        **content,
    }
    digest = write_signed(path, whole, trust)
    _ledger.append(root, f"record {kind}", set_id=set_id, record_sha256=digest, verdict=content.get("verdict"))
    return path


def look_at(root: str, set_id: str, trust: Trust, chain: Chain) -> Filed:
    """Sort the records of one set into those that count and those that don't."""
    found = Filed()
    folder = folder_of(root, set_id)
    lines = dict(chain.records_of(set_id))
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        names = []
    counting = []
    for name in names:
        path = os.path.join(folder, name)
        digest, content = _read(path)
        place = lines.pop(digest, None)
        if not trust.keys:
            found.stray.append(name)
        elif trust.signed_by(path) is None:
            found.forged[name] = "no signature of a key that counts"
        elif content is None or content.get("set_id") != set_id:
            found.forged[name] = "it was made for another set"
        elif place is None:
            found.stray.append(name)
        else:
            counting.append((place, content))
    found.counting = [content for _place, content in sorted(counting, key=lambda pair: pair[0])]
    for place in sorted(lines.values()):
        entry = chain.vouching[place]
        found.forged[f"line {entry['sequence']} of the ledger"] = f"its {entry['event']} is gone"
    return found


def records_of(root: str, set_id: str, trust: Trust) -> list[Record]:
    """The records of one set that count, oldest first."""
    return look_at(root, set_id, trust, _ledger.load(root)).counting


def accepted_sets(root: str, trust: Trust, chain: Chain) -> dict[str, str]:
    """Sets of earlier ledgers that a person has accepted: SHA-256 of SHA256SUMS by id."""
    found: dict[str, str] = {}
    for record in look_at(root, ABOUT_THE_LEDGER, trust, chain).counting:
        if record.get("kind") == "accepted":
            found.update(record.get("sets") or {})
    return found


def removed_evidence(root: str, trust: Trust, chain: Chain) -> dict[str, str]:
    """Evidence whose time was over: SHA-256 by file name, as signed records of its removal have it."""
    found: dict[str, str] = {}
    for record in look_at(root, ABOUT_EVIDENCE, trust, chain).counting:
        if record.get("kind") == "removed":
            found.update(record.get("files") or {})
    return found


def proofs_of(manifest: t.Mapping[str, t.Any], records: t.Sequence[Record]) -> list[t.Mapping[str, t.Any]]:
    """Every proof of a set, that of its publication first.

    A proof of some of its components can show that it is bad, never that it is good.
    """
    history = [manifest["verification"], *(record for record in records if record.get("kind") == "verify")]
    whole = set(manifest.get("components") or ())
    return [one for one in history if one.get("verdict") == FAIL or whole <= set(one.get("components", ["postgres"]))]


def newest_proof(manifest: t.Mapping[str, t.Any], records: t.Sequence[Record]) -> dict[str, t.Any]:
    """What is known of a set: a failure stays until the level that failed passes; else the highest level proven."""
    best: dict[str, t.Any] = {"verdict": UNPROVEN, "level": "", "at": None}
    failed = -1
    for proof in proofs_of(manifest, records):
        verdict, level = proof.get("verdict"), str(proof.get("level") or "")
        rank, held = _rank(level), _rank(best["level"])
        known = {"verdict": verdict, "level": level, "at": proof.get("at")}
        if verdict == FAIL:
            failed = max(failed, _failed_rank(proof))
            best = known
        elif verdict == PASS and best["verdict"] == FAIL:
            if rank >= failed:
                best, failed = known, -1
        elif (verdict == PASS and (best["verdict"] == UNPROVEN or rank >= held)) or (
            verdict == UNPROVEN and best["verdict"] == UNPROVEN and rank > held
        ):
            best = known
    return best


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else -1


def _failed_rank(proof: t.Mapping[str, t.Any]) -> int:
    """The highest level at which a failure was found; `level` of a proof is only the one that was still reached."""
    found = [_rank(str(check.get("level"))) for check in proof.get("checks") or () if check.get("verdict") == FAIL]
    if found:
        return max(found)
    return max(_rank(str(proof.get("wanted") or "")), min(_rank(str(proof.get("level") or "")) + 1, len(LEVELS) - 1))


def _read(path: str) -> tuple[str, Record | None]:
    """(SHA-256, content); the content is None where it is no JSON object."""
    digest = sha256_file(path)
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return digest, None
    return digest, content if isinstance(content, dict) else None
