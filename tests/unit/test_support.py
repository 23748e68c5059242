# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test equipment does what the tests believe it does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from support import acked, compare, damage, kill, load, odd, servers, truth
from support.flow import FULL

MAJORS = (15, 18)
DATABASE_ONLY = (r"^database / ",)


def need(major: int) -> servers.PgInstall:
    """PostgreSQL 18 comes with the test requirements; 15 is the system's, where the system is Debian 12."""
    if major != 18 and major not in [install.major for install in servers.installations()]:
        pytest.skip(f"PostgreSQL {major} is not installed on this machine")
    return servers.installation(major)


@pytest.fixture(params=MAJORS, ids=lambda major: f"pg{major}")
def install(request: pytest.FixtureRequest) -> servers.PgInstall:
    return need(request.param)


@pytest.fixture
def server(install: servers.PgInstall) -> Iterator[servers.PgServer]:
    with servers.PgServer(install) as started:
        yield started


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def odd_server(request: pytest.FixtureRequest) -> Iterator[servers.PgServer]:
    with servers.PgServer(need(request.param)) as started:
        odd.load_odd(started, "mazevault")
        yield started


# servers


def test_a_server_has_the_official_image_s_habits(server: servers.PgServer) -> None:
    roles = server.query("SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_'")
    assert roles == [("mazevault", True)]
    assert server.query("SELECT current_database()") == [("mazevault",)]
    assert server.query("SHOW server_version")[0][0].startswith(server.install.version)
    assert server.run("psql", "-XAtc", "SHOW fsync").stdout == "off\n"
    assert len(str(server.socket_directory / ".s.PGSQL.65535")) < 100


def test_the_server_does_not_run_as_root(server: servers.PgServer) -> None:
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_restart_and_kill9_keep_what_was_committed(server: servers.PgServer) -> None:
    server.query("CREATE TABLE t AS SELECT 1 AS a")
    port, pid = server.port, server.pid
    server.restart()
    server.query("INSERT INTO t VALUES (2)")
    children = [process.pid for process in kill.descendants(server.pid)]
    assert children
    server.kill9()
    assert not server.running
    kill.wait_gone([pid, *children], timeout=0.5)
    server.restart()
    assert server.port == port
    assert server.query("SELECT a FROM t ORDER BY a") == [(1,), (2,)]
    assert "was not properly shut down" in server.log.read_text(encoding="utf-8")


def test_settings_superuser_and_password(install: servers.PgInstall) -> None:
    settings: dict[str, str | int] = {"max_prepared_transactions": 3, "cluster_name": "it's odd"}
    with servers.PgServer(
        install, superuser="odd admin", database="odd db", auth="scram", settings=settings, fsync=True
    ) as server:
        assert server.query("SELECT current_user, current_setting('cluster_name')") == [("odd admin", "it's odd")]
        assert server.query("SHOW fsync") == [("on",)]
        with contextlib.closing(server.connect(tcp=True)) as conn:
            assert conn.info.dbname == "odd db"
        for tcp in (True, False):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                server.connect(tcp=tcp, password="wrong")
        server.run("psql", "-XAtc", "SELECT 1")
        with pytest.raises(servers.ServerError, match="ended with 1"):
            server.run("psql", "-XAtc", "SELECT no_such_column")


def test_two_servers_at_once_and_nothing_is_left(install: servers.PgInstall) -> None:
    with servers.PgServer(install) as first, servers.PgServer(install) as second:
        assert first.port != second.port
        pids = [first.pid, second.pid]
        bases = [first.base, second.base]
        second.kill9()
    kill.wait_gone(pids, timeout=1)
    assert [base for base in bases if base.exists()] == []


def test_a_server_that_can_not_start_says_why(install: servers.PgInstall) -> None:
    with pytest.raises(servers.ServerError, match="no_such_setting"):
        servers.PgServer(install, settings={"no_such_setting": 1}).start()


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 9)", "pass", "raise SystemExit(1)"])
def test_a_server_ends_with_the_session(how: str) -> None:
    code = f"""
        import os, sys, threading
        from support import servers
        server = servers.PgServer(servers.installation(18))
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
        assert server.query("SELECT 1") == [(1,)]
        print(server.pid, server.base, flush=True)
        {how}
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout, done.stderr
    pid, base = done.stdout.split()
    kill.wait_gone([int(pid)], timeout=10)
    if how.startswith("os."):
        shutil.rmtree(base)
    else:
        assert not Path(base).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the server runs as we do and reads what we read")
def test_an_installation_that_the_server_s_account_can_not_read_is_copied() -> None:
    with tempfile.TemporaryDirectory() as hidden:  # mode 0700
        package = servers.installation(18).bin.parent.parent
        for part in (package, package.with_suffix(".libs")):
            shutil.copytree(part, Path(hidden) / part.name, symlinks=True)
        reachable = servers._reachable(Path(hidden) / package.name / "pginstall" / "bin")
        assert not reachable.is_relative_to(hidden)
        install = dataclasses.replace(servers.installation(18), bin=reachable)
        with servers.PgServer(install) as server:
            assert server.query("SELECT 1") == [(1,)]
    shutil.rmtree(reachable.parents[2])


# the odd database and the comparison


def test_the_odd_database_survives_dump_and_restore(odd_server: servers.PgServer, tmp_path: Path) -> None:
    archive = tmp_path / "odd.dump"
    assert odd_server.run("pg_dump", "-Fc", "-Z1", "-f", archive).stderr == ""
    odd_server.create_database_like("mazevault", "back")
    done = odd_server.run("pg_restore", "--exit-on-error", "-j2", "-d", "back", archive)
    assert done.stderr == ""
    source, restored = compare.state_of(odd_server, "mazevault"), compare.state_of(odd_server, "back")
    odd_server.drop_database("back")
    assert compare.difference(source, restored, ignore=DATABASE_ONLY) == []
    # positive control: what plain pg_restore leaves behind
    lost = compare.difference(source, restored)
    for what in ("owner", "acl", "comment", "connection_limit", "settings / odd-app", "settings / mazevault"):
        assert [line for line in lost if line.startswith(f"database / {what}")], what
    assert len(source["tables"]) > 60
    assert source["tables"]["public.no_columns"]["rows"] == 3
    assert source["tables"]["public.huge"]["rows"] == 1
    assert source["matviews"]["views.unpopulated"] == {"populated": False}
    assert source["large_objects"]["4242004"]["size"] == 3000001


@pytest.mark.parametrize(("old", "new"), [(15, 15), (18, 18), (15, 18)] if FULL else [(15, 18)])
def test_the_odd_database_survives_a_move_with_its_own_properties(old: int, new: int, tmp_path: Path) -> None:
    archive = tmp_path / "odd.dump"
    writable = {"PGOPTIONS": "-c default_transaction_read_only=off"}
    with servers.PgServer(need(old)) as source, servers.PgServer(need(new)) as target:
        odd.load_odd(source, "mazevault", ("subscription", "readonly", "portable"))
        assert source.query("SHOW default_transaction_read_only") == [("on",)]
        globals_ = source.run("pg_dumpall", "-g", dbname="postgres").stdout.splitlines(keepends=True)
        text = "".join(line for line in globals_ if line != "CREATE ROLE mazevault;\n")
        target.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", dbname="postgres", stdin=text)
        source.run("pg_dump", "-Fc", "-Z1", "-f", archive)
        target.drop_database("mazevault")
        target.run("pg_restore", "-C", "--exit-on-error", "-d", "postgres", archive, env=writable)
        before = compare.state_of(source, "mazevault", on=target)
        after = compare.state_of(target, "mazevault")
        ignored = compare.ACROSS_VERSIONS if old != new else ()
        assert compare.difference(before, after, ignore=ignored) == []


CHANGES = {
    "UPDATE types.numbers SET d = '0' WHERE id = 2": "tables / types.numbers / sha256",
    "UPDATE types.texts SET t = '' WHERE id = 1": "tables / types.texts / sha256",
    "UPDATE types.documents SET j = '{\"a\":2}' WHERE id = 1": "tables / types.documents / sha256",
    'UPDATE "odd names".t SET other = 7 WHERE other = 1': 'tables / "odd names".t / sha256',
    "DELETE FROM public.no_columns": "tables / public.no_columns / rows",
    "INSERT INTO public.no_columns DEFAULT VALUES": "tables / public.no_columns / rows",
    "TRUNCATE parts.hashed_3": "tables / parts.hashed_3 / rows",
    "DELETE FROM rights.secured WHERE id = 2": "tables / rights.secured / rows",
    "ALTER TABLE public.no_rows ADD COLUMN x integer": "tables / public.no_rows / columns",
    "DROP TABLE code.made_under_event_trigger": "tables / code.made_under_event_trigger",
    "SELECT nextval('public.untouched')": "sequences / public.untouched / is_called",
    "ALTER SEQUENCE public.backwards NO CYCLE CACHE 9": "sequences / public.backwards / cache",
    "SELECT lo_put(4242004, 1500000, '\\x01')": "large_objects / 4242004 / sha256",
    "SELECT lo_put(4242004, 3000001, '\\x00')": "large_objects / 4242004 / size",
    "SELECT lo_unlink(4242003)": "large_objects / 4242003",
    "ALTER LARGE OBJECT 4242005 OWNER TO odd_reader": "large_objects / 4242005 / owner",
    "GRANT UPDATE ON LARGE OBJECT 4242001 TO odd_group": "large_objects / 4242001 / acl",
    "COMMENT ON LARGE OBJECT 4242001 IS NULL": "large_objects / 4242001 / comment",
    "REFRESH MATERIALIZED VIEW views.unpopulated": "matviews / views.unpopulated / populated",
    "REFRESH MATERIALIZED VIEW views.populated WITH NO DATA": "matviews / views.populated / populated",
    "ALTER EXTENSION hstore SET SCHEMA public": "extensions / hstore / schema",
    "DROP EXTENSION pg_trgm CASCADE": "extensions / pg_trgm",
    "ALTER TABLE public.huge OWNER TO odd_reader": "objects / table public.huge / owner",
    "GRANT SELECT (t) ON public.huge TO odd_reader": "objects / column public.huge.t",
    "REVOKE SELECT ON rights.granted FROM odd_group CASCADE": "objects / table rights.granted / acl",
    "REVOKE ALL ON FUNCTION code.overloaded(integer) FROM odd_reader": "objects / function code.overloaded(integer)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA rights GRANT INSERT ON TABLES TO odd_auditors": "objects / default rights of",
    "COMMENT ON POLICY limiting ON rights.secured IS 'x'": "comments / policy limiting on rights.secured",
    "ALTER DATABASE mazevault OWNER TO odd_reader": "database / owner",
    "GRANT CONNECT ON DATABASE mazevault TO PUBLIC": "database / acl",
    "ALTER DATABASE mazevault SET work_mem = '9MB'": "database / settings / (every role)",
    "ALTER ROLE odd_reader IN DATABASE mazevault SET work_mem = '9MB'": "database / settings / odd_reader",
    "ALTER DATABASE mazevault CONNECTION LIMIT 3": "database / connection_limit",
    "COMMENT ON DATABASE mazevault IS 'x'": "database / comment",
    "ALTER ROLE odd_reader SET work_mem = '9MB'": "roles / settings / odd_reader",
    "ALTER ROLE odd_reader PASSWORD 'x'": "roles / attributes / odd_reader / password",
    "REVOKE odd_deep FROM odd_auditors": "roles / memberships / odd_auditors in odd_deep",
    "REVOKE SET ON PARAMETER log_statement FROM odd_auditors": "roles / parameters / log_statement",
}


def test_the_comparison_sees_every_kind_of_change(odd_server: servers.PgServer) -> None:
    with contextlib.closing(odd_server.connect(options=compare.CALM)) as conn:
        before = compare.snapshot_of(conn)
        for part in compare.PARTS:
            changes = {change: line for change, line in CHANGES.items() if line.startswith(f"{part} / ")}
            assert changes, f"no change in {part} is tried"
            with conn.cursor() as cur:
                for change in changes:
                    cur.execute(change)
            lines = compare.difference({part: before[part]}, compare.snapshot_of(conn, [part]))
            conn.rollback()
            for change, expected in changes.items():
                assert [line for line in lines if line.startswith(expected)], (change, lines)
            surplus = [line for line in lines if not line.startswith(tuple(changes.values()))]
            # A change of a row may change a second property beside the one that is looked for.
            assert len(surplus) <= len(changes), surplus
        constant: list[compare.Part] = [part for part in compare.PARTS if part != "sequences"]
        after = compare.snapshot_of(conn, constant)
        assert compare.difference({part: before[part] for part in constant}, after) == []


def test_the_schema_s_text_is_a_fixpoint_and_sees_changes(odd_server: servers.PgServer) -> None:
    first = compare.schema_text(odd_server, "mazevault")
    second = compare.second_generation_schema(odd_server, "mazevault")
    assert first != second, "the odd database holds what changes in its first restore"
    odd_server.create_database_like("mazevault", "again")
    odd_server.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", dbname="again", stdin=second)
    assert compare.difference(second, compare.second_generation_schema(odd_server, "again")) == []
    odd_server.query("ALTER TABLE code.watched ENABLE TRIGGER disabled", dbname="again")
    odd_server.query("ALTER TABLE rights.secured NO FORCE ROW LEVEL SECURITY", dbname="again")
    lines = compare.difference(second, compare.second_generation_schema(odd_server, "again"))
    odd_server.drop_database("again")
    assert [line for line in lines if "DISABLE TRIGGER disabled" in line]
    assert [line for line in lines if "FORCE ROW LEVEL SECURITY" in line]
    leftovers = odd_server.query("SELECT datname FROM pg_database WHERE datname ~ 'generation'")
    assert leftovers == []


def test_a_difference_is_readable() -> None:
    a = {"t": {"rows": 1, "names": ["x", "y"], "text": "one\ntwo\n"}, "gone": None}
    b = {"t": {"rows": 2, "names": ["x"], "text": "one\nthree\n"}}
    assert compare.difference(a, b) == [
        "gone: only in the first: None",
        "t / names: only in the first: y",
        "t / rows: 1 became 2",
        "t / text line 2: -two",
        "t / text line 2: +three",
    ]
    assert compare.difference(a, b, ignore=("^t / ", "^gone")) == []
    assert compare.difference({"x": 1}, {"x": True}) == ["x: 1 became True"]
    assert compare.difference([1, 1], [1]) != []
    assert compare.difference({"a": a}, {"a": a}) == []


def test_the_variants_are_what_they_say(server: servers.PgServer, tmp_path: Path) -> None:
    odd.load_odd(server, "mazevault", ("hash_enum", "broken_fk", "timeouts"))
    assert server.query("SHOW statement_timeout") == [("700ms",)]
    whole = "SELECT count(*), count(DISTINCT k) FROM public.odd_by_enum"
    assert server.query(whole) == [(400, 8)]
    server.run("pg_dump", "-Fc", "-Z1", "-f", tmp_path / "dump")
    server.create_database_like("mazevault", "back")
    done = server.run("pg_restore", "--exit-on-error", "-d", "back", tmp_path / "dump", check=False)
    assert done.returncode == 1
    assert "violates foreign key constraint" in done.stderr
    assert server.query(whole, dbname="back") == [(400, 8)], "rows may have moved, none is lost"


# load


def test_a_source_under_load_and_its_truth(server: servers.PgServer, tmp_path: Path) -> None:
    connect = server.connector()
    load.Writers.prepare(connect)
    load.DdlLoop.prepare(connect)
    known = truth.SourceTruth(server)
    with load.Writers(connect) as writers, load.DdlLoop(connect) as ddl:
        writers.wait_for(300)
        ddl.wait_for(10)
        assert known.exported() == []
        with ddl.paused(), known.held() as snapshot:
            assert known.wait_exported() == snapshot
            writers.wait_for(50)
            server.run("pg_dump", "-Fc", "-Z1", f"--snapshot={snapshot}", "-f", tmp_path / "dump")
            content = known.content_at(snapshot)
            assert truth.content_at(server, "mazevault", snapshot) == content["tables"]
        writers.wait_for(300)
        ddl.wait_for(10)
    server.create_database_like("mazevault", "back")
    server.run("pg_restore", "--exit-on-error", "-d", "back", tmp_path / "dump")
    with contextlib.closing(server.connect("back")) as back, contextlib.closing(server.connect()) as source:
        assert compare.difference(content, compare.snapshot_of(back, known.PARTS)) == []
        assert compare.difference(content, compare.snapshot_of(source, known.PARTS)) != []
        for conn in (back, source):
            assert load.Writers.faults(conn) == []
            assert load.DdlLoop.faults(conn) == []
    done = writers.measure
    assert set(done.operations) == {"transfer", "order", "change", "delete", "log", "blob"}
    assert set(ddl.measure.operations) <= {"truncate", "rewrite", "widen", "replace", "make"}
    assert done.failures == []
    assert ddl.measure.failures == []
    assert {"insert", "update", "delete", "copy", "commit"} <= set(done.longest)


def test_ddl_that_waits_for_a_snapshot_s_holder_is_measured_and_can_be_paused(server: servers.PgServer) -> None:
    load.DdlLoop.prepare(server.connector())
    known = truth.SourceTruth(server)
    with load.DdlLoop(server.connector()) as ddl:
        ddl.wait_for(5)
        with known.held() as snapshot:
            time.sleep(0.4)
            assert ddl.measure.longest_wait > 0.3, "the statement that still waits counts"
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                known.content_at(snapshot, lock_timeout="100ms")
            with ddl.paused(timeout=0.1):
                assert len(known.content_at(snapshot)["tables"]) == 4
        ddl.wait_for(5)
    assert ["cancel" in failure.message for failure in ddl.measure.failures] == [True]
    with contextlib.closing(server.connect()) as conn:
        assert load.DdlLoop.faults(conn) == []


def test_a_snapshot_taken_before_the_locks_is_found_out(server: servers.PgServer) -> None:
    """The fault that DdlLoop exists to show: TRUNCATE and rewrites between a snapshot and its reading."""
    connect = server.connector()
    load.DdlLoop.prepare(connect)
    with contextlib.closing(server.connect(autocommit=True)) as conn, conn.cursor() as cur:
        cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cur.execute("SELECT pg_export_snapshot()")
        with load.DdlLoop(connect, steps=["truncate", "rewrite", "widen"]) as ddl:
            ddl.wait_for(20)
        found = load.DdlLoop.faults(conn)
        cur.execute("ROLLBACK")
        assert [line for line in found if "ddl.truncated has 0 rows" in line]
        assert [line for line in found if "ddl.rewritten has 0 rows" in line]
        assert load.DdlLoop.faults(conn) == []


def test_many_rounds_of_widening_do_not_reach_the_limit_of_columns(server: servers.PgServer) -> None:
    load.DdlLoop.prepare(server.connector())
    with load.DdlLoop(server.connector(), steps=["widen"], widest=20) as ddl:
        ddl.wait_for(50)
    assert ddl.measure.failures == []
    columns = server.query("SELECT max(attnum) FROM pg_attribute WHERE attrelid = 'ddl.widened'::regclass")[0][0]
    assert columns <= 22


def test_acknowledged_writes_over_an_outage(server: servers.PgServer) -> None:
    acked.AckedWriter.prepare(server.connector())
    with acked.AckedWriter(server.connector()) as writer:
        writer.wait_for(50)
        server.kill9()
        time.sleep(0.2)
        server.restart()
        writer.wait_for(50)
    (outage,) = writer.outages()
    assert outage.seconds > 0.2
    assert writer.longest_gap() >= outage.seconds - 0.1
    assert outage.refused > 3
    assert outage.first_success is not None
    assert writer.acked_between(outage.first_refused, outage.first_success)[:-1] == []
    with contextlib.closing(server.connect()) as conn:
        assert writer.missing(conn) == []
        lost = writer.acked()[20:22]
        with conn.cursor() as cur:
            cur.execute("DELETE FROM acknowledged WHERE n = ANY (%s)", (lost,))
        assert writer.missing(conn) == lost


def test_a_writer_that_waits_for_a_lock_can_be_stopped(server: servers.PgServer) -> None:
    load.Writers.prepare(server.connector())
    with contextlib.closing(server.connect()) as conn, conn.cursor() as cur:
        writers = load.Writers(server.connector(), threads=2)
        writers.start()
        writers.wait_for(20)
        cur.execute("LOCK TABLE load.accounts, load.orders, load.customers, load.audit, load.blobs")
        time.sleep(0.4)
        assert writers.measure.longest_wait > 0.3
        measure = writers.stop(timeout=0.1)
    assert [failure.message for failure in measure.failures if "cancel" in failure.message]


# damage and kill


@pytest.mark.parametrize("region", ["head", "middle", "tail", "any"])
@pytest.mark.parametrize("size", [1, 2, 3, 11, 1000])
def test_one_flip_is_one_bit_and_leaves_no_trace(tmp_path: Path, region: damage.Region, size: int) -> None:
    rng = random.Random(size)
    path = tmp_path / "file"
    content = rng.randbytes(size)
    path.write_bytes(content)
    path.chmod(0o400)
    os.utime(path, (1, 2))
    done = damage.flip(path, rng, region)
    after = path.read_bytes()
    assert len(after) == size
    changed = [(n, a ^ b) for n, (a, b) in enumerate(zip(content, after, strict=True)) if a != b]
    assert [(n, mask.bit_count()) for n, mask in changed] == [(done.offset, 1)]
    assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (2, 0o400)
    if size == 1000:
        first, last = {"head": (0, 99), "middle": (100, 899), "tail": (900, 999), "any": (0, 999)}[region]
        assert first <= done.offset <= last


@pytest.mark.parametrize("region", ["head", "middle", "tail", "any"])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_truncation_always_takes_something(tmp_path: Path, region: damage.Region, size: int) -> None:
    path = tmp_path / "file"
    content = random.Random(1).randbytes(size)
    path.write_bytes(content)
    done = damage.truncate(path, random.Random(size), region)
    assert path.read_bytes() == content[: done.offset]
    assert done.offset < size
    assert f"{size - done.offset} bytes gone" in str(done)


def test_damage_to_a_directory_hits_one_file_of_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    for name in ("a", "below/b", "below/c", "empty"):
        (source / name).write_bytes(b"" if name == "empty" else name.encode() * 50)
    (source / "link").symlink_to("a")
    hit = set()
    for seed in range(20):
        copy = damage.copy_tree(source, tmp_path / "copy")
        done = damage.flip(copy, random.Random(seed))
        hit.add(done.path.relative_to(copy).as_posix())
        assert (copy / "link").is_symlink()
        same = subprocess.run(["diff", "-rq", source, copy], capture_output=True, text=True, check=False)
        # the link shows the damage of its target as well
        assert len(same.stdout.splitlines()) == (2 if done.path.name == "a" else 1)
    assert hit == {"a", "below/b", "below/c"}
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no file with content"):
        damage.truncate(tmp_path / "none", random.Random(1))


def test_processes_are_found_by_name_below_one_of_ours(tmp_path: Path) -> None:
    script = tmp_path / "odd) name 1 2"
    script.write_text("#!/bin/sh\nsleep 1000 &\nsleep 1001\n", encoding="utf-8")
    script.chmod(0o755)
    with subprocess.Popen(["sh", "-c", '"$0" & wait', script]) as process:
        # A child bears its parent's name until it is another program.
        while len(kill.named(process.pid, "sleep")) < 2:
            time.sleep(0.01)
        shells = kill.wait_named(process.pid, script.name)
        assert len(shells) == 1
        sleepers = kill.named(process.pid, "sleep")
        assert {sleeper.ppid for sleeper in sleepers} == {shells[0].pid}
        assert {sleeper.cmdline for sleeper in sleepers} == {("sleep", "1000"), ("sleep", "1001")}
        assert kill.named(process.pid, "slee") == []
        assert {killed.pid for killed in kill.kill9_named(process.pid, "sleep")} == {s.pid for s in sleepers}
        kill.wait_gone([sleeper.pid for sleeper in sleepers])
        assert kill.kill9_named(process.pid, "sleep") == []
    with subprocess.Popen(["sh", "-c", '"$0" & wait', script]) as process:
        while len(kill.named(process.pid, "sleep")) < 2:
            time.sleep(0.01)
        everyone = kill.kill9_tree(process.pid)
        assert len(everyone) == 4
        assert process.wait() == -signal.SIGKILL
        kill.wait_gone(everyone)
    with pytest.raises(TimeoutError, match="no process called"):
        kill.wait_named(os.getpid(), "no such program", timeout=0.05)
