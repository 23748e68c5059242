# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The append-only record of what was done to sets: each line holds the hash of the line before it."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._staging import locked

FIRST = "0" * 64


def path_of(root: str) -> str:
    return os.path.join(root, "ledger.jsonl")


def line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def read(root: str) -> list[dict[str, t.Any]]:
    """The entries, the chain checked.

    Raises:
        BackupError: a line doesn't follow from the one before it.
    """
    entries, _head, _torn = _load(path_of(root))
    return entries


def head(root: str) -> str:
    """The hash of the last line."""
    return _load(path_of(root))[1]


def append(root: str, event: str, **facts: t.Any) -> str:
    """Add one line and flush it to the disk; a line torn by a crash is cut off and that is said in a line of its own.

    Returns:
        the new head.
    """
    path = path_of(root)
    with locked(os.path.join(root, ".ledger.lock")):
        entries, last, torn = _load(path)
        with open(path, "ab") as stream:
            os.fchmod(stream.fileno(), 0o600)
            if torn:
                stream.truncate(torn[0])
            for name, more in ([("healed", {"torn_bytes": torn[1]})] if torn else []) + [(event, facts)]:
                entry = {
                    "sequence": len(entries) + 1,
                    "at": _clock.rfc3339(_clock.now()),
                    "event": name,
                    **more,
                    "previous": last,
                }
                line = json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()
                stream.write(line + b"\n")
                entries.append(entry)
                last = line_hash(line)
            stream.flush()
            os.fsync(stream.fileno())
    return last


def _load(path: str) -> tuple[list[dict[str, t.Any]], str, tuple[int, int] | None]:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        return [], FIRST, None
    whole, _newline, rest = data.rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    entries: list[dict[str, t.Any]] = []
    last = FIRST
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("previous") != last or entry.get("sequence") != number:
            raise BackupError(
                f"ledger: {path}: line {number} doesn't follow from the line before it",
                hint="Somebody or something changed the ledger. Keep a copy and find out before you trust these sets.",
            )
        entries.append(entry)
        last = line_hash(line)
    return entries, last, (len(data) - len(rest), len(rest)) if rest else None
