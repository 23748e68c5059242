# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and values survive their quoting, whatever a real server's settings are, in both kinds of session."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql, read_properties, setting_sql
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._instructions import conninfo
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._psql import PsqlSession
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    MissingDatabase,
    Server,
    Session,
    SqlError,
    ident,
    literal,
    qualified,
)
from support.servers import PgServer, installations

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = TEXT.filter(lambda name: 0 < len(name.encode()) <= 63)
EXAMPLES = ("", "'", "''", "\\", "\\'", "'\\", 'a"b', "$$", "%s", "%", "E'\\n'", "\n", "--", "/*", ";", "é'", "\\\\'\"")


@pytest.fixture(scope="module", params=installations(), ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        yield started


Connector = Callable[[Server, str], Session]


@pytest.fixture(scope="module", params=["psycopg2", "psql"])
def connector(request: pytest.FixtureRequest, server: PgServer) -> Connector | None:
    """How sessions are opened: by the host's package, or by a psql as beside a container's server."""
    if request.param == "psycopg2":
        return None
    psql = str(server.install.program("psql"))
    return lambda here, application: PsqlSession(here, application, HostProcesses(), psql)


def address(server: PgServer, connector: Connector | None = None) -> Server:
    return Server(str(server.socket_directory), server.port, server.superuser, server.database, connector=connector)


@pytest.fixture(scope="module")
def session(server: PgServer, connector: Connector | None) -> Iterator[Session]:
    with address(server, connector).session() as opened:
        yield opened


def says(session: Session, text: str) -> None:
    for standard in ("on", "off"):
        session.execute(
            f"SET standard_conforming_strings = {standard}",
            "SET escape_string_warning = off",
            "SET backslash_quote = off",
        )
        assert session.query(f"SELECT {literal(text)}") == [(text,)]
        assert session.query(f"SELECT 1 WHERE {literal(text)} IS NOT NULL AND{literal(text)}={literal(text)}") == [(1,)]


@pytest.mark.parametrize("text", EXAMPLES)
def test_awkward_values(session: Session, text: str) -> None:
    says(session, text)


@settings(max_examples=100)
@given(text=TEXT)
@example("\\'; SELECT pg_sleep(10); --")
def test_a_value_comes_back(session: Session, text: str) -> None:
    says(session, text)


@settings(max_examples=100)
@given(name=NAMES)
@example('"; DROP TABLE x; --')
def test_a_name_comes_back(session: Session, name: str) -> None:
    assert session.query(f"SELECT c.* FROM (SELECT 1 AS {ident(name)}) AS c WHERE c.{ident(name)} = 1") == [(1,)]
    session.execute("BEGIN")
    try:
        session.execute(f"CREATE TABLE pg_temp.{ident(name)} ({ident(name)} integer)")
        found = session.query(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = pg_my_temp_schema() AND a.attnum = 1"
        )
        assert found == [(name, name)]
        assert session.query(f"SELECT count(*) FROM {qualified('pg_temp', name)}") == [(0,)]
    finally:
        session.execute("ROLLBACK")


def test_values_have_the_types_that_one_expects(session: Session) -> None:
    sql = """SELECT 1 AS same, 2::bigint AS same, 1.5::float8, true, NULL, ARRAY['a', NULL, '{"b'], 'x'::text,
                    '{"k": [1, {"z": null}]}'::jsonb, ''::text, ARRAY[]::text[]"""
    assert session.query(sql) == [(1, 2, 1.5, True, None, ["a", None, '{"b'], "x", {"k": [1, {"z": None}]}, "", [])]
    assert session.query("SELECT 1 WHERE false") == []
    assert session.query("WITH x AS (VALUES (3), (1), (2)) SELECT column1 FROM x ORDER BY 1") == [(1,), (2,), (3,)]
    assert len(session.query("SELECT repeat('é', 10000) FROM generate_series(1, 300)")) == 300
    assert session.value("SELECT NULL::text") is None
    assert session.pid == session.value("SELECT pg_backend_pid()")
    assert session.version // 10000 == int(session.value("SELECT current_setting('server_version_num')::int / 10000"))


def test_several_statements_are_one(session: Session) -> None:
    session.execute("CREATE TEMP TABLE counted (n int)", "INSERT INTO counted VALUES (1)")
    with pytest.raises(SqlError):
        session.execute("INSERT INTO counted VALUES (2)", "SELECT 1 / 0", "INSERT INTO counted VALUES (3)")
    session.execute("SELECT * FROM generate_series(1, 10)")
    assert session.query("SELECT n FROM counted") == [(1,)]
    session.execute("BEGIN", "SAVEPOINT a", "INSERT INTO counted VALUES (4)", "ROLLBACK TO SAVEPOINT a", "COMMIT")
    assert session.query("SELECT n FROM counted") == [(1,)]
    session.execute("DROP TABLE counted")


def test_a_session_that_was_ended_says_so(server: PgServer, connector: Connector | None) -> None:
    here = address(server, connector)
    with here.session() as victim, here.session() as other:
        other.execute(f"SELECT pg_terminate_backend({victim.pid})")
        for _attempt in range(2):
            with pytest.raises(SqlError, match="server: "):
                victim.query("SELECT 1")
        assert other.value("SELECT 1") == 1


def test_a_question_can_be_cancelled_from_another_thread(server: PgServer, connector: Connector | None) -> None:
    with address(server, connector).session() as session:
        timer = threading.Timer(0.5, session.cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises(SqlError):
            session.execute("SELECT pg_sleep(60)")
        timer.join()
        assert time.monotonic() - started < 10


def test_a_silent_server_is_given_up_by_psql(server: PgServer) -> None:
    psql = str(server.install.program("psql"))
    here = address(server, lambda where, name: PsqlSession(where, name, HostProcesses(), psql))
    with here.session() as session:
        assert session.query("SELECT 1", timeout=30) == [(1,)]
        with pytest.raises(SqlError, match="no answer for 1 s"):
            session.query("SELECT pg_sleep(60)::text", timeout=1)
        with pytest.raises(SqlError):
            session.query("SELECT 1")


def test_null_and_nul() -> None:
    assert literal(None) == "NULL"
    for quote in (ident, literal):
        with pytest.raises(ValueError, match="NUL"):
            quote("a\0b")


SETTINGS = {
    "search_path": ["''", "public", '"$user", public', "'a, b', c", "'\"', ''''", "E'\\\\', \"é \"", "'', a", "a,b"],
    "temp_tablespaces": ["''", "pg_default"],
    "session_preload_libraries": ["''", "'a lib', b", "'/x/$libdir'"],
    "work_mem": ["'5MB'"],
    "application_name": ["''", "'it''s \"odd\" = 100 %'", "E'\\\\ a, b'"],
    "odd.setting": ["''", "'a, b'", "'x=y'"],
    '"Odd".setting': ["'1'"],
    "wal_consistency_checking": ["'heap, btree'"],
}


def test_settings_of_a_database_come_back(server: PgServer, session: Session) -> None:
    """As ALTER DATABASE stores them, so they are stored again by our own statement."""

    def stored(name: str) -> list[str]:
        rows = session.query(
            "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
            f" WHERE s.setrole = 0 AND d.datname = {literal(name)}"
        )
        return [row[0] for row in rows]

    session.execute("CREATE DATABASE one")
    session.execute("CREATE DATABASE two")
    try:
        for name, values in SETTINGS.items():
            for value in values:
                for database in ("one", "two"):
                    session.execute(f"ALTER DATABASE {database} RESET ALL")
                session.execute(f"ALTER DATABASE one SET {name} = {value}")
                before = stored("one")
                assert len(before) == 1
                session.execute(f"ALTER DATABASE two SET {setting_sql(before[0])}")
                assert stored("two") == before, (name, value)
    finally:
        server.drop_database("one")
        server.drop_database("two")


@pytest.mark.parametrize("name", ["plain", "a = 'b' \"c\" \\ $d žluť", "-x", "dbname=postgres", "a\\", "%41 \n"])
def test_an_odd_database_is_reached_by_every_way_of_naming_it(
    server: PgServer, connector: Connector | None, name: str
) -> None:
    here = address(server, connector)
    with here.session() as session:
        session.execute(f"CREATE DATABASE {ident(name)}")
        session.execute(f"COMMENT ON DATABASE {ident(name)} IS {literal(name)}")
    try:
        with here.on(name).session() as session:
            assert session.value("SELECT current_database()") == name
            properties = read_properties(session, name)
            assert properties is not None
            assert properties["comment"] == name
            for statement in apply_sql(name, properties):
                session.execute(statement)
        done = server.run("psql", "-XAtc", "SELECT current_database()", f"--dbname={conninfo(name)}", dbname="postgres")
        assert done.stdout == f"{name}\n"
    finally:
        server.drop_database(name)


# errors that an operator can understand


def test_errors_of_the_server_keep_their_code(session: Session) -> None:
    with pytest.raises(SqlError, match=r'server: .*relation "no_such_table" does not exist') as caught:
        session.query("SELECT * FROM no_such_table")
    assert caught.value.code == "42P01"
    assert "\n" not in caught.value.msg


def test_who_does_not_let_us_in_is_named(server: PgServer, connector: Connector | None) -> None:
    here = address(server, connector)
    with pytest.raises(MissingDatabase, match="database: nowhere: does not exist on "):
        here.on("nowhere").connect()
    with pytest.raises(BackupError, match="user: nobody: no such role"):
        replace(here, user="nobody").connect()
    with pytest.raises(BackupError, match=r"host: .*: server not reachable"):
        replace(here, port=1).connect()


def test_a_password_comes_from_a_private_file_only(tmp_path: Path) -> None:
    passfile = tmp_path / "a pass file"
    with PgServer(installations()[0], auth="scram") as server:
        here = Server("127.0.0.1", server.port, server.superuser, server.database, passfile=str(passfile))
        with pytest.raises(BackupError, match=r"passfile: .*: No such file"):
            here.connect()
        passfile.write_text(f"127.0.0.1:*:*:*:{server.password}\n", encoding="utf-8")
        passfile.chmod(0o640)
        with pytest.raises(BackupError, match=r"passfile: .*: others may read it \(mode 0640\)") as caught:
            here.connect()
        assert caught.value.hint == f"chmod 600 {passfile}"
        passfile.chmod(0o600)
        with here.session() as session:
            assert session.value("SELECT 1") == 1
        assert str(server.password) not in str(here.environment("x"))
        passfile.write_text("127.0.0.1:*:*:*:wrong\n", encoding="utf-8")
        with pytest.raises(BackupError, match=r"user: mazevault: .* refused the password"):
            here.connect()
        assert "PGPASSWORD" not in os.environ
