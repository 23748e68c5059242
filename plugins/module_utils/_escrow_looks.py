# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What the looks at all places of the escrow come to, and what places on other hosts are asked."""

from __future__ import annotations

import base64
import binascii
import typing as t
from dataclasses import asdict

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _escrow
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow import Escrowed
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES, Copy, Look, stamp_in
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

# What one run carries of a half; the next one goes on. It passes through the memory of the control node.
CARRIED_BYTES = 16 << 20


def copies_of(known: t.Sequence[Escrowed], half: str) -> dict[str, tuple[Escrowed, Copy]]:
    """All that has to be at each place of a half, by name."""
    return {copy.name: (one, copy) for one in known if half in one.halves for copy in one.copies(half)}


def asked(place: t.Mapping[str, str], known: t.Sequence[Escrowed], known_as: str, *, fresh: bool) -> dict[str, t.Any]:
    """What a place on another host is to be compared with."""
    copies = [asdict(copy) for _one, copy in copies_of(known, place["half"]).values()]
    return {**place, "known_as": known_as, "fresh": fresh, "copies": copies}


def look_of(place: t.Mapping[str, str], told: t.Mapping[str, t.Any], known: t.Sequence[Escrowed]) -> Look:
    """A look that was taken on another host.

    What has to be there by now counts: a generation that is newer than the look isn't there.
    """
    found = Look(place["name"], place["half"], str(told.get("place_id") or ""), problem=str(told.get("problem") or ""))
    found.wrong = {str(name): str(why) for name, why in (told.get("wrong") or {}).items()}
    found.healed = [str(name) for name in told.get("healed") or ()]
    whole = told.get("whole") or {}
    for name, (_one, copy) in copies_of(known, place["half"]).items():
        if whole.get(name) != copy.sha256 and not found.problem:
            found.wrong.setdefault(name, "missing")
            found.healed = [one for one in found.healed if one != name]
    return found


def resting(look: Look, known: t.Sequence[Escrowed], chain: Chain, days: float) -> Check:
    """What is known of a medium that isn't plugged in: has it every generation, and when was it last looked at?"""
    name = f"half {look.half}: {look.path}"
    place = _escrow.places_known(chain).get(look.path, "")
    arrived = {line.get("stamp") for line in chain.of(_escrow.ARRIVED) if line.get("place") == place}
    lacking = [one.generation for one in known if look.half in one.halves and one.stamp not in arrived]
    seen = _escrow.last_seen(chain, place)
    if not place or not seen:
        return Check(name, "checksum", FAIL, look.problem)
    if lacking:
        said = f"it isn't plugged in, and lacks {', '.join(lacking[:3])}: plug it in, and run backup.yml"
        return Check(name, "checksum", UNPROVEN, said)
    if (_clock.now() - _clock.parse(seen)).total_seconds() > days * 86400:
        said = f"it isn't plugged in, and was last looked at on {seen[:10]}"
        return Check(name, "checksum", UNPROVEN, said)
    return Check(name, "checksum", PASS)


def arrival(
    looks: t.Sequence[Look],
    halves: t.Container[str],
    unasked: t.Sequence[tuple[str, str]],
    rest: t.Mapping[str, Check],
    *,
    would_make: bool,
) -> list[Check]:
    """One check for each place, and one for a half without any.

    Args:
        halves: those that have something to keep.
        unasked: (half, name) of places on other hosts that nobody has looked at.
        rest: what is known of media that aren't plugged in, by path.
    """
    found = []
    for half in HALVES:
        of_half = [look for look in looks if look.half == half]
        waiting = [name for place_half, name in unasked if place_half == half]
        if half in halves and not of_half and not waiting:
            found.append(Check(f"half {half}", "checksum", UNPROVEN, "no place is named for it"))
        for name in waiting:
            found.append(Check(f"half {half}: {name}", "checksum", UNPROVEN, "its host was not asked"))
        for look in of_half:
            name = f"half {half}: {look.path}"
            if look.path in rest:
                found.append(rest[look.path])
            elif look.problem:
                found.append(Check(name, "checksum", FAIL, look.problem))
            elif not look.whole or would_make:
                found.append(Check(name, "checksum", UNPROVEN, "not all was written in this run"))
            else:
                found.append(Check(name, "checksum", PASS))
    return found


def told(look: Look, damaged: t.Mapping[str, str]) -> dict[str, t.Any]:
    """A place as results tell of it."""
    return {
        "path": look.path,
        "half": look.half,
        "problem": look.problem,
        "written": sorted(look.wrong),
        "healed": dict(damaged),
    }


def difference(first_line: str, looks: t.Sequence[Look]) -> dict[str, str]:
    """For diff mode."""
    before = "".join(f"{look.path}/{name}: {why}\n" for look in looks for name, why in look.wrong.items())
    after = "".join(f"{look.path}/{name}: whole\n" for look in looks for name in look.wrong)
    return {"before": before, "after": first_line + after, "before_header": "escrow", "after_header": "escrow"}


def refuse_shared(places: t.Sequence[t.Mapping[str, str]]) -> None:
    """Refuse a place on another host that both halves name."""
    halves: dict[str, str] = {}
    for place in places:
        if halves.setdefault(place["name"], place["half"]) != place["half"]:
            raise BackupError(
                f"places_away: {place['name']}: is a place of the other half too: both halves in one place are none",
                hint="Name folders on different hosts; nothing was written.",
            )


def encoded(contents: t.Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode("ascii") for name, data in contents.items()}


def decoded(handed: t.Mapping[str, t.Any], parameter: str) -> dict[str, bytes]:
    """Files as tasks hand them over.

    Raises:
        BackupError: a name that isn't one of ours, such as a path, or something that isn't base64.
    """
    found = {}
    for name, text in handed.items():
        if not stamp_in(str(name)):
            raise BackupError(f"{parameter}: {str(name)[:80]!r}: not the name of a bundle or an index")
        try:
            found[str(name)] = base64.b64decode(str(text), validate=True)
        except (ValueError, binascii.Error) as exc:
            raise BackupError(f"{parameter}: {name}: not in base64") from exc
    return found


def carried(names: t.Iterable[str], size_of: t.Callable[[str], int]) -> tuple[list[str], list[str]]:
    """(what one run carries, what is left for the next one)."""
    now: list[str] = []
    later: list[str] = []
    room = CARRIED_BYTES
    for name in names:
        size = size_of(name)
        # At least one, or a large one would never get there.
        if now and size > room:
            later.append(name)
        else:
            now.append(name)
            room -= size
    return now, later
