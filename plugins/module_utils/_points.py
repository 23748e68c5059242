# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Recovery points from what a host tells of its sets: which count, from when on, and where their data are. Pure."""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._exposure import Copy, Moment, Point
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import HOST, REACHES
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS

# A set that was only read counts if one of the same kind was restored at most so long before or after.
RESTORED_WITHIN = dt.timedelta(days=7)
Said = t.Mapping[str, t.Any]


def points_of(sets: t.Sequence[Said], gone: t.Sequence[Said] = ()) -> tuple[list[Point], list[str]]:
    """(recovery points of the database, why others aren't any).

    Args:
        sets: as `recovery_set_info` lists them.
        gone: what the ledger still knows of sets that were removed.
    """
    points, problems = [], []
    restored = _restores(sets)
    for found in sets:
        if "postgres" not in found["components"]:
            continue
        try:
            points.append(_point(found, restored))
        except (KeyError, TypeError, ValueError) as exc:
            problems.append(f"{found.get('set_id')}: what is said of it is not readable: {exc}")
    for former in gone:
        try:
            points.append(_former(former))
        except (KeyError, TypeError, ValueError) as exc:
            problems.append(f"{former.get('set_id')}: what the ledger says of it is not readable: {exc}")
    return points, problems


def _point(found: Said, restored: t.Mapping[tuple[t.Any, ...], t.Sequence[Moment]]) -> Point:
    at = _clock.parse(found["recovery_point"])
    published = _clock.parse(found.get("published_at") or found["recovery_point"])
    failed = found["verdict"] == FAIL
    proven = None if found["verdict"] != PASS else proven_since(found, restored, published)
    own = Copy("the host itself", HOST, published, proven)
    others = tuple(_copy(said) for said in found.get("copies") or ())
    doubts = list(found.get("doubts") or ())
    why = ""
    if failed:
        why = doubts[0] if doubts else "it failed its proof"
    elif proven is None:
        level = found.get("level") or "nothing"
        why = doubts[0] if doubts else f"proven is {level}, which is less than a restore"
    return Point(str(found["set_id"]), at, published, proven, failed, (own, *others), why)


def _former(said: Said) -> Point:
    """Of a set that is gone; where the ledger has no moment of its data, its id has one that is a little earlier."""
    set_id = str(said["set_id"])
    named = dt.datetime.strptime(set_id[-15:], _clock.STAMP).replace(tzinfo=dt.timezone.utc)
    published = _clock.parse(said["published_at"])
    at = _clock.parse(said["recovery_point"]) if said.get("recovery_point") else named
    good = said.get("verdict") == PASS and said.get("level") == "restore"
    own = Copy("the host itself", HOST, published, published if good else None, gone=True)
    others = tuple(_copy(copy) for copy in said.get("copies") or ())
    why = "" if good else "it is gone, and how far it was proven isn't known"
    return Point(set_id, at, published, published if good else None, said.get("verdict") == FAIL, (own, *others), why)


def _copy(said: Said) -> Copy:
    if said["reach"] not in REACHES:
        raise ValueError(f"{said['reach']}: not one of {', '.join(REACHES)}")
    proven = said.get("proven_at")
    return Copy(
        str(said["place"]),
        str(said["reach"]),
        _clock.parse(said["present_at"]),
        _clock.parse(proven) if proven else None,
        bool(said.get("immutable")),
        bool(said.get("by_another")),
        bool(said.get("gone")),
    )


def _kind(found: Said) -> tuple[t.Any, ...]:
    facts = found.get("postgres") or {}
    return tuple(facts.get(name) for name in ("schema_version", "format", "compression", "server_version"))


def _passed(found: Said, level: str) -> list[Moment]:
    proofs = found.get("proofs") or [
        {"verdict": found.get("verdict"), "level": found.get("level"), "at": found.get("proven_at")}
    ]
    return [_clock.parse(one["at"]) for one in proofs if one["verdict"] == PASS and one["level"] == level and one["at"]]


def _restores(sets: t.Sequence[Said]) -> dict[tuple[t.Any, ...], list[Moment]]:
    found: dict[tuple[t.Any, ...], list[Moment]] = {}
    for one in sets:
        if one.get("verdict") == PASS:
            found.setdefault(_kind(one), []).extend(_passed(one, "restore"))
    return found


def proven_since(
    found: Said, restored: t.Mapping[tuple[t.Any, ...], t.Sequence[Moment]], published: Moment
) -> Moment | None:
    """When a set that passes was first proven well enough: restored, or read while its kind could be restored."""
    whole = _passed(found, "restore")
    moments = [max(moment, published) for moment in whole]
    for read in _passed(found, "read"):
        moments += [
            max(read, moment, published)
            for moment in restored.get(_kind(found), ())
            if abs(moment - read) <= RESTORED_WITHIN
        ]
    return min(moments, default=None)
