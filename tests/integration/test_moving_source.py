# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a database that is written to and altered meanwhile: each is one moment, and nobody waits for long."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import compare, load
from support.flow import FULL, HOSTNAME, Flow, count
from support.modules import Outcome, run_module, started
from support.servers import PgInstall, PgServer, installations

BLOCK_LIMIT = 5.0
# A look at who waits comes every 0.1 s; ending a program and a session takes a moment, on a busy machine a long one.
MARGIN = 2.0
PARTS: tuple[compare.Part, ...] = ("tables", "large_objects")
# For what hardly depends on the version.
SOME = installations() if FULL else installations()[:1]


@pytest.fixture(params=installations(), ids=str)
def install(request: pytest.FixtureRequest) -> PgInstall:
    found: PgInstall = request.param
    return found


@pytest.fixture
def server(install: PgInstall) -> Iterator[PgServer]:
    with PgServer(install) as started_server:
        yield started_server


@pytest.fixture
def flow(server: PgServer, tmp_path: Path) -> Flow:
    return Flow(server, tmp_path / "backups")


def dump_params(flow: Flow, set_id: str, **more: t.Any) -> dict[str, t.Any]:
    return {
        "backup_root": str(flow.root),
        **flow.connection,
        **flow.programs,
        "set_id": set_id,
        "block_limit": BLOCK_LIMIT,
        "jobs": 2,
        **more,
    }


def dump(flow: Flow, set_id: str, **more: t.Any) -> Outcome:
    return run_module("pg_dump", dump_params(flow, set_id, **more))


def our_sessions(server: PgServer, dbname: str = "%") -> list[tuple[t.Any, ...]]:
    """Sessions of the collection; a session that was ended a moment ago gets that moment."""
    deadline = time.monotonic() + 2
    while True:
        found = server.query(
            "SELECT pid, application_name, state, query FROM pg_stat_activity"
            " WHERE datname LIKE %s"
            " AND (application_name LIKE 'mazevault.backup%%' OR application_name IN ('pg_dump', 'pg_restore'))",
            dbname,
            dbname="postgres",
        )
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def assert_nothing_is_left(flow: Flow, set_id: str) -> None:
    """Under the final name of the dump there is nothing, nor any session in the database."""
    staged = flow.root / "staging" / set_id
    assert list((staged / "set").iterdir()) == []
    assert not (staged / "postgres.json").exists()
    assert not (flow.root / "sets" / set_id).exists()
    assert our_sessions(flow.server, flow.database) == []


class Statement:
    """A statement in a session of its own, and how long it took."""

    def __init__(self, server: PgServer, statement: str, dbname: str | None = None) -> None:
        self._server, self._statement, self._dbname = server, statement, dbname
        self.seconds = 0.0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            self._server.query(self._statement, dbname=self._dbname)
        except Exception as exc:
            self.error = exc
        self.seconds = time.monotonic() - begin

    def __enter__(self) -> Statement:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self._statement} still waits"

    def wait_queued(self) -> None:
        """Wait until it waits for a lock."""
        deadline = time.monotonic() + 20
        while not self._server.query(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
            " AND pid IN (SELECT pid FROM pg_stat_activity WHERE query = %s)",
            self._statement,
            dbname="postgres",
        ):
            assert time.monotonic() < deadline, f"{self._statement} doesn't wait"
            time.sleep(0.01)


def restored_by_hand(flow: Flow, path: Path, name: str) -> None:
    """Restore a set's dump with stock tools into a database of its own."""
    server = flow.server
    server.create_database_like(flow.database, name)
    program = server.install.program("pg_restore")
    with subprocess.Popen(["zstd", "-qdc", path / "postgres/database.dump.zst"], stdout=subprocess.PIPE) as unpacking:
        subprocess.run(
            [program, "--exit-on-error", f"--dbname={name}"],
            stdin=unpacking.stdout,
            env=server.environment(name),
            check=True,
            capture_output=True,
        )
    assert unpacking.returncode == 0


MOVING = [(install, 1.0, count(3, 10)) for install in installations()]
MOVING += [(install, 0.0, count(1, 10)) for install in SOME]


@pytest.mark.parametrize(("install", "pause", "rounds"), MOVING, ids=str)
def test_each_backup_of_a_moving_source_is_exactly_its_own_snapshot(
    flow: Flow, tmp_path: Path, pause: float, rounds: int, record_property: t.Any
) -> None:
    """While tables are truncated, rewritten and replaced; where that leaves no moment for a backup, the run says so."""
    server = flow.server
    connect = server.connector()
    load.Writers.prepare(connect)
    load.DdlLoop.prepare(connect)
    server.query("SELECT lo_from_bytea(0, decode(repeat('00ff', 100000), 'hex'))")
    taken: list[tuple[Path, compare.State]] = []
    refusals: list[str] = []
    attempts = 0
    with load.Writers(connect, threads=3) as writers, load.DdlLoop(connect, pause=pause) as ddl:
        writers.wait_for(50)
        ddl.wait_for(3)
        for number in range(rounds):
            truth = tmp_path / f"truth-{number}.json"
            with flow.staging("set") as set_id:
                done = run_module("pg_dump", dump_params(flow, set_id), hooks=[("keep_truth", {"path": str(truth)})])
                if done.rc:
                    refusals.append(done.result["msg"])
                    assert_nothing_is_left(flow, set_id)
                    continue
                attempts += done.result["attempts"]
                assert done.result["longest_block_seconds"] <= BLOCK_LIMIT + MARGIN
                sealed = flow.must("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME)
            taken.append((Path(sealed["path"]), json.loads(truth.read_text(encoding="utf-8"))))
        writers.wait_for(50)
        ddl.wait_for(1)
    for number, (path, expected) in enumerate(taken):
        restored_by_hand(flow, path, f"back_{number}")
        with contextlib.closing(server.connect(f"back_{number}")) as conn:
            assert compare.difference(expected, compare.snapshot_of(conn, PARTS)) == []
            assert load.Writers.faults(conn) + load.DdlLoop.faults(conn) == []
        server.drop_database(f"back_{number}")
    if taken:
        assert flow.verify("latest")["summary"] == "pass: proven to level restore"
    assert len({json.dumps(expected) for _path, expected in taken}) == len(taken), "the source did not move"
    for why in refusals:
        assert why.startswith("no backup taken: "), why
        assert "Run the backup when no migration is running" in why
    assert (writers.measure.failures, ddl.measure.failures) == ([], [])
    assert writers.measure.longest_wait <= BLOCK_LIMIT + MARGIN
    assert ddl.measure.longest_wait <= BLOCK_LIMIT + MARGIN
    assert our_sessions(server) == []
    if pause:
        assert len(taken) > rounds // 2, f"too few backups: {refusals}"
    figures = {
        "backups": f"{len(taken)} of {rounds} in {attempts} attempts",
        "writes": writers.measure.total,
        "ddl": ddl.measure.total,
        "longest wait of a writer": round(writers.measure.longest_wait, 2),
        "longest wait of DDL": round(ddl.measure.longest_wait, 2),
    }
    for key, value in figures.items():
        record_property(key, value)
    print(f"{server.install}: {figures}")


def zstd_that(folder: Path, first: str) -> dict[str, str]:
    """An environment whose zstd does something else when it is called for the first time."""
    folder.mkdir()
    script = folder / "zstd"
    script.write_text(
        f'#!/bin/sh\n[ -e "{folder}/called" ] && exec /usr/bin/env -u SLOW zstd.real "$@"\n'
        f'touch "{folder}/called"\n{first}\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    real = subprocess.run(["which", "zstd"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "zstd.real").symlink_to(real)
    path = subprocess.run(["sh", "-c", 'printf %s "$PATH"'], capture_output=True, text=True, check=True).stdout
    return {"PATH": f"{folder}:{path}"}


@pytest.fixture
def slow_zstd(tmp_path: Path) -> dict[str, str]:
    """It takes nothing for a minute."""
    return zstd_that(tmp_path / "slow", "exec sleep 60")


def test_looking_for_whom_it_blocks_costs_the_server_little(flow: Flow, tmp_path: Path) -> None:
    """Also when all is read and counted, and only pg_dump is waited for."""
    server = flow.server
    server.query("CREATE TABLE big AS SELECT n, md5(n::text) AS a FROM generate_series(1, 100000) AS n")
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'mazevault'"
    with flow.staging("set") as set_id:
        ((before,),) = server.query(count)
        env = zstd_that(tmp_path / "late", 'sleep 4; exec zstd.real "$@"')
        done = run_module("pg_dump", dump_params(flow, set_id), env=env)
        assert done.rc == 0, done.result
        ((after,),) = server.query(count)
    assert 30 < after - before < 100, "ten looks a second, each a transaction"


def test_ddl_that_waits_for_a_slow_dump_gets_through_at_the_limit(flow: Flow, slow_zstd: dict[str, str]) -> None:
    server = flow.server
    server.query("CREATE TABLE big AS SELECT n, md5(n::text) AS a FROM generate_series(1, 100000) AS n")
    with (
        flow.staging("set") as set_id,
        started("pg_dump", dump_params(flow, set_id), stop_at="dump: pg_dump runs", env=slow_zstd) as running,
    ):
        assert running.wait_stopped()
        running.go_on()
        # pg_dump must have its own lock: it queues behind nobody.
        wait_for_dumps_lock(server, "big")
        with Statement(server, "ALTER TABLE big ADD COLUMN b uuid DEFAULT gen_random_uuid()") as alter:
            alter.wait_queued()
            reading = Statement(server, "SELECT count(*) FROM big")
            with reading:
                reading.wait_queued()
        assert alter.error is None
        assert BLOCK_LIMIT <= alter.seconds <= BLOCK_LIMIT + MARGIN
        assert reading.seconds <= BLOCK_LIMIT + MARGIN
        assert running.wait_stopped(), "there is no second attempt"
        running.go_on()
        done = running.end()
        assert done.rc == 0, done.result
        assert done.result["attempts"] == 2
        assert BLOCK_LIMIT <= done.result["longest_block_seconds"] <= BLOCK_LIMIT + MARGIN
        assert our_sessions(server) == []
        assert flow.verify(set_id)["verdict"] == "pass"


def wait_for_dumps_lock(server: PgServer, table: str) -> None:
    """Wait until two sessions, the snapshot's holder and pg_dump, have locked the table."""
    deadline = time.monotonic() + 20
    while server.query("SELECT count(DISTINCT pid) FROM pg_locks WHERE granted AND relation = %s::regclass", table) < [
        (2,)
    ]:
        assert time.monotonic() < deadline, "pg_dump doesn't lock the table"
        time.sleep(0.01)


@pytest.mark.parametrize("install", SOME, ids=str)
def test_ddl_between_our_locks_and_pg_dump_s_does_not_hang_everybody(flow: Flow) -> None:
    """The server can't see that circle: DDL waits for the holder, pg_dump for the DDL, and the holder for pg_dump."""
    server = flow.server
    server.query("CREATE TABLE one AS SELECT n FROM generate_series(1, 1000) AS n")
    with (
        flow.staging("set") as set_id,
        started("pg_dump", dump_params(flow, set_id), stop_at="dump: pg_dump starts") as running,
    ):
        assert running.wait_stopped()
        with Statement(server, "ALTER TABLE one ALTER COLUMN n TYPE text") as alter:
            alter.wait_queued()
            began = time.monotonic()
            running.go_on()
        assert alter.error is None
        assert time.monotonic() - began < 3.0, "a hopeless attempt was held on to"
        assert running.wait_stopped(), "there is no second attempt"
        running.go_on()
        done = running.end()
        assert (done.rc, done.result.get("attempts")) == (0, 2), done.result
        assert our_sessions(server) == []
        assert flow.verify(set_id)["verdict"] == "pass"


LOCKS = {
    "locked": "LOCK TABLE one IN ACCESS EXCLUSIVE MODE",
    "rewritten": "ALTER TABLE one ALTER COLUMN n TYPE text",
    "view": "DROP VIEW look",
    "sequence": "DROP SEQUENCE counter",
    "migration": "TRUNCATE schema_migrations",
}


def test_a_lock_that_is_held_for_ever_ends_the_backup_with_a_clear_word(server: PgServer, tmp_path: Path) -> None:
    """Each kind in a database of its own, all at once: most of it is waiting."""
    limit = 1.0
    with contextlib.ExitStack() as stack:
        flows, outcomes = {}, {}
        for name, statement in LOCKS.items():
            server.query(f"CREATE DATABASE {name}", dbname="postgres")
            server.query(
                "CREATE TABLE one AS SELECT n FROM generate_series(1, 1000) AS n; CREATE TABLE a_first (n integer);"
                "CREATE TABLE other (n integer); CREATE VIEW look AS SELECT n FROM other; CREATE SEQUENCE counter;"
                "CREATE TABLE schema_migrations AS SELECT 4::bigint AS version, false AS dirty",
                dbname=name,
            )
            flows[name] = Flow(server, tmp_path / name, name)
            conn = stack.enter_context(contextlib.closing(server.connect(name)))
            conn.cursor().execute(statement)
            # What others do meanwhile waits for the backup no longer than agreed.
            outcomes[name] = stack.enter_context(Locked(flows[name], limit))
            stack.callback(conn.rollback)
        for name, outcome in outcomes.items():
            outcome.join()
            assert outcome.done is not None
            assert outcome.done.rc != 0, f"{name} was locked, and yet: {outcome.done.result}"
            assert "lock" in outcome.done.result["msg"], outcome.done.result
            assert "block_limit" in outcome.done.result["msg"], outcome.done.result
            assert outcome.seconds < 40, f"{name}: {outcome.seconds:.1f} s"
            assert outcome.alter.error is None
            assert outcome.alter.seconds <= limit + MARGIN
            assert_nothing_is_left(flows[name], outcome.set_id)
            print(f"{server.install}: {name} locked: gave up after {outcome.seconds:.1f} s")
    assert our_sessions(server) == []
    # The counterpart: the same backup, without the lock.
    for name in ("view", "migration"):
        done = dump(flows[name], outcomes[name].set_id, block_limit=limit)
        assert (done.rc, done.result.get("postgres", {}).get("schema_version")) == (0, 4), done.result


class Locked:
    """A backup of a database in which somebody holds a lock, and DDL on another table meanwhile."""

    def __init__(self, flow: Flow, limit: float) -> None:
        self._flow, self._limit = flow, limit
        self.alter = Statement(flow.server, "ALTER TABLE a_first ADD COLUMN m integer", flow.database)
        self.done: Outcome | None = None
        self.seconds = 0.0
        self.set_id = str(flow.must("recovery_set", state="open")["set_id"])
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began = time.monotonic()
        with self.alter:
            self.done = dump(self._flow, self.set_id, block_limit=self._limit)
        self.seconds = time.monotonic() - began

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive(), f"{self._flow.database}: the backup doesn't end"

    def __enter__(self) -> Locked:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.join()


@pytest.mark.parametrize("install", SOME, ids=str)
def test_others_wait_for_a_backup_that_waits_itself_no_longer_than_the_limit(flow: Flow) -> None:
    """A backup that locks one table after the other holds some while it waits for the next."""
    server = flow.server
    names = [f"t{number}" for number in range(6)]
    server.query("; ".join(f"CREATE TABLE {name} (n integer)" for name in names))
    limit = 2.0
    with contextlib.ExitStack() as stack:
        set_id = stack.enter_context(flow.staging("set"))
        holders = [stack.enter_context(contextlib.closing(server.connect())) for _name in names[1:]]
        for name, holder in zip(names[1:], holders, strict=True):
            holder.cursor().execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        done: list[Outcome] = []
        backup = threading.Thread(target=lambda: done.append(dump(flow, set_id, block_limit=limit)))
        backup.start()
        deadline = time.monotonic() + 20
        while not server.query("SELECT 1 FROM pg_locks WHERE granted AND relation = 't0'::regclass"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with Statement(server, "ALTER TABLE t0 ADD COLUMN m integer") as alter:
            for holder in holders:
                time.sleep(0.8)
                holder.rollback()
        backup.join(60)
        assert alter.error is None
        assert alter.seconds <= limit + MARGIN / 2
        assert done[0].rc == 0, done[0].result


@pytest.mark.parametrize("install", SOME, ids=str)
def test_after_kill_9_the_server_gives_up_the_snapshot_soon(flow: Flow) -> None:
    """A query that runs for long would otherwise hold its locks and the vacuum back until its end."""
    server = flow.server
    # Small on the disk, long to read.
    server.query("CREATE TABLE long (a text); INSERT INTO long VALUES (repeat('x', 100000000))")
    for _doubling in range(5):
        server.query("INSERT INTO long SELECT a FROM long")
    with (
        flow.staging("set") as set_id,
        started("pg_dump", dump_params(flow, set_id), stop_at="dump: pg_dump runs") as running,
    ):
        assert running.wait_stopped()
        running.go_on()
        deadline = time.monotonic() + 20
        while not server.query(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT count(*)%%\"long\"%%' AND state = 'active'"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.kill()
        began = time.monotonic()
        with Statement(server, "ALTER TABLE long ADD COLUMN b integer") as alter:
            pass
        assert alter.error is None
        assert time.monotonic() - began < 8
        assert our_sessions(server) == []
