# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is known of the past beyond the sets that are here: removed sets, restores, and drills from their first line."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

# The ledger's line when a drill begins, with `drill` (its name) and `scenario`; evidence of this kind ends it.
DRILL_STARTED, DRILL = "drill started", "drill"
Entry = dict[str, t.Any]


def gone_sets(chain: Chain, present: t.Container[str]) -> list[Entry]:
    """Sets that were published and are not here any more, as the ledger has them, oldest first."""
    found: dict[str, Entry] = {}
    for line in chain.of("published"):
        set_id = str(line.get("set_id"))
        if set_id not in present:
            known = {name: line.get(name) for name in ("recovery_point", "verdict", "level")}
            found.setdefault(set_id, {"set_id": set_id, "published_at": line["at"], **known})
    return list(found.values())


def evidence_of(root: str, trust: Trust, chain: Chain) -> list[Entry]:
    """Evidence that counts: signed by a key that counts, its hash in a line of the ledger; in the ledger's order."""
    files: dict[str, str] = {}
    folder = os.path.join(root, "evidence")
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        names = []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            files[sha256_file(path)] = path
    found = []
    for line in chain.vouching:
        path = files.get(str(line.get("evidence_sha256")), "")
        if path and trust.signed_by(path):
            content = _read(path)
            if content is not None:
                found.append({"name": os.path.basename(path)[: -len(".json")], **content})
    return found


def drills_of(chain: Chain, evidence: t.Iterable[Entry]) -> list[Entry]:
    """Every drill that ever began here; one whose evidence isn't there has no end."""
    ended = {str(one.get("drill") or one["name"]): one for one in evidence if one.get("what") == DRILL}
    found = []
    for line in chain.of(DRILL_STARTED):
        name = str(line.get("drill"))
        told = ended.pop(name, {})
        found.append(_drill(name, line.get("scenario"), line["at"], told))
    # Without a line at its begin it could have been tried before, unseen; it is shown and proves nothing.
    for name, told in ended.items():
        found.append({**_drill(name, told.get("scenario"), told.get("started_at"), told), "verdict": "unproven"})
    return found


def restores_of(evidence: t.Iterable[Entry]) -> list[Entry]:
    """Real restores and rollbacks, as short as a list of them wants it."""
    return [
        {"name": one["name"], "what": str(one.get("what")), "at": str(one.get("at"))}
        for one in evidence
        if one.get("what") != DRILL
    ]


def _drill(name: str, scenario: t.Any, started: t.Any, told: t.Mapping[str, t.Any]) -> Entry:
    return {
        "name": name,
        "scenario": scenario,
        "started_at": started,
        "ended_at": told.get("ended_at"),
        "seconds": told.get("seconds"),
        "segments": dict(told.get("segments") or {}),
        "verdict": told.get("verdict") or "unproven",
    }


def _read(path: str) -> Entry | None:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
