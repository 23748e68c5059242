# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A year of backups, pruned each day: what is left is what an oracle expects that was written apart from the plan.

The oracle is slow and literal: one question after the other, for one set at a time, in the words of the rules. On data
for the year; on real sets, with the module and a false clock, for a stretch of it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._clock import parse
from ansible_collections.mazevault.backup.plugins.module_utils._pins import HOLD, PRE_CHANGE, Pin
from ansible_collections.mazevault.backup.plugins.module_utils._retention import Candidate, Rules, plan
from support.dated_sets import manifest_of, publish
from support.fake_sets import Site
from support.modules import run_module

DAY = 86400.0
START = dt.datetime(2026, 1, 1, 2, tzinfo=dt.timezone.utc).timestamp()


@dataclasses.dataclass
class Made:
    """A set as the simulation made it; nothing here is the plan's own word."""

    number: int
    told: float
    day: float
    kind: str = "good"
    cert: str = ""
    cert_ends: float = 0.0
    change_until: float = 0.0
    hold_until: float = 0.0
    restored: bool = True

    @property
    def name(self) -> str:
        return f"set-{self.number:05}"

    def candidate(self, now: float) -> Candidate:
        pins = [Pin(PRE_CHANGE, "then")] if now < self.change_until else []
        pins += [Pin(HOLD, "then", "A", "audit", "later")] if now < self.hold_until else []
        return Candidate(
            self.name,
            self.number,
            self.told,
            ("postgres", "tls"),
            genuine=self.kind != "unsigned",
            verdict={"failed": "fail", "unproven": "unproven"}.get(self.kind, "pass"),
            level="restore" if self.restored else "read",
            proven_at=self.told,
            alike=(15,),
            sizes={"postgres": 10 if self.kind == "small" else 1000},
            rows=1000,
            certificates=((self.cert, self.cert_ends),),
            pins=tuple(pins),
        )


def history(seed: int, days: int, each_day: int = 2) -> list[Made]:
    """Backups with all that happens in a year; restores on Sundays, readings on the other days."""
    dice = random.Random(seed)
    made: list[Made] = []
    wrong_clock: dict[int, float] = {}
    for _jump in range(3):
        day, by = dice.randrange(10, days), dice.choice([-3000, -40, 70, 500])
        wrong_clock.update(dict.fromkeys(range(day, day + dice.randint(1, 3)), by))
    outage = range(days // 2, days // 2 + 45)
    cert, renewed = "cert-0", 0
    for number in range(days * each_day):
        day = number / each_day
        if int(day) in outage:
            continue
        if day - renewed > 80:
            cert, renewed = f"cert-{int(day)}", int(day)
        kind = dice.choices(["good", "failed", "unproven", "small", "unsigned"], [88, 4, 4, 2, 2])[0]
        one = Made(len(made) + 1, START + (day + wrong_clock.get(int(day), 0)) * DAY, START + day * DAY, kind, cert)
        one.cert_ends = START + (renewed + 90) * DAY
        if dice.random() < 0.02:
            one.change_until = one.day + dice.choice([3, 50, 1000]) * DAY
        if dice.random() < 0.01:
            one.hold_until = one.day + dice.choice([60, 200]) * DAY
        one.restored = number % (7 * each_day) == 0 or dice.random() < 0.1
        made.append(one)
    return made


class Oracle:
    """The rules, one at a time, over what is left; `expected` is what has to stay."""

    def __init__(self, left: t.Sequence[Made], rules: Rules, now: float) -> None:
        self.rules, self.now = rules, now
        self.ours = [one for one in left if one.kind != "unsigned"]
        self.foreign = [one for one in left if one.kind == "unsigned"]

    def from_the_future(self, one: Made) -> bool:
        return one.told > self.now + 300

    def true_time(self, one: Made) -> tuple[float, Made]:
        """No set is older than one before it that isn't from the future."""
        before = [other for other in self.ours if other.number <= one.number and not self.from_the_future(other)]
        if self.from_the_future(one) or not before:
            return one.told, one
        latest = max(before, key=lambda other: (other.told, other.number == one.number, -other.number))
        return latest.told, latest

    def last_believed(self, one: Made) -> Made | None:
        """The set that its size is compared with: passed, in time, not small itself; nothing missing in between."""
        wanted = one.number - 1
        for other in reversed([other for other in self.ours if other.number < one.number]):
            if other.number != wanted:
                return None
            if (
                other.kind in ("good", "small")
                and not self.from_the_future(other)
                and not self.suspiciously_small(other)
            ):
                return other
            wanted -= 1
        return None

    def suspiciously_small(self, one: Made) -> bool:
        if one.kind != "small":
            return False
        other = self.last_believed(one)
        return other is not None and other.kind != "small"

    def newest_restore(self) -> Made | None:
        fit = [one for one in self.ours if one.kind in ("good", "small") and one.restored]
        fit = [one for one in fit if not self.from_the_future(one)]
        return max(fit, key=lambda one: (one.told, one.number), default=None)

    def counts(self, one: Made) -> bool:
        if one.kind not in ("good", "small") or self.from_the_future(one) or self.suspiciously_small(one):
            return False
        restore = self.newest_restore()
        return one.restored or (restore is not None and one.told - restore.told <= 7 * DAY)

    def expected(self) -> set[str]:
        counting = [one for one in self.ours if self.counts(one)]
        stay: set[int] = set()
        for one in self.ours:
            if self.now < one.change_until or self.now < one.hold_until:
                stay.add(one.number)
            if self.now - self.true_time(one)[0] <= self.rules.days * DAY:
                stay.add(one.number)
        for cert in {one.cert for one in self.ours}:
            holders = [one for one in self.ours if one.cert == cert]
            if self.now <= holders[0].cert_ends + self.rules.tls_days * DAY:
                proven = [one for one in holders if one in counting]
                stay.update(one.number for one in (proven[-1:] or holders))
        if len(counting) < self.rules.keep:
            stay.update(one.number for one in self.ours)
        stay.update(one.number for one in counting[-self.rules.keep :])
        months: dict[tuple[int, int], int] = {}
        for one in counting:
            day = dt.datetime.fromtimestamp(one.told, dt.timezone.utc)
            months[day.year, day.month] = one.number
        if months and self.rules.monthly:
            year, month = max(months)
            wanted = {divmod(year * 12 + month - 1 - back, 12) for back in range(self.rules.monthly)}
            stay.update(number for (y, m), number in months.items() if (y, m - 1) in wanted)
        return {one.name for one in [*self.foreign, *(one for one in self.ours if one.number in self.needed(stay))]}

    def needed(self, stay: set[int]) -> set[int]:
        """What stays, and what its own standing rests on."""
        while True:
            more = set(stay)
            for one in self.ours:
                if one.number not in stay:
                    continue
                more.add(self.true_time(one)[1].number)
                restore = self.newest_restore()
                read = one.kind in ("good", "small") and not one.restored
                if read and restore is not None and one.told - restore.told <= 7 * DAY:
                    more.add(restore.number)
                if self.suspiciously_small(one):
                    other = self.last_believed(one)
                    assert other is not None
                    more.update(range(other.number, one.number))
            if more == stay:
                return stay
            stay = more & {one.number for one in self.ours}


@pytest.mark.parametrize("seed", range(3))
def test_a_year_day_by_day_ends_as_the_oracle_expects(seed: int) -> None:
    rules = Rules(days=30, keep=2 + seed, monthly=(0, 3, 12)[seed])
    year = history(seed, 365, each_day=1)
    left: list[Made] = []
    removed = 0
    for today in range(380):
        now = START + (today + 0.9) * DAY
        left += [one for one in year if now - 0.95 * DAY < one.day <= now]
        expected = Oracle(left, rules, now).expected()
        decided = plan([one.candidate(now) for one in left], rules, now)
        stays = {made.set_id for made in decided if not made.goes}
        assert stays == expected, (today, sorted(stays ^ expected))
        removed += len(left) - len(stays)
        left = [one for one in left if one.name in stays]
    assert removed > 150 and len(left) > 10
    assert len(year) == removed + len(left), "each set was there once"
    seen = {kind for kind in ("good", "failed", "unproven", "small", "unsigned") for one in year if one.kind == kind}
    assert len(seen) == 5, "the year had everything"


def test_real_sets_over_three_months_end_as_the_oracle_expects(tmp_path: Path) -> None:
    """The module itself, its files and its ledger, pruned every sixth day by a clock that is months ahead."""
    site = Site(tmp_path)
    site.root.mkdir(mode=0o700)
    rules = Rules(days=20, keep=2, monthly=2)
    names: dict[str, str] = {}
    left: list[Made] = []
    year = [one for one in history(7, 90, each_day=1) if one.kind != "unsigned"]
    for number, one in enumerate(year, 1):
        one.number, one.hold_until = number, 0.0
        one.change_until = one.change_until and 1e12
        # One second each: a name holds no more.
        one.told += number
    for today in range(0, 96, 6):
        now = START + (today + 0.9) * DAY
        for one in [one for one in year if now - 6 * DAY < one.day <= now]:
            point = dt.datetime.fromtimestamp(one.told, dt.timezone.utc)
            candidate = one.candidate(0)
            proof = {"verdict": candidate.verdict, "level": candidate.level, "wanted": "restore", "seconds": 1.0}
            ends = dt.datetime.fromtimestamp(one.cert_ends, dt.timezone.utc)
            found = publish(
                site.root,
                point,
                reason="pre_change" if one.change_until else "scheduled",
                components=["postgres", "tls"],
                bytes=candidate.sizes["postgres"],
                certificates=[{"sha256": one.cert, "not_after": ends.isoformat()}],
                verification={**proof, "at": point.isoformat(), "components": ["postgres", "tls"]},
            )
            assert found.manifest["sequence"] == one.number
            names[found.set_id] = one.name
            left.append(one)
        expected = Oracle(left, rules, now).expected()
        moment = dt.datetime.fromtimestamp(now, dt.timezone.utc).isoformat()
        done = run_module(
            "backup_retention",
            {"backup_root": str(site.root), "days": 20, "monthly": 2},
            hooks=[("clock_says", {"moment": moment})],
        )
        assert done.rc == 0, (done.result, done.stderr)
        assert {names[path.name] for path in site.sets()} == expected, today
        left = [one for one in left if one.name in expected]
    assert len(names) > len(left) > 5
    examined = site.verify(without_witness=True)
    assert examined["verdict"] == "pass", examined["checks"]


MANY = 10_000
_PLAN_MANY = """
import json, sys, time
from ansible_collections.mazevault.backup.plugins.module_utils._clock import parse
from ansible_collections.mazevault.backup.plugins.module_utils._retention import Candidate, Rules, plan
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
began = time.monotonic()
sets = []
for line in lines:
    one = json.loads(line)
    postgres, proof = one["postgres"], one["verification"]
    sizes = {artefact["component"]: artefact["bytes"] for artefact in one["artefacts"]}
    sets.append(Candidate(one["set_id"], one["sequence"], parse(one["recovery_point"]).timestamp(),
        tuple(one["components"]), verdict=proof["verdict"], level=proof["level"],
        proven_at=parse(proof["at"]).timestamp(), alike=(postgres["schema_version"], postgres["format"]), sizes=sizes,
        rows=postgres["rows"], certificates=tuple((c["sha256"], parse(c["not_after"]).timestamp())
        for c in one["certificates"])))
decided = plan(sets, Rules(daily=14, weekly=8, monthly=24, yearly=10), float(sys.argv[2]))
took, status = time.monotonic() - began, open("/proc/self/status").read()
# Not ru_maxrss, which begins with what the process was that started this one.
print(json.dumps({"seconds": took, "kib": int(status.split("VmHWM:")[1].split()[0]),
    "goes": sum(made.goes for made in decided), "of": len(decided)}))
"""


def test_ten_thousand_sets_are_planned_in_three_seconds(
    tmp_path: Path, record_property: t.Callable[[str, object], None]
) -> None:
    """Fourteen years of two sets a day, every other one proven by reading, from their manifests on."""
    first = dt.datetime(2013, 1, 1, 2, tzinfo=dt.timezone.utc)
    path = tmp_path / "manifests.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for number in range(1, MANY + 1):
            point = first + dt.timedelta(hours=12 * number)
            at = point.isoformat()
            ends = (point + dt.timedelta(days=90 - number % 180 // 2)).isoformat()
            manifest = manifest_of(
                number,
                point,
                None,
                components=["postgres", "config", "tls", "volumes"],
                certificates=[{"sha256": f"{number // 180:064x}", "not_after": ends}],
                verification={"verdict": "pass", "level": ("read", "restore")[number % 2], "at": at},
            )
            stream.write(json.dumps(manifest) + "\n")
    now = parse(at).timestamp()
    done = subprocess.run([sys.executable, "-c", _PLAN_MANY, path, str(now)], capture_output=True, check=True)
    found = json.loads(done.stdout)
    record_property("10,000 sets", found)
    assert found["of"] == MANY and MANY - 300 < found["goes"] < MANY - 80
    assert found["seconds"] <= 3 and found["kib"] <= 300 * 1024
