# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprint of a database changes with every change of its content, and with nothing else."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import subprocess
import typing as t
from collections.abc import Iterator

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._compare import compare_all
from ansible_collections.mazevault.backup.plugins.module_utils._contents import overall_digest
from ansible_collections.mazevault.backup.plugins.module_utils._restore import observe
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server
from support import compare
from support.flow import FULL
from support.servers import PgServer, installations

SALT = "00112233445566778899aabbccddeeff"
METHODS = ("packed", "row", "column")
# What the dump's public fingerprint is made of.
CONTENT = ("tables", "large_objects", "materialized_views", "foreign_tables", "sequences")

SCHEMA = """
CREATE TABLE things (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, f8 double precision, f4 real, n numeric, b bytea, t text,
  c char(4), at timestamptz, d date, span interval, price money, j json, jb jsonb, many text[],
  "Odd ""name" text, t2 text
);
INSERT INTO things (f8, f4, n, b, t, c, at, d, span, price, j, jb, many, "Odd ""name", t2)
SELECT n / 3.0, n / 7.0, n / 11.0, sha256(n::text::bytea), 'text ' || n, 'c' || n % 10,
       '2026-01-01 00:00:00+00'::timestamptz + n * interval '1.000001 s', '2026-01-01'::date + n,
       n * interval '1 h 1.5 s', n * 1.25::money, json_build_object('n', n), jsonb_build_object('n', n),
       ARRAY[n::text, NULL, ''], 'odd ' || n, 'b,c'
  FROM generate_series(1, 300) AS n;
INSERT INTO things (f8, f4, t, t2) VALUES (0, 0, '', 'x'), ('NaN', '-Infinity', NULL, ''), (1e-310, 1e-40, 'a', 'b,c');
CREATE TABLE pairs (v text);
INSERT INTO pairs VALUES ('a'), ('a'), ('c');
CREATE TABLE empty (v text);
CREATE TABLE nothing ();
CREATE TABLE parent (v integer);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (3);
CREATE SCHEMA "žluť";
CREATE TABLE "žluť"."kůň" ("číslo" integer, "kůň" text);
INSERT INTO "žluť"."kůň" VALUES (1, 'příliš');
CREATE SEQUENCE up START 5;
CREATE SEQUENCE down INCREMENT -1;
SELECT nextval('up'), nextval('down');
SELECT lo_from_bytea(4711, decode(repeat('00ff5c', 400000), 'hex'));
SELECT lo_from_bytea(4712, ''), lo_put(4712, 3000000, 'end');
COMMENT ON LARGE OBJECT 4711 IS 'one';
CREATE ROLE reader;
CREATE MATERIALIZED VIEW look AS SELECT count(*) AS n FROM things;
"""

# what is changed: (statement, the check that has to fail)
CHANGES = {
    "one byte": ("UPDATE things SET b = set_byte(b, 5, get_byte(b, 5) # 1) WHERE id = 7", "tables"),
    "one character": ("UPDATE things SET t = 'texu 7' WHERE id = 7", "tables"),
    "a character's case": ('UPDATE "žluť"."kůň" SET "kůň" = \'příliŠ\'', "tables"),
    "a column named as its table": ('UPDATE "žluť"."kůň" SET "číslo" = 2', "tables"),
    "two values swapped between rows": (
        "UPDATE things SET t = CASE id WHEN 7 THEN 'text 8' ELSE 'text 7' END WHERE id IN (7, 8)",
        "tables",
    ),
    "two values swapped between columns": ("UPDATE things SET t = t2, t2 = t WHERE id = 7", "tables"),
    "a comma between columns": ("UPDATE things SET t = 'a,b', t2 = 'c' WHERE t = 'a'", "tables"),
    "a pair of equal rows replaced by another": ("UPDATE pairs SET v = 'b' WHERE v = 'a'", "tables"),
    "a pair of equal rows more": ("INSERT INTO pairs VALUES ('d'), ('d')", "tables"),
    "one of a pair gone, another doubled": (
        "DELETE FROM pairs WHERE ctid = '(0,1)'; INSERT INTO pairs VALUES ('c')",
        "tables",
    ),
    "NULL instead of nothing": ("UPDATE things SET t = NULL WHERE t = ''", "tables"),
    "nothing instead of NULL": ("UPDATE things SET t = '' WHERE t IS NULL", "tables"),
    "the word NULL": ("UPDATE things SET t = 'NULL' WHERE t IS NULL", "tables"),
    "a space": ("UPDATE things SET t = 'text 7 ' WHERE id = 7", "tables"),
    "NULL in an array": ("UPDATE things SET many = ARRAY['7', 'NULL', ''] WHERE id = 7", "tables"),
    "an array's lower bound": ("UPDATE things SET many = ('[0:2]=' || many::text)::text[] WHERE id = 7", "tables"),
    "minus zero": ("UPDATE things SET f8 = '-0' WHERE f8 = 0", "tables"),
    "minus zero in a real": ("UPDATE things SET f4 = '-0' WHERE f4 = 0", "tables"),
    "the last bit of a double": (
        "UPDATE things SET f8 = f8 + 2.2204460492503131e-16 WHERE id = 1",
        "tables",
    ),
    "the scale of a numeric": ("UPDATE things SET n = 1.0000 WHERE id = 11; ", "tables"),
    "a microsecond": ("UPDATE things SET at = at + interval '1 us' WHERE id = 7", "tables"),
    "an equal interval": ("UPDATE things SET span = interval '1 day 1 h 10.5 s' WHERE id = 7; ", "tables"),
    "JSON's white space": ("UPDATE things SET j = '{ \"n\" : 7 }' WHERE id = 7", "tables"),
    "a row in an empty table": ("INSERT INTO empty VALUES ('')", "tables"),
    "a row without columns": ("INSERT INTO nothing DEFAULT VALUES", "tables"),
    "a row moved to the child": ("DELETE FROM parent WHERE v = 2; INSERT INTO child VALUES (2)", "tables"),
    "a table gone": ("DROP TABLE empty", "tables"),
    "a table more": ("CREATE TABLE more ()", "tables"),
    "a byte of a large object": ("SELECT lo_put(4711, 1199999, '\\x00')", "large objects"),
    "the end of a sparse large object": ("SELECT lo_put(4712, 2999999, '\\x01')", "large objects"),
    "a large object more": ("SELECT lo_create(0)", "large objects"),
    "a large object under another number": (
        "SELECT lo_from_bytea(4713, lo_get(4711)), lo_unlink(4711); COMMENT ON LARGE OBJECT 4713 IS 'one'",
        "large objects",
    ),
    "a large object's owner": ("ALTER LARGE OBJECT 4711 OWNER TO reader", "large objects"),
    "a large object's rights": ("GRANT SELECT ON LARGE OBJECT 4711 TO reader", "large objects"),
    "a large object's comment": ("COMMENT ON LARGE OBJECT 4711 IS 'two'", "large objects"),
    "a moved sequence": ("SELECT nextval('up')", "sequences"),
    "a sequence set back": ("SELECT setval('up', 5, false)", "sequences"),
    "a moved sequence that runs down": ("SELECT nextval('down')", "sequences"),
    "an emptied materialized view": ("REFRESH MATERIALIZED VIEW look WITH NO DATA", "materialized views"),
}

HOSTILE = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "xmloption": "document",
    "search_path": "evil, pg_catalog",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "enable_seqscan": "off",
    "row_security": "on",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "client_min_messages": "debug1",
    "client_encoding": "LATIN2",
    "lc_monetary": "C",
}

# Functions that would lie, in a schema that the database's search_path puts first.
EVIL = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT ''\\x00''::bytea';
CREATE FUNCTION evil.encode(bytea, text) RETURNS text LANGUAGE sql AS 'SELECT repeat(''0'', 64)';
CREATE FUNCTION evil.convert_to(text, name) RETURNS bytea LANGUAGE sql AS 'SELECT ''\\x00''::bytea';
CREATE FUNCTION evil.substr(text, integer, integer) RETURNS text LANGUAGE sql AS 'SELECT ''0000000000000000''';
"""

Facts = dict[str, t.Any]


def read(server: PgServer, dbname: str, method: str = "row") -> Facts:
    """Read a database as the collection does."""
    dsn = server.dsn(dbname)
    source = Server(host=dsn["host"], port=dsn["port"], user=dsn["user"], database=dbname)
    tables: list[dict[str, str]] = []
    if method != "row":
        names = server.query("SELECT schemaname, tablename FROM pg_tables", dbname=dbname)
        tables = [{"schema": schema, "name": name, "method": method} for schema, name in names]
    return observe(source, {"salt": SALT, "tables": tables}, application="test")


def fingerprint(facts: Facts) -> str:
    return overall_digest({key: facts[key] for key in CONTENT})


def failures(before: Facts, after: Facts) -> set[str]:
    """Names of the checks that fail; the sequences stood still while `before` was read."""
    expected = copy.deepcopy(before)
    for entry in expected["sequences"]:
        entry["after"] = {"last_value": entry["last_value"], "is_called": entry["is_called"]}
    return {check.name for check in compare_all(expected, after) if check.verdict == "fail"}


@pytest.fixture(scope="module", params=installations(), ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        started.query("CREATE DATABASE model", dbname="postgres")
        started.query(SCHEMA, dbname="model")
        started.query("ALTER DATABASE model SET idle_session_timeout = '0'", dbname="postgres")
        yield started


@pytest.fixture(scope="module", params=METHODS)
def before(request: pytest.FixtureRequest, server: PgServer) -> tuple[str, Facts]:
    """How the model's tables are digested, and what came of it."""
    return request.param, read(server, "model", request.param)


@pytest.fixture
def database(server: PgServer) -> Iterator[str]:
    """A copy of the model."""
    server.query("CREATE DATABASE changed TEMPLATE model", dbname="postgres")
    yield "changed"
    server.drop_database("changed")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_content_changes_the_fingerprint(
    server: PgServer, before: tuple[str, Facts], database: str, change: str
) -> None:
    method, model = before
    unchanged = read(server, database, method)
    assert (fingerprint(unchanged), failures(model, unchanged) - {"database properties"}) == (fingerprint(model), set())
    statement, check = CHANGES[change]
    server.query(statement, dbname=database)
    changed = read(server, database, method)
    assert fingerprint(changed) != fingerprint(model)
    found = failures(model, changed)
    assert check in found, found
    # What was changed is named, and nothing that wasn't; a table that came or went shows in the catalogue too.
    others = found & {"tables", "large objects", "sequences", "materialized views"}
    assert others == {check}, others


def test_every_change_counts_once(server: PgServer, before: tuple[str, Facts]) -> None:
    """The counterpart of the test above: reading twice gives the same, another salt gives another."""
    method, model = before
    assert fingerprint(read(server, "model", method)) == fingerprint(model)
    other = {entry["name"]: entry["digest"] for entry in model["tables"] if entry["rows"]}
    assert len(set(other.values())) == len(other)


def calmly(server: PgServer, statements: str) -> None:
    """Run statements in a session that hostile settings don't reach."""
    with (
        contextlib.closing(server.connect("postgres", options=compare.CALM)) as conn,
        conn as _transaction,
        conn.cursor() as cur,
    ):
        cur.execute(statements)


def test_settings_of_database_role_and_session_change_nothing(
    server: PgServer, before: tuple[str, Facts], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, _model = before
    server.query(EVIL, dbname=database)
    expected = read(server, database, method)
    assert len({entry["digest"] for entry in expected["tables"]}) > 5, "the lying functions were called"
    values = {name: value if name == "search_path" else f"'{value}'" for name, value in HOSTILE.items()}
    for target in (f"DATABASE {database}", "ROLE mazevault", f"ROLE mazevault IN DATABASE {database}"):
        calmly(server, "; ".join(f"ALTER {target} SET {name} = {value}" for name, value in values.items()))
        try:
            assert server.query("SHOW bytea_output", dbname=database) == [("escape",)], "the settings aren't in force"
            assert fingerprint(read(server, database, method)) == fingerprint(expected), target
        finally:
            calmly(server, f"ALTER {target} RESET ALL")
    monkeypatch.setenv("PGOPTIONS", "-c datestyle=German -c bytea_output=escape -c extra_float_digits=-15")
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    assert server.query("SHOW bytea_output", dbname=database) == [("escape",)], "the settings aren't in force"
    assert fingerprint(read(server, database, method)) == fingerprint(expected)


def test_dump_and_restore_change_nothing(server: PgServer, before: tuple[str, Facts]) -> None:
    method, model = before
    # Other places of the rows, other pages of the large objects, other order of the columns.
    server.create_database_like("model", "back")
    try:
        dump = subprocess.run(
            [server.install.program("pg_dump"), "-Fc", "-Z0"],
            env=server.environment("model"),
            capture_output=True,
            check=True,
        )
        subprocess.run(
            [server.install.program("pg_restore"), "--exit-on-error", "--dbname=back"],
            env=server.environment("back"),
            input=dump.stdout,
            capture_output=True,
            check=True,
        )
        back = read(server, "back", method)
    finally:
        server.drop_database("back")
    assert fingerprint(back) == fingerprint(model)
    assert failures(model, back) - {"database properties"} == set()


def test_moving_rows_about_changes_nothing(server: PgServer, before: tuple[str, Facts], database: str) -> None:
    method, model = before
    server.query(
        "UPDATE things SET t = t; ALTER TABLE things ADD COLUMN gone text; ALTER TABLE things DROP COLUMN gone;"
        " CLUSTER things USING things_pkey; SET enable_indexscan = off; ANALYZE",
        dbname=database,
    )
    server.query("VACUUM FULL", dbname=database)
    assert fingerprint(read(server, database, method)) == fingerprint(model)


def test_a_row_too_large_for_one_text_is_digested_by_columns(server: PgServer) -> None:
    """Its text would pass the server's limit of 1 GB; each of its columns alone is well below."""
    size = 270_000_000
    server.query("CREATE DATABASE large", dbname="postgres")
    try:
        server.query(
            f"CREATE TABLE huge (c text, b bytea, a bytea); INSERT INTO huge VALUES"
            f" (NULL, decode(repeat('ff', {size}), 'hex'), decode(repeat('00', {size}), 'hex'))",
            dbname="large",
        )
        first = read(server, "large")
        (entry,) = first["tables"]
        # The columns in the order of their names; NULL is marked.
        parts = [b"\x01" + hashlib.sha256(byte * size).digest() for byte in (b"\x00", b"\xff")]
        row = hashlib.sha256(bytes.fromhex(SALT) + b"".join(parts) + b"\x00").digest()
        lanes = [int.from_bytes(row[start : start + 8], "big", signed=True) for start in (0, 8)]
        assert entry == {
            "schema": "public",
            "name": "huge",
            "rows": 1,
            "digest": f"{lanes[0]}:{lanes[1]}",
            "method": "column",
        }
        if FULL:
            # A restored copy is read by the method that the manifest names, whatever its rows are like.
            server.query("UPDATE huge SET c = ''", dbname="large")
            assert "tables" in failures(first, read(server, "large"))
            server.query("UPDATE huge SET c = NULL, a = b, b = a", dbname="large")
            assert "tables" in failures(first, read(server, "large"))
            server.query("UPDATE huge SET a = b, b = a", dbname="large")
            assert fingerprint(read(server, "large")) == fingerprint(first)
    finally:
        server.drop_database("large")
