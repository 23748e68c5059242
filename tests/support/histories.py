# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Histories of installations, made up set by set, as recovery_set_info would tell them."""

from __future__ import annotations

import datetime as dt
import typing as t
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

UTC = dt.timezone.utc
NOW = dt.datetime(2026, 11, 23, 19, 0, tzinfo=UTC)
HOURS = dt.timedelta(hours=1)
MINUTES = dt.timedelta(minutes=1)
PARTS = "obtain_identity provision fetch decrypt config keys database start health functional_proof"
Said = dict[str, t.Any]


def text(moment: dt.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def a_set(
    at: dt.datetime,
    *,
    took: dt.timedelta = 10 * MINUTES,
    verdict: str = "pass",
    level: str = "restore",
    proven_at: dt.datetime | None = None,
    **more: t.Any,
) -> Said:
    """A set of the data of one moment, proven when it was published unless something else is said."""
    published = at + took
    proven = proven_at or published
    known = {"verdict": verdict, "level": level, "at": text(proven)}
    return {
        "set_id": f"mazevault_{at.astimezone(UTC):%Y%m%d_%H%M%S}",
        "recovery_point": text(at),
        "started": text(at - MINUTES),
        "published_at": text(published),
        "components": ["postgres"],
        "verdict": verdict,
        "level": level,
        "doubts": [],
        "proven_at": text(proven),
        "proofs": [known],
        "bytes": 1_200_000_000,
        "reason": "scheduled",
        "postgres": {"schema_version": 125, "format": "custom", "compression": "zstd", "server_version": "15.18"},
        **more,
    }


def a_copy(present: dt.datetime, reach: str = "other_host", **more: t.Any) -> Said:
    """A copy elsewhere, proven when it arrived."""
    return {"place": "offsite", "reach": reach, "present_at": text(present), "proven_at": text(present), **more}


def every(step: dt.timedelta, *, days: float, until: dt.datetime = NOW) -> list[dt.datetime]:
    """Moments from `days` before `until` on, the last one not after it."""
    moment, found = until - dt.timedelta(days=days), []
    while moment <= until:
        found.append(moment)
        moment += step
    return found


def a_drill(
    started: dt.datetime,
    *,
    scenario: str = "database_corruption",
    took: dt.timedelta | None = 2 * HOURS,
    verdict: str = "pass",
    left_out: Iterable[str] = (),
    **more: t.Any,
) -> Said:
    segments = PARTS.split()
    gone = [name for name in segments if name not in set(left_out)]
    return {
        "name": f"drill_{started:%Y%m%d_%H%M%S}",
        "scenario": scenario,
        "started_at": text(started),
        "ended_at": text(started + took) if took is not None else None,
        "seconds": took.total_seconds() if took is not None else None,
        "segments": dict.fromkeys(gone, 60.0) if took is not None else {},
        "verdict": verdict,
        **more,
    }


@dataclass
class History:
    """An installation, as `recovery_report` is told of it."""

    name: str = "vault1"
    sets: Sequence[Said] = ()
    more: Said = field(default_factory=dict)

    def said(self) -> Said:
        return {
            "name": self.name,
            "sets": list(self.sets),
            "space": {"free_bytes": 71_000_000_000, "total_bytes": 100_000_000_000},
            "trust": {"verdict": "pass", "summary": "pass: signed by the host, as a witness saw it"},
            **self.more,
        }


def a_fleet(now: dt.datetime = NOW) -> list[Said]:
    """Three installations for the eye: one that does well, one with troubles, one that is gone."""
    good = []
    pins = [{"why": "pre_change", "since": text(now - 10 * 24 * HOURS), "by": None, "reason": None, "until": None}]
    for number, at in enumerate(every(12 * HOURS, days=60, until=now - 5 * HOURS)):
        far = a_copy(at + 75 * MINUTES, immutable=True, by_another=True)
        site = a_copy(at + 90 * MINUTES, "other_site")
        size = int(4.1e9 * (1 + number / 300) * (1 + 0.02 * (number % 3)))
        took = (11 + number / 20 + number % 4) * MINUTES
        good.append(a_set(at, took=took, bytes=size, copies=[far, site], pinned=pins if number == 100 else []))
    drills = [
        a_drill(now - dt.timedelta(days=40), took=1.7 * HOURS),
        a_drill(now - dt.timedelta(days=39), scenario="node_failure", took=3.1 * HOURS),
        a_drill(now - dt.timedelta(days=38), scenario="datacentre_failure", took=6.4 * HOURS, left_out=["provision"]),
        a_drill(now - dt.timedelta(days=37), scenario="key_loss", took=0.8 * HOURS),
    ]
    generation = {
        "id": "g-3f9a",
        "in_use_from": text(now - dt.timedelta(days=300)),
        "escrow_vault_at": text(now - dt.timedelta(days=301)),
        "escrow_key_at": text(now - dt.timedelta(days=301)),
    }
    troubled = []
    for number, at in enumerate(every(12 * HOURS, days=21, until=now - 4 * HOURS)):
        if number in (20, 21, 22):
            continue
        verdict = "fail" if number == 33 else "pass"
        level = "checksum" if number in (30, 31) else "restore"
        size = int(9e8 * (1 + (number * 7 % 5) / 60))
        troubled.append(a_set(at, verdict=verdict, level=level, bytes=size, took=(6 + number % 3) * MINUTES))
    return [
        History("vault-prague", good, {"drills": drills, "generations": [generation]}).said(),
        History(
            "vault-brno",
            troubled,
            {
                "drills": [a_drill(now - dt.timedelta(days=8), took=None)],
                "restores": [{"name": "restore_1", "what": "database put in place", "at": text(now - 9 * 24 * HOURS)}],
                "space": {"free_bytes": 2_100_000_000, "total_bytes": 60_000_000_000},
                "policy": {"installations": ["vault-prague", "vault-brno", "vault-ostrava"]},
            },
        ).said(),
    ]
