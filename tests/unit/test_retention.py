# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan never does, over random histories, clocks and rules; and what it does in cases that have a name."""

from __future__ import annotations

import dataclasses
import random
import typing as t

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._pins import HOLD, PRE_CHANGE, Pin
from ansible_collections.mazevault.backup.plugins.module_utils._retention import (
    DAY,
    Candidate,
    Decision,
    Rules,
    alarms,
    last_with_certificates,
    plan,
    settle,
)
from support.flow import FULL

EXAMPLES = settings(
    max_examples=10_000 if FULL else 250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
DEFAULTS = Rules()
# 2026-11-23 02:00 UTC
NOW = 1_795_399_200.0
ENDS = {"cert-a": NOW - 200 * DAY, "cert-b": NOW - 60 * DAY, "cert-c": NOW + 40 * DAY}
COMPONENTS = (
    ("postgres",),
    ("postgres", "config"),
    ("postgres", "tls"),
    ("tls",),
    ("config",),
    ("keys",),
    ("volumes",),
)


def one(number: int, days_old: float, **changes: t.Any) -> Candidate:
    """A proven set of the database."""
    values: dict[str, t.Any] = {
        "set_id": f"set-{number:04}",
        "sequence": number,
        "point": NOW - days_old * DAY,
        "components": ("postgres",),
        "proven_at": NOW - days_old * DAY,
        "sizes": {"postgres": 1000},
        "rows": 1000,
    }
    return Candidate(**{**values, **changes})


def going(candidates: t.Iterable[Candidate], rules: Rules = DEFAULTS, now: float = NOW) -> list[str]:
    return [made.set_id for made in plan(candidates, rules, now) if made.goes]


def decision(candidates: t.Iterable[Candidate], number: int, rules: Rules = DEFAULTS) -> Decision:
    (found,) = (made for made in plan(candidates, rules, NOW) if made.set_id == f"set-{number:04}")
    return found


# random histories

pins = st.sampled_from(
    [(), (), (), (), (Pin(PRE_CHANGE, "x"),), (Pin(HOLD, "x", "A. Person", "audit", "2027-01-01T00:00:00Z"),)]
)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    found = []
    number, age = 0, draw(st.floats(30, 500))
    for _set in range(draw(st.integers(0, 14))):
        number += draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
        age = max(0.0, age - draw(st.sampled_from([0.5, 1, 1, 3, 20])))
        # The clock of that day was wrong.
        told = age + draw(st.sampled_from([0, 0, 0, 0, 0, -400, 400, 15000]))
        components = draw(st.sampled_from(COMPONENTS))
        has_some = "tls" in components or "config" in components
        names = draw(st.lists(st.sampled_from(sorted(ENDS)), max_size=2, unique=True)) if has_some else []
        size = draw(st.sampled_from([1000, 1000, 1100, 900, 700, 300, 10, 5000]))
        found.append(
            one(
                number,
                told,
                components=components,
                verdict=draw(st.sampled_from(["pass", "pass", "pass", "pass", "unproven", "fail"])),
                level=draw(st.sampled_from(["restore", "restore", "read", "read", "checksum"])),
                proven_at=NOW - draw(st.sampled_from([told, told - 1, told - 10])) * DAY,
                alike=(components, draw(st.sampled_from([15, 15, 16]))),
                sizes=dict.fromkeys(components, size),
                rows=draw(st.sampled_from([None, 1000, 1000, 1200, 100])),
                certificates=tuple((name, ENDS[name]) for name in names),
                pins=draw(pins),
                accepted=draw(st.booleans()) and draw(st.booleans()),
                genuine=draw(st.sampled_from([True] * 9 + [False])),
            )
        )
    return found


rule_sets = st.builds(
    Rules,
    days=st.sampled_from([1, 7, 30, 90]),
    component_days=st.dictionaries(st.sampled_from(["postgres", "config"]), st.sampled_from([3, 60]), max_size=2),
    tls_days=st.sampled_from([0, 30, 90]),
    keep=st.integers(1, 4),
    daily=st.sampled_from([0, 0, 3]),
    weekly=st.sampled_from([0, 0, 2, 5]),
    monthly=st.sampled_from([0, 0, 3, 12]),
    yearly=st.sampled_from([0, 0, 2]),
)


@EXAMPLES
@given(histories(), rule_sets)
def test_what_never_goes(history: list[Candidate], rules: Rules) -> None:
    decided = {made.set_id: made for made in plan(history, rules, NOW)}
    assert decided.keys() == {found.set_id for found in history}
    gone = {name for name, made in decided.items() if made.goes}
    event(f"hazards: goes {bool(gone)}")
    for found in history:
        made = decided[found.set_id]
        assert made.why, "each has its reason"
        for hazard in ("genuine", "accepted"):
            event(f"hazards: {hazard} {getattr(found, hazard)}")
        if found.pins or not found.genuine or "keys" in found.components:
            assert not made.goes
        if found.verdict != "pass" or found.level in ("toc", "checksum") or found.point > NOW + 300:
            assert not made.counts, "what isn't proven, and what is dated in the future, never counts"
        if found.point > NOW + 300 and found.genuine and not found.accepted:
            assert made.suspicious
        if found.point > NOW - min([rules.days, *rules.component_days.values()]) * DAY:
            assert not made.goes
    for component in {name for found in history for name in found.components}:
        counting = [
            found.set_id
            for found in sorted(history, key=lambda each: each.sequence)
            if component in found.components and decided[found.set_id].counts
        ]
        assert not gone & set(counting[-rules.keep :]), "the floor"
        if len(counting) < rules.keep:
            assert not gone & {found.set_id for found in history if component in found.components}
    if history:
        assert len(gone) < len(history), "never everything"


@EXAMPLES
@given(histories(), rule_sets, st.randoms(use_true_random=False))
def test_the_order_of_manifests_doesnt_matter(history: list[Candidate], rules: Rules, dice: random.Random) -> None:
    shuffled = [*history]
    dice.shuffle(shuffled)
    assert plan(shuffled, rules, NOW) == plan(history, rules, NOW)


@EXAMPLES
@given(histories(), rule_sets)
def test_a_second_run_finds_nothing_more(history: list[Candidate], rules: Rules) -> None:
    gone = going(history, rules)
    left = [found for found in history if found.set_id not in gone]
    assert going(left, rules) == []
    before = {made.set_id: made.counts for made in plan(history, rules, NOW)}
    for made in plan(left, rules, NOW):
        assert made.counts == before[made.set_id], "what stays stands as it stood"


@EXAMPLES
@given(histories(), rule_sets, st.data())
def test_a_run_that_was_broken_off_is_finished_by_the_next(
    history: list[Candidate], rules: Rules, data: st.DataObject
) -> None:
    gone = going(history, rules)
    done = data.draw(st.sets(st.sampled_from(gone))) if gone else set()
    left = [found for found in history if found.set_id not in done]
    assert going(left, rules) == [name for name in gone if name not in done]


@EXAMPLES
@given(histories(), rule_sets, st.data())
def test_wider_rules_never_remove_more(history: list[Candidate], rules: Rules, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["days", "tls_days", "keep", "daily", "weekly", "monthly", "yearly", "component"]))
    more = data.draw(st.integers(1, 40))
    if name == "component":
        assume(rules.component_days)
        wider = dataclasses.replace(
            rules, component_days={component: days + more for component, days in rules.component_days.items()}
        )
    else:
        wider = dataclasses.replace(rules, **{name: getattr(rules, name) + more})
    assert set(going(history, wider)) <= set(going(history, rules))


@EXAMPLES
@given(histories(), rule_sets, st.sampled_from(["unproven", "failed", "future", "tiny", "unsigned", "few rows"]))
def test_a_bad_set_pushes_none_out(history: list[Candidate], rules: Rules, kind: str) -> None:
    """Whatever a new set is: as long as it doesn't count, nothing goes that would have stayed."""
    changes: dict[str, dict[str, t.Any]] = {
        "unproven": {"verdict": "unproven"},
        "failed": {"verdict": "fail"},
        "future": {"point": NOW + 5 * DAY},
        "tiny": {"sizes": {"postgres": 1}},
        "unsigned": {"genuine": False},
        "few rows": {"rows": 1},
    }
    bad = one(max([found.sequence for found in history], default=0) + 1, 0, **changes[kind])
    decided = plan([*history, bad], rules, NOW)
    (made,) = (found for found in decided if found.set_id == bad.set_id)
    # Nothing here that it could be measured by.
    assume(not made.counts)
    assert {found.set_id for found in decided if found.goes} <= set(going(history, rules))


# cases with a name


def test_what_is_older_than_its_days_goes() -> None:
    history = [one(number, 40 - number) for number in range(1, 41)]
    gone = going(history)
    # The set that is exactly 30 days old stays.
    assert gone == [f"set-{number:04}" for number in range(1, 10)]
    assert decision(history, 9).why == ("31.0 d old, kept for 30 d, and nothing else keeps it",)
    assert decision(history, 10).why == ("postgres is kept for 30 d, until 2026-11-23 02:00 UTC",)


def test_when_backups_stop_the_newest_proven_ones_stay() -> None:
    history = [one(1, 400), one(2, 390), one(3, 380), one(4, 370, verdict="fail"), one(5, 360, verdict="unproven")]
    assert going(history) == ["set-0001", "set-0004", "set-0005"]
    assert decision(history, 3).why == ("one of the newest 2 proven sets with postgres",)


def test_too_few_proven_ones_keep_everything() -> None:
    history = [one(1, 400), one(2, 390, verdict="unproven"), one(3, 380, verdict="unproven")]
    assert going(history) == []
    assert "only 1 of 2 sets with postgres that are to stay are proven" in decision(history, 2).why
    assert going(history, Rules(keep=1)) == ["set-0002", "set-0003"]


def test_each_component_has_its_own_floor() -> None:
    """Sets that hold certificates alone, made on each change, don't push the last databases out."""
    changes = [one(number, 60 - number, components=("tls",), certificates=(("a", NOW),)) for number in range(3, 20)]
    history = [one(1, 60), one(2, 59), *changes]
    assert {"set-0001", "set-0002"}.isdisjoint(going(history))


def test_a_certificate_stays_in_the_newest_proven_set_that_has_it() -> None:
    def with_one(number: int, name: str, end: float, **more: t.Any) -> Candidate:
        certificates = ((name, NOW + end * DAY),)
        components = ("postgres", "tls")
        return one(number, 200 - number, components=components, certificates=certificates, **more)

    renewed = [with_one(number, "old" if number < 5 else "new", -89.9 if number < 5 else 300) for number in range(1, 9)]
    assert going(renewed) == ["set-0001", "set-0002", "set-0003", "set-0005", "set-0006"]
    (why,) = decision(renewed, 4).why
    assert why.startswith("the newest proven set with certificate old, which is kept until 2026-11-23")
    assert why.endswith("; whole, as it can't be published apart yet")
    over = [dataclasses.replace(found, certificates=(("old", NOW - 90.1 * DAY),)) for found in renewed[:4]]
    assert "set-0004" in going([*over, *renewed[4:]])
    unproven = [dataclasses.replace(found, verdict="unproven") for found in renewed[:4]]
    assert {"set-0001", "set-0002", "set-0003", "set-0004"}.isdisjoint(going([*unproven, *renewed[4:]]))


def test_a_copy_among_the_configuration_replaces_no_tls() -> None:
    """Its private key lies with the component tls."""
    same = (("a", NOW + 300 * DAY),)
    tls = one(1, 100, components=("postgres", "tls"), certificates=same)
    config = [one(number, 100 - number, components=("postgres", "config"), certificates=same) for number in (2, 60, 61)]
    floor = [one(number, 100 - number, components=("tls",), certificates=(("b", NOW),)) for number in (62, 63)]
    history = [tls, *config, *floor]
    assert going(history) == ["set-0002"]
    renewed = [*history, one(64, 1, components=("tls",), certificates=same)]
    assert going(renewed) == ["set-0001", "set-0002", "set-0062"]
    assert going([dataclasses.replace(tls, components=("postgres", "config")), *config, *floor]) == [
        "set-0001",
        "set-0002",
    ]


def test_by_its_name_too_the_last_one_with_a_certificate_stays() -> None:
    def last(history: list[Candidate], *numbers: int) -> list[str]:
        named = [f"set-{number:04}" for number in numbers]
        return sorted(last_with_certificates(history, named, Rules(), NOW))

    with_one = [one(n, 9 - n, components=("tls",), certificates=(("a", NOW + DAY),)) for n in (1, 2, 3)]
    assert last(with_one, 3) == last(with_one, 1, 2) == []
    assert last(with_one, 1, 2, 3) == ["set-0003"]
    unproven = [dataclasses.replace(found, verdict="fail") for found in with_one[:2]]
    assert last([*unproven, with_one[2]], 3) == ["set-0003"], "what isn't proven takes nobody's place"
    assert last([*unproven, with_one[2]], 1, 2) == last(unproven, 1) == []
    assert last(unproven, 1, 2) == ["set-0001", "set-0002"]
    over = [dataclasses.replace(found, certificates=(("a", NOW - 91 * DAY),)) for found in with_one]
    assert last(over, 1, 2, 3) == []
    config = dataclasses.replace(with_one[2], components=("config",))
    assert last([*with_one[:2], config], 1, 2) == ["set-0002"], "the private key isn't there"
    foreign = dataclasses.replace(with_one[2], genuine=False)
    assert last([*with_one[:2], foreign], 1, 2) == ["set-0002"] and last([*with_one, foreign], 3) == []


def test_certificates_whose_end_nobody_knows_stay() -> None:
    unknown = one(1, 900, components=("postgres", "tls"), certificates=(("a", None),))
    none = one(2, 900, components=("postgres", "tls"))
    assert going([unknown, none, one(3, 2), one(4, 1)]) == []


def test_reading_counts_with_a_restore_of_the_same_kind_a_week_before_at_most() -> None:
    def read(number: int, days_old: float, kind: int = 15) -> Candidate:
        return one(number, days_old, level="read", alike=(kind,))

    restored = one(1, 50, alike=(15,))
    assert decision([restored, read(2, 43)], 2).counts
    assert not decision([restored, read(2, 42.9)], 2).counts
    assert not decision([restored, read(2, 49, kind=16)], 2).counts
    # A restore that came later is no older than a week.
    assert decision([read(1, 50), one(2, 3, alike=(15,))], 1).counts
    floor = [restored, read(2, 48), read(3, 47)]
    assert going(floor) == []
    assert decision(floor, 1).why == ("its restore vouches for set-0003",)


def test_far_smaller_ones_are_suspicious_and_keep_what_they_are_measured_by() -> None:
    good = [one(number, 80 - number) for number in range(1, 4)]
    small = [one(number, 40 - number, sizes={"postgres": 499}) for number in range(4, 40)]
    decided = plan([*good, *small], Rules(), NOW)
    assert [made.set_id for made in decided if made.counts] == ["set-0001", "set-0002", "set-0003"]
    assert [made.set_id for made in decided if made.goes] == ["set-0001"]
    assert "set-0004: postgres has 499 bytes, after 1000 in set-0003" in alarms(decided)
    accepted = [*good, dataclasses.replace(small[0], accepted=True), *small[1:]]
    decided = plan(accepted, Rules(), NOW)
    assert alarms(decided) == []
    assert [made.set_id for made in decided if made.goes] == [f"set-{number:04}" for number in range(1, 10)]


def test_a_size_says_nothing_where_the_one_before_is_gone() -> None:
    """A database that shrinks slowly isn't measured by an old set that somebody holds."""
    held = one(1, 80, sizes={"postgres": 1000}, pins=(Pin(HOLD, "x", "A. Person", "audit", "later"),))
    shrunk = [one(2, 79, sizes={"postgres": 600}), one(3, 78, sizes={"postgres": 400})]
    assert [made.suspicious for made in plan([held, *shrunk], Rules(keep=1), NOW)] == [(), (), ()]
    assert going([held, *shrunk], Rules(keep=1)) == ["set-0002"]
    assert [made.suspicious for made in plan([held, shrunk[1]], Rules(keep=1), NOW)] == [(), ()]
    assert going([held, shrunk[1]], Rules(keep=1)) == []


def test_half_as_many_rows_are_suspicious() -> None:
    assert not decision([one(1, 2), one(2, 1, rows=500)], 2).suspicious
    (said,) = decision([one(1, 2), one(2, 1, rows=499)], 2).suspicious
    assert said == "its tables have 499 rows, after 1000 in set-0001"


def test_a_set_isnt_older_than_the_one_before_it() -> None:
    """A clock that was set back makes nothing old."""
    history = [one(1, 3), one(2, 15000), one(3, 2), one(4, 1), one(5, 0)]
    assert going(history) == []
    # The one whose time it has stays too, or it would be old the next time.
    both = [one(number, 5 - number, components=("config", "postgres")) for number in (3, 4)]
    history = [one(1, 20, components=("config",)), one(2, 15000), *both]
    rules = Rules(component_days={"config": 10})
    assert going(history, rules) == []
    assert decision(history, 1, rules).why == ("set-0002 goes by its time",)


def test_a_set_dated_in_the_future_counts_for_nothing() -> None:
    history = [one(1, 50), one(2, 49), one(3, 48), one(4, -300), one(5, -301)]
    assert going(history) == ["set-0001"]
    (said,) = decision(history, 4).suspicious
    assert said.startswith("its recovery point 2027-09-") and said.endswith("is in the future")


def test_of_a_period_the_last_proven_one_stays_not_the_last_one() -> None:
    history = [one(1, 70), one(2, 69), one(3, 68, verdict="fail"), one(4, 3), one(5, 2)]
    assert going(history, Rules(monthly=3)) == ["set-0001", "set-0003"]
    assert decision(history, 2, Rules(monthly=3)).why == (
        "the last proven one with postgres of its month (3 are kept)",
    )


def test_periods_are_counted_from_the_newest_set() -> None:
    monthly = [one(number, 3 * (400 - number)) for number in range(1, 400)]
    left = {made.set_id for made in plan(monthly, Rules(keep=1, days=1, monthly=12), NOW) if not made.goes}
    assert len(left) == 12
    # Backups that stopped a year ago lose nothing by that.
    later = plan(monthly, Rules(keep=1, days=1, monthly=12), NOW + 365 * DAY)
    assert {made.set_id for made in later if not made.goes} == left


# rules


def test_rules_that_nobody_gave_are_the_specifications_or_the_longer_pinned_ones() -> None:
    assert settle({}, {}) == Rules()
    assert settle({"days": None}, {"days": 60, "keep": 1}) == Rules(days=60)
    assert settle({"days": 90, "keep": 3}, {"days": 60, "keep": 3}) == Rules(days=90, keep=3)
    assert settle({"days": 10}, {}) == Rules(days=10)
    assert settle({"component_days": {"config": "90"}}, {"days": 60}).component_days == {"config": 90}


@pytest.mark.parametrize(
    ("asked", "pinned", "said"),
    [
        ({"days": 30}, {"days": 31}, "days: 30: the policy of this host has 31"),
        ({"keep": 2}, {"keep": 3}, "keep: 2: the policy of this host has 3"),
        ({"tls_days": 89}, {"tls_days": 90}, "tls_days: 89: the policy of this host has 90"),
        ({"evidence_days": 1}, {"evidence_days": 2}, "evidence_days: 1: the policy"),
        ({"component_days": {"config": 9}}, {"days": 10}, "component_days: config: 9: the policy of this host has 10"),
        ({"keep": 0}, {}, "keep: 0: below 1"),
        ({"days": 0}, {}, "days: 0: below 1"),
        ({"daily": -1}, {}, "daily: -1: below 0"),
        ({"component_days": {"vault": 9}}, {}, "component_days: vault: not one of"),
        ({"component_days": {"config": "x"}}, {}, "component_days: config: x: no number above 0"),
    ],
)
def test_weaker_and_impossible_rules_are_refused(asked: dict[str, t.Any], pinned: dict[str, int], said: str) -> None:
    with pytest.raises(BackupError) as caught:
        settle(asked, pinned)
    assert caught.value.msg.startswith(said) and caught.value.hint.startswith("Nothing was removed.")
