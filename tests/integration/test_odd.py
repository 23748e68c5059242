# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd databases come back equal by the tests' own comparison: schema, content, owners, and the database itself."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import compare
from support.flow import FULL, Flow
from support.odd import Variant, load_odd, run_sql
from support.servers import PgInstall, PgServer, installation, installations

EVERY: list[tuple[Variant, ...]] = [("subscription",), ("hash_enum",), ("timeouts",), ("readonly",)]
TOGETHER: list[tuple[Variant, ...]] = [("subscription", "hash_enum"), ("timeouts", "readonly")]
VARIANTS = EVERY if FULL else TOGETHER


@pytest.fixture(params=installations(), ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        yield started


@pytest.fixture
def flow(server: PgServer, tmp_path: Path) -> Flow:
    return Flow(server, tmp_path / "backups")


@pytest.mark.parametrize("variants", VARIANTS, ids="+".join)
def test_round_trip(flow: Flow, variants: tuple[Variant, ...]) -> None:
    load_odd(flow.server, "mazevault", variants)
    before = compare.state_of(flow.server, "mazevault")
    published = flow.publish(level="restore")
    restored, swapped = flow.restore_and_swap(published["set_id"])

    assert restored["verdict"] == "pass", [check for check in restored["checks"] if check["verdict"] != "pass"]
    assert restored["left_out"] == []
    assert swapped["kept"]
    after = compare.state_of(flow.server, "mazevault")
    # Which partition a row of a hash partition by enum lies in depends on ids that differ in each database.
    ignore = (r"tables / .*odd_by_enum.*",) if "hash_enum" in variants else ()
    assert compare.difference(before, after, ignore=ignore) == []
    if "hash_enum" in variants:
        assert _hash_rows(flow.server, "mazevault") == _hash_rows(flow.server, swapped["kept"])


def _hash_rows(server: PgServer, dbname: str) -> list[tuple[t.Any, ...]]:
    """Rows of every table that is partitioned by hash, as a whole."""
    parents = server.query(
        "SELECT p.partrelid::regclass::text FROM pg_partitioned_table p WHERE p.partstrat = 'h' ORDER BY 1",
        dbname=dbname,
    )
    assert parents
    return [
        server.query(f"SELECT count(*), sum(hashtextextended(x::text, 0)) FROM {parent} x", dbname=dbname)[0]
        for (parent,) in parents
    ]


def test_statistics_are_there(flow: Flow) -> None:
    """The application must not meet a database that the planner knows nothing of."""
    flow.server.query("CREATE TABLE t AS SELECT i, i % 7 AS k FROM generate_series(1, 5000) i")
    published = flow.publish()
    flow.restore_and_swap(published["set_id"])
    assert flow.server.query("SELECT count(*) FROM pg_stats WHERE tablename = 't'") == [(2,)]
    assert flow.server.query("SELECT reltuples::int FROM pg_class WHERE relname = 't'") == [(5000,)]


def test_sequences_lie_between_before_and_after(flow: Flow) -> None:
    flow.server.query("CREATE SEQUENCE s; SELECT setval('s', 41)")
    flow.server.query("CREATE TABLE t(i int); INSERT INTO t VALUES (1)")
    published = flow.publish()
    restored, _swapped = flow.restore_and_swap(published["set_id"])
    assert restored["verdict"] == "pass"
    assert flow.server.query("SELECT last_value, is_called FROM s") == [(41, True)]


def test_a_broken_foreign_key_is_published_as_failed(flow: Flow) -> None:
    """A source that can't be proven still gets a set; nobody may take it for a good one."""
    load_odd(flow.server, "mazevault", ("broken_fk",))
    published = flow.publish()
    found = flow.verify(published["set_id"], "restore")
    assert found["verdict"] == "fail"
    before = compare.state_of(flow.server, "mazevault")
    with flow.staging("restore") as set_id:
        refused = flow.try_restore(published["set_id"], set_id)
    assert refused.rc != 0
    assert "didn't load" in refused.result["msg"]
    assert compare.difference(before, compare.state_of(flow.server, "mazevault")) == []
    assert [name for _oid, name in flow.databases() if "restore" in name] == []


def test_without_a_superuser(server: PgServer, tmp_path: Path) -> None:
    """As on a managed server: a role that owns its database, may create databases and roles, and no more."""
    server.query("CREATE ROLE app LOGIN CREATEDB CREATEROLE")
    server.query("CREATE DATABASE appdb OWNER app")
    with server.connect(dbname="appdb", user="app", autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE a(id serial PRIMARY KEY, t text); INSERT INTO a(t) VALUES ('x'), ('y')")
        cursor.execute("CREATE EXTENSION citext; SELECT lo_from_bytea(0, '\\x010203')")
        cursor.execute("ALTER DATABASE appdb SET statement_timeout = '7s'")
    before = compare.state_of(server, "appdb")

    class AsApp(Flow):
        @property
        def connection(self) -> dict[str, t.Any]:
            return {**super().connection, "user": "app"}

    flow = AsApp(server, tmp_path / "backups", "appdb")
    published = flow.publish(level="restore")
    restored, _swapped = flow.restore_and_swap(published["set_id"])
    assert restored["verdict"] == "pass"
    assert compare.difference(before, compare.state_of(server, "appdb")) == []


def test_to_a_newer_version(tmp_path: Path) -> None:
    """A dump of 15 restores to the newest server; what a newer version can't be expected to keep equal is unproven."""
    newest = installations()[0]
    older: PgInstall = installation(15)
    with PgServer(older) as old, PgServer(newest) as new:
        load_odd(old, "mazevault", ("portable",))
        source = Flow(old, tmp_path / "backups")
        published = source.publish(level="restore")
        run_sql(new, "mazevault", "odd_roles.sql")  # the comparison takes the schema's second generation there
        before = compare.state_of(old, "mazevault", on=new)
        new.drop_database("mazevault")
        target = Flow(new, tmp_path / "backups")
        restored, swapped = target.restore_and_swap(published["set_id"])
        assert swapped["kept"] is None
        assert restored["verdict"] in ("pass", "unproven")
        failed = [check for check in restored["checks"] if check["name"] in ("tables", "sequences", "large objects")]
        assert {check["verdict"] for check in failed} == {"pass"}
        after = compare.state_of(new, "mazevault")
        assert compare.difference(before, after, ignore=compare.ACROSS_VERSIONS) == []
