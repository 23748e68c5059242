# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The append-only record of what was done to sets: each line holds the hash of the line before it.

A chain that doesn't hold vouches for nothing, but stops no backup: it is kept aside as it is, and a new one begins with
a line that names its hash.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path, sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._staging import locked

FIRST = "0" * 64
ANEW = "began anew"
Entry = dict[str, t.Any]


@dataclass(frozen=True)
class Chain:
    """A ledger as it was read.

    Attributes:
        entries: the lines that hold, in order.
        hashes: of these lines; the last one is the head.
        problem: why the chain ends there although the file goes on; empty for a whole chain.
        beyond: what can still be read after a break. It vouches for nothing.
        torn: (where, how many bytes) of a last line that a crash cut off.
    """

    entries: tuple[Entry, ...] = ()
    hashes: tuple[str, ...] = ()
    problem: str = ""
    beyond: tuple[Entry, ...] = ()
    torn: tuple[int, int] | None = None

    @property
    def head(self) -> str:
        return self.hashes[-1] if self.hashes else FIRST

    @property
    def vouching(self) -> tuple[Entry, ...]:
        """The lines that may be believed: of a broken chain none."""
        return () if self.problem else self.entries

    def of(self, event: str) -> list[Entry]:
        return [entry for entry in self.vouching if entry.get("event") == event]

    def published(self) -> t.Mapping[str, str]:
        """SHA-256 of SHA256SUMS by set id, as the chain has them; the first line of a set counts."""
        return self._published

    def records_of(self, set_id: str) -> t.Mapping[str, int]:
        """Places of the lines that tell of a set's records, by the records' SHA-256; of equal ones the first."""
        return self._records.get(set_id, {})

    # Asked for each set again, of a ledger that can have tens of thousands of lines.
    @functools.cached_property
    def _published(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in self.of("published"):
            found.setdefault(str(entry.get("set_id")), str(entry.get("sums_sha256")))
        return found

    @functools.cached_property
    def _records(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for place, entry in enumerate(self.vouching):
            if entry.get("record_sha256"):
                found.setdefault(str(entry.get("set_id")), {}).setdefault(str(entry["record_sha256"]), place)
        return found

    def last_set_sequence(self) -> int:
        """The highest number of a set that any line tells of, so that no number is used twice."""
        numbers = [entry.get(key) for entry in (*self.entries, *self.beyond) for key in ("set_sequence", "former_sets")]
        return max([number for number in numbers if isinstance(number, int)], default=0)


def path_of(root: str) -> str:
    return os.path.join(root, "ledger.jsonl")


def line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def load(root: str) -> Chain:
    return _load(path_of(root))


def read(root: str) -> list[Entry]:
    """All entries that can be read, also those of a broken chain."""
    chain = load(root)
    return [*chain.entries, *chain.beyond]


def head(root: str) -> str:
    """The hash of the last line that holds."""
    return load(root).head


def append(root: str, event: str, **facts: t.Any) -> str:
    """Add one line and flush it to the disk.

    A line torn by a crash is cut off, a broken chain is set aside; either is said in a line of its own.

    Returns:
        the new head.
    """
    path = path_of(root)
    with locked(os.path.join(root, ".ledger.lock")):
        chain = _load(path)
        lines: list[tuple[str, t.Mapping[str, t.Any]]] = [(event, facts)]
        if chain.problem:
            lines.insert(0, (ANEW, _set_aside(path, chain)))
            chain = Chain()
        elif chain.torn:
            lines.insert(0, ("healed", {"torn_bytes": chain.torn[1]}))
        return _write(path, chain, lines)


def begin_anew(root: str, problem: str, **facts: t.Any) -> None:
    """Say in the first line that a ledger should be here and isn't."""
    path = path_of(root)
    with locked(os.path.join(root, ".ledger.lock")):
        chain = _load(path)
        if not chain.entries and not chain.problem:
            _write(path, chain, [(ANEW, {"problem": problem, "former_file": None, **facts})])


def _write(path: str, chain: Chain, lines: t.Sequence[tuple[str, t.Mapping[str, t.Any]]]) -> str:
    last, count = chain.head, len(chain.entries)
    with open(path, "ab") as stream:
        os.fchmod(stream.fileno(), 0o600)
        if chain.torn:
            stream.truncate(chain.torn[0])
        for event, facts in lines:
            count += 1
            entry = {
                "sequence": count,
                "at": _clock.rfc3339(_clock.now()),
                "event": event,
                **facts,
                "previous": last,
            }
            line = json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()
            stream.write(line + b"\n")
            last = line_hash(line)
        stream.flush()
        os.fsync(stream.fileno())
    return last


def _set_aside(path: str, chain: Chain) -> dict[str, t.Any]:
    """Keep a broken ledger under another name; what the new one's first line says of it."""
    folder = os.path.dirname(path)
    moment = _clock.now()
    name = f"ledger.broken.{_clock.stamp(moment)}_{moment.microsecond:06d}.jsonl"
    facts = {
        "problem": chain.problem,
        "former_file": name,
        "former_sha256": sha256_file(path),
        "former_lines": len(chain.entries),
        "former_head": chain.head,
        "former_sets": chain.last_set_sequence(),
    }
    os.rename(path, os.path.join(folder, name))
    fsync_path(folder)
    return facts


def _load(path: str) -> Chain:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        return Chain()
    whole, _newline, rest = data.rpartition(b"\n")
    entries: list[Entry] = []
    hashes: list[str] = []
    beyond: list[Entry] = []
    problem = ""
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if problem:
            beyond += [entry] if isinstance(entry, dict) else []
        elif (
            not isinstance(entry, dict)
            or entry.get("previous") != (hashes[-1] if hashes else FIRST)
            or entry.get("sequence") != number
        ):
            problem = f"line {number} doesn't follow from the line before it"
            beyond += [entry] if isinstance(entry, dict) else []
        else:
            entries.append(entry)
            hashes.append(line_hash(line))
    torn = (len(data) - len(rest), len(rest)) if rest else None
    return Chain(tuple(entries), tuple(hashes), problem, tuple(beyond), torn)
