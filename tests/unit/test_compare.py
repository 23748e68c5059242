# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restored database has to have in common with its manifest."""

from __future__ import annotations

import copy
import random
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._compare import (
    compare_all,
    compare_catalogue,
    compare_large_objects,
    compare_properties,
    compare_row_counts,
    compare_sequences,
    compare_tables,
    compare_views,
    left_out_check,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, combine

Entry = dict[str, t.Any]


def table(name: str, rows: int = 3, digest: str = "5:-7", schema: str = "public", **more: t.Any) -> Entry:
    return {"schema": schema, "name": name, "rows": rows, "digest": digest, **more}


def sequence(last: int, called: bool = True, **more: t.Any) -> Entry:
    return {
        "schema": "public",
        "name": "s",
        "increment": 1,
        "cycle": False,
        "last_value": last,
        "is_called": called,
        **more,
    }


def facts() -> Entry:
    """Private facts of a small dump, without what only the source knows (`after`)."""
    return {
        "tables": [table("a"), table("b", 0, "0:0"), table("a", 3, "1:1", "other")],
        "sequences": [sequence(7, after={"last_value": 7, "is_called": True})],
        "large_objects": {"count": 2, "digest": "1:2"},
        "materialized_views": [{"schema": "public", "name": "m", "populated": True}],
        "catalogue": {"constraints": ["public.a: a_pkey"], "indexes": ["public.a: i"]},
        "database": {"owner": "app", "encoding": "UTF8", "grants": None, "settings": [["", ["a=1", "b=2"]]]},
    }


def test_the_same_in_another_order_is_the_same() -> None:
    seen = facts()
    for key in ("tables", "sequences", "materialized_views"):
        seen[key].reverse()
    seen["catalogue"]["indexes"].reverse()
    seen["database"]["settings"] = [["", ["b=2", "a=1"]]]
    checks = compare_all(facts(), seen)
    assert {check.verdict for check in checks} == {PASS}
    assert [check.name for check in checks] == [
        "tables", "sequences", "large objects", "materialized views", "constraints", "indexes", "database properties",
    ]  # fmt: skip


CHANGES: dict[str, tuple[str, t.Callable[[Entry], object]]] = {
    "a table is missing": ("tables", lambda seen: seen["tables"].pop()),
    "a table too many": ("tables", lambda seen: seen["tables"].append(table("c"))),
    "a row less": ("tables", lambda seen: seen["tables"][0].update(rows=2)),
    "other content": ("tables", lambda seen: seen["tables"][0].update(digest="5:-8")),
    "tables swapped": ("tables", lambda seen: [seen["tables"][0].update(name="b"), seen["tables"][1].update(name="a")]),
    "a sequence behind": ("sequences", lambda seen: seen["sequences"][0].update(last_value=6)),
    "a sequence ahead": ("sequences", lambda seen: seen["sequences"][0].update(last_value=8)),
    "a sequence not called": ("sequences", lambda seen: seen["sequences"][0].update(is_called=False)),
    "a sequence missing": ("sequences", lambda seen: seen["sequences"].clear()),
    "a large object less": ("large objects", lambda seen: seen["large_objects"].update(count=1)),
    "another large object": ("large objects", lambda seen: seen["large_objects"].update(digest="1:3")),
    "a view empty": ("materialized views", lambda seen: seen["materialized_views"][0].update(populated=False)),
    "a view missing": ("materialized views", lambda seen: seen["materialized_views"].clear()),
    "a constraint missing": ("constraints", lambda seen: seen["catalogue"]["constraints"].clear()),
    "an index too many": ("indexes", lambda seen: seen["catalogue"]["indexes"].append("public.a: j")),
    "a category missing": ("indexes", lambda seen: seen["catalogue"].pop("indexes")),
    "another owner": ("database properties", lambda seen: seen["database"].update(owner="other")),
    "another setting": ("database properties", lambda seen: seen["database"].update(settings=[["", ["a=1"]]])),
    "granted": ("database properties", lambda seen: seen["database"].update(grants=[["", "CONNECT", False, "app"]])),
    "no database": ("database properties", lambda seen: seen.update(database=None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_difference_is_a_failure_of_its_own_check(change: str) -> None:
    where, do = CHANGES[change]
    seen = facts()
    do(seen)
    failed = [check.name for check in compare_all(facts(), seen) if check.verdict == FAIL]
    assert failed == [where]


entries = st.lists(
    st.builds(
        table,
        st.text(min_size=1, max_size=5),
        st.integers(0, 1 << 40),
        st.tuples(st.integers(-(1 << 90), 1 << 90), st.integers(-(1 << 90), 1 << 90)).map("{0[0]}:{0[1]}".format),
        st.sampled_from(["public", "p", "pu.blic"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda entry: (entry["schema"], entry["name"]),
)


@given(entries, st.randoms(use_true_random=False))
def test_tables_pass_only_when_all_are_equal(expected: list[Entry], rng: random.Random) -> None:
    seen = copy.deepcopy(expected)
    rng.shuffle(seen)
    assert compare_tables(expected, seen).verdict == PASS
    victim = rng.choice(seen)
    high, low = victim["digest"].split(":")
    change = rng.choice(
        [{"rows": victim["rows"] + 1}, {"digest": f"{int(high) + 1}:{low}"}, {"digest": f"{high}:{int(low) - 1}"}]
    )
    victim.update(change)
    check = compare_tables(expected, seen)
    assert check.verdict == FAIL
    assert f"{victim['schema']}.{victim['name']}: " in check.reason


def test_nothing_to_compare_proves_nothing() -> None:
    assert compare_tables([], []).verdict == UNPROVEN
    assert compare_row_counts([], {}).verdict == UNPROVEN
    assert compare_tables([], [table("a")]).verdict == FAIL


def test_many_differences_are_named_in_part() -> None:
    check = compare_tables([table(f"t{n}") for n in range(9)], [])
    assert check.reason == "public.t0: missing, public.t1: missing, public.t2: missing and 6 more"


def test_hash_partitions_count_as_a_whole() -> None:
    """A restore may put their rows elsewhere; their sums stay."""
    group = ["public", "whole"]
    expected = [table("p0", 2, "10:1", group=group), table("p1", 1, "5:5", group=group), table("other", 1, "1:1")]
    seen = [table("p0", 0, "0:0", group=group), table("p1", 3, "15:6", group=group), table("other", 1, "1:1")]
    assert compare_tables(expected, seen).verdict == PASS
    seen[1]["digest"] = "15:7"
    check = compare_tables(expected, seen)
    assert (check.verdict, check.reason) == (FAIL, "public.whole: other content in 3 rows")
    assert compare_row_counts(expected, {("public", "whole"): 3, ("public", "other"): 1}).verdict == PASS
    assert compare_row_counts(expected, {("public", "p1"): 3, ("public", "other"): 1}).verdict == PASS
    assert compare_row_counts(expected, {("public", "p1"): 2, ("public", "other"): 1}).verdict == FAIL


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({("public", "a"): 3, ("public", "b"): 0}, ""),
        ({("public", "a"): 2, ("public", "b"): 0}, "public.a: 2 rows instead of 3"),
        ({("public", "a"): 3}, "public.b: no rows instead of 0"),
        ({("public", "a"): 3, ("public", "b"): 0, ("x", "a"): 0}, "x.a: not in the manifest"),
        ({("other", "a"): 3, ("public", "b"): 0}, "other.a: not in the manifest, public.a: no rows instead of 3"),
    ],
)
def test_row_counts_of_a_full_read(seen: dict[tuple[str, str], int], reason: str) -> None:
    check = compare_row_counts([table("a"), table("b", 0)], seen)
    assert (check.verdict, check.reason) == (FAIL if reason else PASS, reason)


@pytest.mark.parametrize(
    ("before", "after", "seen", "verdict"),
    [
        (sequence(1, False), (1, False), sequence(1, False), PASS),
        (sequence(1, False), (1, False), sequence(1, True), FAIL),
        (sequence(1, False), (1, True), sequence(1, True), PASS),
        (sequence(5), (9, True), sequence(5), PASS),
        (sequence(5), (9, True), sequence(7), PASS),
        (sequence(5), (9, True), sequence(9), PASS),
        (sequence(5), (9, True), sequence(4), FAIL),
        (sequence(5), (9, True), sequence(10), FAIL),
        (sequence(-5, increment=-1), (-9, True), sequence(-7), PASS),
        (sequence(-5, increment=-1), (-9, True), sequence(-4), FAIL),
        (sequence(-5, increment=-1), (-9, True), sequence(-10), FAIL),
        # set back while the dump ran: between the two there is no order
        (sequence(9), (2, True), sequence(9), PASS),
        (sequence(9), (2, True), sequence(2), PASS),
        (sequence(9), (2, True), sequence(5), UNPROVEN),
        (sequence(9, cycle=True), (9, True), sequence(9), PASS),
        (sequence(8, cycle=True), (9, True), sequence(1), UNPROVEN),
        # dropped while the dump ran
        (sequence(9), None, sequence(9), UNPROVEN),
    ],
)
def test_sequences(before: Entry, after: tuple[int, bool] | None, seen: Entry, verdict: str) -> None:
    then = None if after is None else {"last_value": after[0], "is_called": after[1]}
    assert compare_sequences([{**before, "after": then}], [seen]).verdict == verdict


def test_a_failed_sequence_beats_an_unclear_one() -> None:
    expected = [
        {**sequence(1), "name": "gone", "after": None},
        {**sequence(1), "after": {"last_value": 1, "is_called": True}},
    ]
    assert compare_sequences(expected, [{**sequence(1), "name": "gone"}, sequence(2)]).verdict == FAIL


def test_what_a_side_could_not_read_is_unproven() -> None:
    blind = {"unproven": "this role may not read large objects"}
    known = {"count": 1, "digest": "1:1"}
    for left, right in ((blind, known), (known, blind), (blind, blind)):
        check = compare_large_objects(left, right)
        assert (check.verdict, check.reason) == (UNPROVEN, "this role may not read large objects")


def test_between_major_versions_other_privileges_are_unproven() -> None:
    expected = {"tables": ["public.a: a=arwdDxt/a"], "views": []}
    seen = {"tables": ["public.a: a=arwdDxtm/a"], "views": []}
    assert [check.verdict for check in compare_catalogue(expected, seen, same_major=True)] == [FAIL, PASS]
    assert [check.verdict for check in compare_catalogue(expected, seen, same_major=False)] == [UNPROVEN, PASS]


def test_views_and_properties_say_what_differs() -> None:
    assert "public.m" in compare_views([{"schema": "public", "name": "m", "populated": True}], []).reason
    wrong = compare_properties(facts()["database"], {**facts()["database"], "owner": "x", "encoding": "LATIN1"})
    assert wrong.reason == "differ: owner, encoding"


def test_what_was_left_out_is_unproven_but_for_comments_on_extensions() -> None:
    checks = [left_out_check("COMMENT EXTENSION hstore: the extension isn't ours"), left_out_check("SUBSCRIPTION s: x")]
    assert [check.verdict for check in checks] == [PASS, UNPROVEN]
    assert combine(check.verdict for check in checks) == UNPROVEN
