# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a witness saw of an installation, and whether ledger and sets still are that. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._signature import key_id
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

VERSION = 1


@dataclass(frozen=True)
class Point:
    """The ledger at one moment: so many lines, and the hash of the last one."""

    lines: int
    head: str
    at: str


@dataclass(frozen=True)
class SeenSet:
    """A set as it was when it was published.

    Attributes:
        time: `pass` where the host's clock agreed with the witness's, else `unproven`.
        may_be_gone: a person accepted what came after it.
    """

    sums_sha256: str
    sequence: int
    time: str = PASS
    may_be_gone: bool = False


@dataclass(frozen=True)
class Testimony:
    """All that a witness has to say.

    Attributes:
        points: since the last acceptance by a person, oldest first.
        host_keys: ids of the keys that the host signed with when they were first seen or accepted.
        problem: why the witness itself can't be believed; empty where it can.
    """

    points: tuple[Point, ...] = ()
    sets: t.Mapping[str, SeenSet] = field(default_factory=dict)
    host_keys: tuple[str, ...] = ()
    problem: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        """What travels from the control node to the host."""
        return {
            "version": VERSION,
            "points": [[point.lines, point.head, point.at] for point in self.points],
            "sets": {
                name: [seen.sums_sha256, seen.sequence, seen.time, seen.may_be_gone]
                for name, seen in dict(self.sets).items()
            },
            "host_keys": list(self.host_keys),
            "problem": self.problem,
        }


def parse(said: t.Mapping[str, t.Any]) -> Testimony:
    """The testimony out of a module's parameter.

    Raises:
        BackupError: it isn't one.
    """
    try:
        if int(said["version"]) != VERSION:
            raise ValueError(f"version {said['version']}")
        return Testimony(
            tuple(Point(int(lines), str(head), str(at)) for lines, head, at in said["points"]),
            {
                str(name): SeenSet(str(sums), int(sequence), str(time), bool(gone))
                for name, (sums, sequence, time, gone) in said["sets"].items()
            },
            tuple(map(str, said["host_keys"])),
            str(said["problem"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BackupError(
            f"testimony: not what a witness says: {exc}",
            hint="Pass what recovery_set_witness returned as testimony, of the same version of the collection.",
        ) from exc


def compare_ledger(chain: Chain, testimony: Testimony) -> Check:
    """`fail` when the ledger is shorter than it was, or different where it was seen."""
    name = "ledger as witnessed"
    if testimony.problem:
        return Check(name, "checksum", FAIL, testimony.problem)
    if not testimony.points:
        return Check(name, "checksum", UNPROVEN, "no witness has seen this ledger")
    held = ""
    for point in sorted(testimony.points, key=lambda seen: seen.lines):
        if point.lines > len(chain.hashes):
            reason = (
                f"it has {len(chain.hashes)} lines, a witness saw {point.lines} at {point.at}:"
                " its end was cut off, or an older copy took its place"
            )
            return Check(name, "checksum", FAIL, reason, f"{point.lines} lines", f"{len(chain.hashes)} lines")
        if point.lines and chain.hashes[point.lines - 1] != point.head:
            reason = f"line {point.lines} is not the one that a witness saw at {point.at}: it was rewritten{held}"
            return Check(name, "checksum", FAIL, reason, point.head[:16], chain.hashes[point.lines - 1][:16])
        held = f" after line {point.lines}"
    last = max(testimony.points, key=lambda seen: seen.lines)
    return Check(name, "checksum", PASS, observed=f"{last.lines} of {len(chain.hashes)} lines were seen, by {last.at}")


def compare_sets(present: t.Mapping[str, str], gone: t.Container[str], testimony: Testimony) -> Check:
    """`fail` when a set isn't the one that was seen, or isn't there although nobody removed it.

    Args:
        present: SHA-256 of SHA256SUMS by set id.
        gone: sets that a signed record says were removed.
    """
    name, problems = "sets as witnessed", []
    for set_id, seen in sorted(dict(testimony.sets).items()):
        if set_id in present:
            if present[set_id] != seen.sums_sha256:
                problems.append(f"{set_id}: not the set that a witness saw")
        elif set_id not in gone and not seen.may_be_gone:
            problems.append(f"{set_id}: a witness saw it, and it is gone")
    if problems:
        return Check(name, "checksum", FAIL, "; ".join(problems[:3]), observed=f"{len(problems)} differ")
    unseen = sorted(present.keys() - dict(testimony.sets).keys())
    if unseen:
        return Check(name, "checksum", UNPROVEN, f"seen by no witness: {', '.join(unseen[-3:])}")
    if not present:
        return Check(name, "checksum", UNPROVEN, "there is no set")
    return Check(name, "checksum", PASS, observed=f"{len(present)} sets")


def compare_key(public: str, testimony: Testimony) -> Check:
    """Whether the host signs with the key that it was first seen with."""
    name = "host key"
    if not testimony.host_keys:
        return Check(name, "checksum", UNPROVEN, "no witness has seen the host's key")
    if not public:
        return Check(name, "checksum", UNPROVEN, "the host has no key")
    own = key_id(public)
    if own not in testimony.host_keys:
        reason = "the host signs with another key than it was first seen with"
        return Check(name, "checksum", FAIL, reason, testimony.host_keys[-1][:16], own[:16])
    return Check(name, "checksum", PASS, observed=own[:16])


def compare_time(newest: str | None, testimony: Testimony) -> Check:
    """Whether the newest set's times are those of a clock that agreed with somebody else's."""
    seen = dict(testimony.sets).get(newest or "")
    if seen is None:
        return Check(
            "time", "checksum", UNPROVEN, "no witness saw the newest set, so its time is the host's word alone"
        )
    if seen.time != PASS:
        return Check(
            "time", "checksum", UNPROVEN, f"{newest}: the clocks of host and witness differed by over a minute"
        )
    return Check("time", "checksum", PASS)
