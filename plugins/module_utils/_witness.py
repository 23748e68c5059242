# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The witness's own book, on the control node: one signed, hash-chained line for each thing that it saw.

A line is JSON with sorted keys and no blanks; its signature covers the line without the field `signature`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer, key_id, verify_bytes
from ansible_collections.mazevault.backup.plugins.module_utils._staging import locked
from ansible_collections.mazevault.backup.plugins.module_utils._testimony import Point, SeenSet, Testimony
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

FIRST = "0" * 64
WITNESSED, ACCEPTED, HEALED, STAMPED = "witnessed", "accepted", "healed", "time stamp"
Line = dict[str, t.Any]


def canonical(content: t.Mapping[str, t.Any]) -> bytes:
    """One value, one text; what `jq -cSj` prints too."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Book:
    """One installation's lines, in a file that only grows."""

    def __init__(self, folder: str, installation: str, signer: Signer) -> None:
        # The name becomes a file's.
        if not installation or installation.startswith(".") or "/" in installation or "\0" in installation:
            raise BackupError(
                f"installation: {installation!r}: can't be a file's name", hint="Give the inventory hostname."
            )
        self.path = os.path.join(folder, f"{installation}.jsonl")
        self._signer = signer

    def read(self) -> tuple[list[Line], str]:
        """The lines, and why they can't be believed (empty where they can)."""
        lines, problem, _head, _torn = self._load()
        if lines and not problem and not self._signed(lines[-1]):
            # Each line holds the hash of the one before: the last signature speaks for all.
            problem = f"{self.path}: line {len(lines)} is not signed by this witness"
        return lines, problem

    def append(self, event: str, facts: t.Mapping[str, t.Any]) -> Line:
        """Add one line, signed and flushed; a line that a crash tore is cut off, and that is said.

        Raises:
            BackupError: the book was changed by somebody else.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        with locked(f"{self.path}.lock"):
            problem = self.read()[1]
            if problem:
                raise BackupError(
                    problem,
                    hint="Keep a copy, find out who changed it, and move it away: then a new book begins.",
                )
            lines, _problem, head, torn = self._load()
            entry: Line = {}
            with open(self.path, "ab") as stream:
                os.fchmod(stream.fileno(), 0o600)
                if torn:
                    stream.truncate(torn[0])
                count = len(lines)
                for name, more in ([(HEALED, {"torn_bytes": torn[1]})] if torn else []) + [(event, dict(facts))]:
                    count += 1
                    entry = {**more, "event": name, "sequence": count, "previous": head}
                    entry["at"] = _clock.rfc3339(_clock.now())
                    entry["signature"] = base64.b64encode(self._signer.sign_bytes(canonical(entry))).decode()
                    data = canonical(entry)
                    stream.write(data + b"\n")
                    head = hashlib.sha256(data).hexdigest()
                stream.flush()
                os.fsync(stream.fileno())
        return {**entry, "sha256": head}

    def _signed(self, line: Line) -> bool:
        unsigned = {key: value for key, value in line.items() if key != "signature"}
        try:
            signature = base64.b64decode(str(line.get("signature")), validate=True)
        except (ValueError, binascii.Error):
            return False
        return verify_bytes(canonical(unsigned), signature, [self._signer.public()]) is not None

    def _load(self) -> tuple[list[Line], str, str, tuple[int, int] | None]:
        try:
            with open(self.path, "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            return [], "", FIRST, None
        whole, _newline, rest = data.rpartition(b"\n")
        lines: list[Line] = []
        head = FIRST
        for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or line.get("previous") != head or line.get("sequence") != number:
                return lines, f"{self.path}: line {number} doesn't follow from the line before it", head, None
            lines.append(line)
            head = hashlib.sha256(text).hexdigest()
        return lines, "", head, (len(data) - len(rest), len(rest)) if rest else None


def testimony_of(lines: t.Sequence[Line], problem: str) -> Testimony:
    """What the lines come to; an acceptance makes a fresh start for the ledger, not for the sets' hashes."""
    points: list[Point] = []
    sets: dict[str, SeenSet] = {}
    keys: list[str] = []
    for line in lines:
        if line["event"] not in (WITNESSED, ACCEPTED):
            continue
        if line["event"] == ACCEPTED:
            points = []
            sets = {name: SeenSet(seen.sums_sha256, seen.sequence, seen.time, True) for name, seen in sets.items()}
        points.append(Point(int(line["ledger_lines"]), str(line["ledger_head"]), str(line["at"])))
        if line.get("host_key") and (line["event"] == ACCEPTED or not keys):
            keys.append(key_id(line["host_key"]))
        if line.get("set_id"):
            # What was seen first counts: a set never changes.
            seen = SeenSet(str(line["sums_sha256"]), int(line["set_sequence"]), str(line.get("time") or UNPROVEN))
            sets.setdefault(str(line["set_id"]), seen)
    return Testimony(tuple(points), sets, tuple(dict.fromkeys(keys)), problem)


def judge(seen: t.Mapping[str, t.Any], before: Testimony, skew: float | None, max_skew: float) -> list[Check]:
    """What a witness can tell at once of what it is shown, by what it saw before."""
    checks = []
    longest = max(before.points, key=lambda point: point.lines, default=None)
    if longest is None:
        late = int(seen.get("set_sequence") or 0) > 1
        reason = "this witness sees the installation for the first time, and knows nothing of its older sets"
        checks.append(Check("ledger", "checksum", UNPROVEN if late else PASS, reason if late else ""))
    elif int(seen["ledger_lines"]) < longest.lines:
        reason = f"the ledger has {seen['ledger_lines']} lines, and had {longest.lines} at {longest.at}"
        checks.append(Check("ledger", "checksum", FAIL, reason))
    elif int(seen["ledger_lines"]) == longest.lines and seen["ledger_head"] != longest.head:
        checks.append(Check("ledger", "checksum", FAIL, f"its last line is not the one that was seen at {longest.at}"))
    else:
        checks.append(Check("ledger", "checksum", PASS))
    known = dict(before.sets)
    set_id = str(seen.get("set_id") or "")
    if set_id in known and known[set_id].sums_sha256 != seen["sums_sha256"]:
        checks.append(Check("set", "checksum", FAIL, f"{set_id} is not the set that was seen before"))
    newest = max([found.sequence for found in known.values()], default=0)
    if set_id and set_id not in known and int(seen["set_sequence"]) <= newest:
        reason = f"its number is {seen['set_sequence']}, and a witness saw {newest} before"
        checks.append(Check("set", "checksum", FAIL, reason))
    if before.host_keys and key_id(str(seen["host_key"])) not in before.host_keys:
        checks.append(Check("host key", "checksum", FAIL, "the host signs with another key than before"))
    if skew is None or abs(skew) > max_skew:
        reason = "the host's time is not known" if skew is None else f"the clocks differ by {skew:.0f} s"
        checks.append(Check("time", "checksum", UNPROVEN, reason))
    else:
        checks.append(Check("time", "checksum", PASS))
    return checks
