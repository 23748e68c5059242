# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Are the halves of the escrow apart? What is tried, and what it comes to.

Different names prove nothing. What is shown to be shared is `fail`; `pass` needs that everything was tried and refused,
and that somebody vouches for what no program can see; all else is `unproven`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

LEVEL = "checksum"
_PROBE = ".mazevault-probe-"
_IS_PROBE = re.compile(r"\.mazevault-probe-[0-9a-f]{24}\Z")
# Mounts whose source means the same thing on every host.
_OF_A_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.rclone")
# How SSH, sudo, su and doas say that somebody isn't let in; anything else might be a cable.
_REFUSALS = re.compile(
    r"permission denied|authentication fail|invalid/incorrect password|incorrect \w* ?password|missing \w* ?password"
    r"|not in the sudoers|not allowed to (?:run|execute)|a password is required|operation not permitted",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Facts:
    """What one place showed.

    Attributes:
        away: why nothing could be tried there.
        nonce: name of the file that was written here and removed again; empty where that was refused.
        listed: whether the account that looked may see what lies here.
        folder: device and number of the folder.
        source: what is mounted there: kind, and source with the part of it.
        seen: nonces of other places that were here too, while they lay there.
        host: what tells the host from others; empty for the host that judges.
        own: an account of its own looked here. False: the same one looked at all such places.
    """

    path: str
    half: str
    away: str = ""
    nonce: str = ""
    listed: bool = False
    folder: tuple[int, ...] = (0, 0)
    source: str = ""
    seen: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True)
class Crossing:
    """A place's credential, tried at a place of the other half.

    Attributes:
        could: what wasn't refused.
        unknown: why it isn't known; both empty: it was refused.
    """

    credential_of: str
    at: str
    could: tuple[str, ...] = ()
    unknown: str = ""


@dataclass(frozen=True)
class Attestation:
    """Somebody's word for what is physical: where a place is, and until when that word holds (RFC 3339 date)."""

    path: str
    by: str
    where: str
    valid_until: str


def is_probe(name: str) -> bool:
    return bool(_IS_PROBE.match(name))


def plant(path: str) -> dict[str, t.Any]:
    """Write a file with a random name, and tell where that is."""
    if not os.path.isabs(path) or not os.path.isdir(path):
        return {"problem": "no folder that this account sees"}
    name = f"{_PROBE}{secrets.token_hex(12)}"
    try:
        os.close(os.open(os.path.join(path, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        name = ""
    info = os.stat(path)
    return {
        "nonce": name,
        "folder": [info.st_dev, info.st_ino],
        "source": _source_of(path, _mounts()),
        "host": _host(),
        "listed": _lists(path),
    }


def seen_at(path: str, nonces: t.Iterable[str]) -> list[str]:
    return sorted(name for name in nonces if os.path.lexists(os.path.join(path, name)))


def attempt(path: str, nonce: str) -> list[str]:
    """What an account could do here that it has to be refused; its own file is all that it tries it with."""
    could = ["list"] if _lists(path) else []
    name = os.path.join(path, nonce)
    with contextlib.suppress(OSError), open(name, "rb"):
        could.append("read")
    with contextlib.suppress(OSError):
        os.unlink(name)
        could.append("delete")
    return could


def remove(path: str, nonce: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(path, nonce))


def probe(places: t.Sequence[tuple[str, str]]) -> list[Facts]:
    """Write a file at each place, look for all of them everywhere, remove them; all by this account.

    Args:
        places: (half, path) of each.
    """
    planted = {path: plant(path) for _half, path in places}
    try:
        nonces = {path: one["nonce"] for path, one in planted.items() if one.get("nonce")}
        return [_facts(half, path, planted[path], seen_at(path, nonces.values())) for half, path in places]
    finally:
        for path, one in planted.items():
            if one.get("nonce"):
                remove(path, one["nonce"])


def facts_of(planted: t.Sequence[t.Mapping[str, t.Any]], looked: t.Sequence[t.Mapping[str, t.Any]]) -> list[Facts]:
    """From what each host told of itself."""
    seen = {one["item"]["item"]["name"]: one.get("seen") or [] for one in looked if "item" in one.get("item", {})}
    found = []
    for one in planted:
        place = one["item"]
        if "could" not in one:
            said = " ".join(str(one.get("msg") or "no reason was given").split())[:300]
            found.append(Facts(place["name"], place["half"], f"its host was not asked: {said}", own=True))
        else:
            found.append(_facts(place["half"], place["name"], one, seen.get(place["name"], ()), own=True))
    return found


def crossing_of(told: t.Mapping[str, t.Any]) -> Crossing:
    """From how a try ended: only an outspoken refusal is one."""
    names = str(told.get("credential_of")), str(told.get("at"))
    if "could" in told:
        return Crossing(*names, could=tuple(told["could"]))
    said = " ".join(str(told.get("msg") or "no reason was given").split())
    return Crossing(*names) if _REFUSALS.search(said) else Crossing(*names, unknown=said[:300])


def _facts(half: str, path: str, told: t.Mapping[str, t.Any], seen: t.Iterable[str], *, own: bool = False) -> Facts:
    if told.get("problem"):
        return Facts(path, half, str(told["problem"]), own=own)
    return Facts(
        path,
        half,
        nonce=told["nonce"],
        listed=bool(told["listed"]),
        folder=tuple(told["folder"]),
        source=told["source"],
        seen=tuple(sorted(set(seen) - {told["nonce"]})),
        host=tuple(told["host"]),
        own=own,
    )


def judge(
    facts: t.Sequence[Facts],
    attestations: t.Sequence[Attestation],
    crossings: t.Sequence[Crossing] = (),
    *,
    disjoint: bool,
    today: str,
) -> list[Check]:
    """What the facts come to, with one check for each thing that has to be apart.

    Args:
        crossings: needed both ways between any two places of which each has an account of its own.
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
            if one.own or other.own:
                checks += [_refused(one.path, other.path, crossings), _refused(other.path, one.path, crossings)]
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
    if one.nonce in other.seen or other.nonce in one.seen:
        return "what is written at one is there at the other: it is one place by two names"
    if set(one.host) & set(other.host) or not (one.host and other.host):
        # Numbers of devices and folders are the same on many hosts: they tell something on one only.
        if one.folder == other.folder:
            return "both are one folder: it is one place by two names"
        if one.folder[0] == other.folder[0] or (one.source and one.source == other.source):
            return f"both are on the same file system ({one.source or 'of one device'})"
        if one.own and other.own:
            return "both are on one host: whoever has it has both halves, though encrypted to different people"
    elif one.source == other.source and one.source.split(" ")[0] in _OF_A_NETWORK:
        return f"both are the same mount ({one.source})"
    if one.listed and other.listed and not one.own and not other.own:
        return "one account reads both: who has it has both halves, though encrypted to different people"
    return ""


def _refused(credential_of: str, at: str, crossings: t.Sequence[Crossing]) -> Check:
    """The account of one half has nothing to look for at the other's."""
    name = f"the account of {credential_of} at {at}"
    tried = [one for one in crossings if (one.credential_of, one.at) == (credential_of, at)]
    for one in tried:
        if one.could:
            return Check(name, LEVEL, FAIL, f"one credential opens both places: it could {', '.join(one.could)}")
    unknown = next((one.unknown for one in tried if one.unknown), "" if tried else "nobody tried")
    return Check(name, LEVEL, UNPROVEN, unknown) if unknown else Check(name, LEVEL, PASS)


def _attested(path: str, attestations: t.Sequence[Attestation], today: str) -> Check:
    name = f"attestation of {path}"
    ours = [one for one in attestations if one.path == path and one.by and one.where]
    valid = max([one.valid_until[:10] for one in ours], default="")
    if not ours:
        return Check(name, LEVEL, UNPROVEN, "nobody vouches for where it is")
    if valid < today:
        return Check(name, LEVEL, UNPROVEN, f"it was valid until {valid or 'no date'}")
    return Check(name, LEVEL, PASS)


def _lists(path: str) -> bool:
    try:
        os.listdir(path)
    except OSError:
        return False
    return True


def _host() -> list[str]:
    """What no two hosts have in common, unless one was made of the other."""
    found = []
    for name in ["/etc/machine-id", *sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub"))]:
        with contextlib.suppress(OSError), open(name, encoding="utf-8", errors="replace") as stream:
            # A key's comment is a name, which proves nothing.
            found.append(" ".join(stream.read().split()[:2]))
    return [one for one in found if one]


def _source_of(path: str, mounts: t.Mapping[str, str]) -> str:
    real = os.path.realpath(path)
    above = (place for place in mounts if real == place or real.startswith(place.rstrip("/") + "/"))
    return mounts.get(max(above, key=len, default=""), "")


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
