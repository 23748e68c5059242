# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Are the halves of the escrow apart? What is tried, and what it comes to.

Different names prove nothing. What is shown to be shared is `fail`; `pass` needs that everything was tried and refused,
and that somebody vouches for what no program can see; all else is `unproven`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

LEVEL = "checksum"
_PROBE = ".mazevault-probe-"


@dataclass(frozen=True)
class Facts:
    """What one place showed to this account.

    Attributes:
        away: why nothing could be tried there.
        nonce: name of the file that was written here and removed again; empty where that was refused.
        listed: whether this account may see what lies here.
        folder: device and number of the folder.
        source: what is mounted there: kind, and source with the part of it.
        seen: nonces of other places that were here too, while they lay there.
    """

    path: str
    half: str
    away: str = ""
    nonce: str = ""
    listed: bool = False
    folder: tuple[int, int] = (0, 0)
    source: str = ""
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attestation:
    """Somebody's word for what is physical: where a place is, and until when that word holds (RFC 3339 date)."""

    path: str
    by: str
    where: str
    valid_until: str


def probe(places: t.Sequence[tuple[str, str]]) -> list[Facts]:
    """Write a file with a random name at each place, look for all of them everywhere, remove them.

    Args:
        places: (half, path) of each.
    """
    nonces: dict[str, str] = {}
    away: dict[str, str] = {}
    found: list[Facts] = []
    try:
        for _half, path in places:
            if not os.path.isabs(path) or not os.path.isdir(path):
                away[path] = "no folder that this host sees"
                continue
            name = f"{_PROBE}{secrets.token_hex(12)}"
            with contextlib.suppress(OSError):
                os.close(os.open(os.path.join(path, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                nonces[path] = name
        mounts = _mounts()
        for half, path in places:
            found.append(Facts(path, half, away[path]) if path in away else _look(half, path, nonces, mounts))
    finally:
        for path, name in nonces.items():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))
    return found


def judge(
    facts: t.Sequence[Facts], attestations: t.Sequence[Attestation], *, disjoint: bool, today: str
) -> list[Check]:
    """What the facts come to, with one check for each thing that has to be apart.

    Args:
        disjoint: whether the halves' recipients are.
        today: RFC 3339 date, for attestations.
    """
    checks = [
        Check("recipients", LEVEL, PASS)
        if disjoint
        else Check("recipients", LEVEL, FAIL, "somebody is a recipient of both halves")
    ]
    vault = [one for one in facts if one.half == "vault"]
    key = [one for one in facts if one.half == "key"]
    if not vault or not key:
        missing = "vault" if not vault else "key"
        checks.append(Check("places", LEVEL, UNPROVEN, f"the half {missing} has no place"))
    for one in vault:
        for other in key:
            checks.append(_pair(one, other))
    for one in facts:
        checks.append(_attested(one.path, attestations, today))
    return checks


def _pair(one: Facts, other: Facts) -> Check:
    name = f"{one.path} and {other.path}"
    shared = _shared(one, other)
    if shared:
        return Check(name, LEVEL, FAIL, shared)
    unknown = [f"{place.path}: {place.away}" for place in (one, other) if place.away]
    unknown += [f"{place.path}: nothing could be written there to look for" for place in (one, other)
                if not place.away and not place.nonce]  # fmt: skip
    if unknown:
        return Check(name, LEVEL, UNPROVEN, "; ".join(unknown))
    return Check(name, LEVEL, PASS)


def _shared(one: Facts, other: Facts) -> str:
    """What was shown to be the same; empty where nothing was."""
    if one.away or other.away:
        return ""
    if one.folder == other.folder or one.nonce in other.seen or other.nonce in one.seen:
        return "what is written at one is there at the other: it is one place by two names"
    if one.folder[0] == other.folder[0] or (one.source and one.source == other.source):
        return f"both are on the same file system ({one.source or 'of one device'})"
    if one.listed and other.listed:
        return "one account reads both: who has it has both halves, though encrypted to different people"
    return ""


def _attested(path: str, attestations: t.Sequence[Attestation], today: str) -> Check:
    name = f"attestation of {path}"
    ours = [one for one in attestations if one.path == path and one.by and one.where]
    valid = max([one.valid_until[:10] for one in ours], default="")
    if not ours:
        return Check(name, LEVEL, UNPROVEN, "nobody vouches for where it is")
    if valid < today:
        return Check(name, LEVEL, UNPROVEN, f"it was valid until {valid or 'no date'}")
    return Check(name, LEVEL, PASS)


def _look(half: str, path: str, nonces: t.Mapping[str, str], mounts: t.Mapping[str, str]) -> Facts:
    info = os.stat(path)
    seen = {name for place, name in nonces.items() if place != path and os.path.lexists(os.path.join(path, name))}
    try:
        os.listdir(path)
        listed = True
    except OSError:
        listed = False
    real = os.path.realpath(path)
    above = (place for place in mounts if real == place or real.startswith(place.rstrip("/") + "/"))
    source = mounts.get(max(above, key=len, default=""), "")
    return Facts(path, half, "", nonces.get(path, ""), listed, (info.st_dev, info.st_ino), source, tuple(sorted(seen)))


def _mounts() -> dict[str, str]:
    """Mount point -> kind and source of what is mounted there; the last one counts."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            before, _dash, after = line.partition(" - ")
            kind, source = after.split(" ")[:2]
            # Those that are made anew for each mount have a name that says nothing.
            same = source if kind not in ("tmpfs", "ramfs", "overlay") else f"{kind} {before.split(' ')[2]}"
            found[_unescaped(before.split(" ")[4])] = f"{kind} {same}"
    return found


def _unescaped(text: str) -> str:
    for written, meant in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(written, meant)
    return text
