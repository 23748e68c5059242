# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' own comparison of two databases. It shares no line with the collection, so that both can't err alike."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import re
import secrets
import subprocess
import typing as t
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, connection, cursor

from support.servers import PgServer

Part = t.Literal[
    "tables", "sequences", "large_objects", "matviews", "extensions", "objects", "comments", "database", "roles"
]
State = dict[str, t.Any]

PARTS: tuple[Part, ...] = t.get_args(Part)

# What may differ when a database moves to a newer major version: for `ignore` of difference().
ACROSS_VERSIONS = (
    r"^extensions / .* / version: ",
    r"^comments / extension ",
    r"^roles / memberships / .* / (inherit|set)_option: ",
    r"^objects / .*: only in the (first|second): .*\bMAINTAIN\b",
    r"^schema line \d+: [-+](GRANT|REVOKE) .* ON TABLE ",
    r"^schema line \d+: [-+]CREATE SUBSCRIPTION ",
    r"^schema line \d+: [-+]$",
)

# For a session on a database whose own settings are hostile.
CALM = " ".join(
    f"-c {setting}"
    for setting in (
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "idle_session_timeout=0",
        "default_transaction_read_only=off",
    )
)

_SETTINGS = {
    "search_path": "",
    "row_security": "off",
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}

_FIRST_NORMAL_OID = 16384

_THIS_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"

# catalogue, column of the owner, column of the ACL, kind of the ACL's default, which rows
_CATALOGUES = (
    (
        "pg_class",
        "relowner",
        "relacl",
        "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END",
        "relkind = ANY ('{r,p,v,m,f,S}')",
    ),
    ("pg_proc", "proowner", "proacl", "'f'", "true"),
    ("pg_type", "typowner", "typacl", "'T'", "typtype <> 'b' OR typelem = 0"),
    ("pg_namespace", "nspowner", "nspacl", "'n'", "nspname !~ '^pg_(toast_)?temp_'"),
    ("pg_language", "lanowner", "lanacl", "'l'", "true"),
    ("pg_foreign_data_wrapper", "fdwowner", "fdwacl", "'F'", "true"),
    ("pg_foreign_server", "srvowner", "srvacl", "'S'", "true"),
    ("pg_operator", "oprowner", "NULL", "NULL", "true"),
    ("pg_opclass", "opcowner", "NULL", "NULL", "true"),
    ("pg_opfamily", "opfowner", "NULL", "NULL", "true"),
    ("pg_collation", "collowner", "NULL", "NULL", "true"),
    ("pg_conversion", "conowner", "NULL", "NULL", "true"),
    ("pg_ts_dict", "dictowner", "NULL", "NULL", "true"),
    ("pg_ts_config", "cfgowner", "NULL", "NULL", "true"),
    ("pg_statistic_ext", "stxowner", "NULL", "NULL", "true"),
    ("pg_publication", "pubowner", "NULL", "NULL", "true"),
    ("pg_subscription", "subowner", "NULL", "NULL", f"subdbid = {_THIS_DATABASE}"),
    ("pg_event_trigger", "evtowner", "NULL", "NULL", "true"),
)


class _Sink:
    """Hashes what COPY writes, and counts its rows: a newline inside a value is escaped."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.rows += data.count(b"\n")
        self._hash.update(data)
        return len(data)

    def result(self) -> State:
        return {"rows": self.rows, "sha256": self._hash.hexdigest()}


def _acl_entries(source: str) -> str:
    """Return SQL for the entries of an ACL, as text."""
    return (
        "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END"
        " || ' ' || privilege_type || CASE WHEN is_grantable THEN ' with grant option' ELSE '' END"
        f" || ' by ' || quote_ident(pg_get_userbyid(grantor)) FROM aclexplode({source})"
    )


def _acl_difference(acl: str, kind: str, owner: str) -> str:
    """Return SQL for an ACL as its difference from the default, which depends on the version."""
    default = f'acldefault({kind}::"char", {owner})'
    given = f"{_acl_entries(acl)} EXCEPT {_acl_entries(default)}"
    taken = f"{_acl_entries(default)} EXCEPT {_acl_entries(acl)}"
    return (
        f"CASE WHEN {acl} IS NULL THEN '{{}}'::text[] ELSE ARRAY(SELECT '+ ' || e FROM ({given}) AS given (e)"
        f" UNION ALL SELECT '- ' || e FROM ({taken}) AS taken (e) ORDER BY 1) END"
    )


def _rows(
    cur: cursor, statement: str | sql.Composable, values: Mapping[str, t.Any] | None = None
) -> list[tuple[t.Any, ...]]:
    cur.execute(statement, values)
    return cur.fetchall()


def _tables(cur: cursor) -> State:
    tables = _rows(
        cur,
        """
        SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname,
               ARRAY(SELECT ARRAY[a.attname, format_type(a.atttypid, a.atttypmod)] FROM pg_attribute AS a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname COLLATE "C")
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND n.nspname !~ '^pg_toast'
           AND NOT EXISTS (SELECT FROM pg_depend AS d LEFT JOIN pg_extension AS e ON e.oid = d.refobjid
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                              AND NOT c.oid = ANY (coalesce(e.extconfig, '{}')))
         ORDER BY 1
        """,
    )
    found: State = {}
    for identity, schema, name, columns in tables:
        values = [sql.SQL("t.{}").format(sql.Identifier(column)) for column, _type in columns]
        statement = sql.SQL('COPY (SELECT {} FROM ONLY {} AS t ORDER BY ROW({})::text COLLATE "C") TO STDOUT').format(
            sql.SQL(", ").join(values), sql.Identifier(schema, name), sql.SQL(", ").join(values)
        )
        sink = _Sink()
        cur.copy_expert(statement, sink)
        found[identity] = {**sink.result(), "columns": [f"{column} {kind}" for column, kind in columns]}
    return found


def _sequences(cur: cursor) -> State:
    sequences = _rows(
        cur,
        """
        SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname, format_type(s.seqtypid, NULL),
               s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
          FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relpersistence <> 't' ORDER BY 1
        """,
    )
    names = ("type", "start", "increment", "min", "max", "cache", "cycle")
    found: State = {}
    for identity, schema, name, *parameters in sequences:
        value = _rows(cur, sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name)))[0]
        found[identity] = {"last_value": value[0], "is_called": value[1], **dict(zip(names, parameters, strict=True))}
    return found


def _large_objects(cur: cursor) -> State:
    objects = _rows(
        cur,
        f"""
        SELECT oid, pg_get_userbyid(lomowner), {_acl_difference("lomacl", "'L'", "lomowner")},
               obj_description(oid, 'pg_largeobject')
          FROM pg_largeobject_metadata ORDER BY oid
        """,
    )
    found: State = {}
    for oid, owner, acl, comment in objects:
        digest = hashlib.sha256()
        size = 0
        while chunk := bytes(_rows(cur, "SELECT lo_get(%(oid)s, %(at)s, 1048576)", {"oid": oid, "at": size})[0][0]):
            digest.update(chunk)
            size += len(chunk)
        found[str(oid)] = {"size": size, "sha256": digest.hexdigest(), "owner": owner, "acl": acl, "comment": comment}
    return found


def _matviews(cur: cursor) -> State:
    rows = _rows(cur, "SELECT format('%I.%I', schemaname, matviewname), ispopulated FROM pg_matviews ORDER BY 1")
    return {name: {"populated": populated} for name, populated in rows}


def _extensions(cur: cursor) -> State:
    rows = _rows(cur, "SELECT extname, extversion, extnamespace::regnamespace::text FROM pg_extension ORDER BY 1")
    return {name: {"version": version, "schema": schema} for name, version, schema in rows}


def _objects(cur: cursor) -> State:
    """Return owner and rights of everything; what an extension made only where its rights are not the default."""
    found: State = {}
    for catalogue, owner, acl, kind, which in _CATALOGUES:
        difference_ = _acl_difference(acl, kind, owner) if acl != "NULL" else "'{}'::text[]"
        rows = _rows(
            cur,
            f"""
            SELECT i.type || ' ' || i.identity, pg_get_userbyid({owner}), {difference_},
                   EXISTS (SELECT FROM pg_depend AS d
                            WHERE d.classid = '{catalogue}'::regclass AND d.objid = o.oid AND d.deptype = 'e')
              FROM {catalogue} AS o, pg_identify_object('{catalogue}'::regclass, o.oid, 0) AS i
             WHERE ({which}) AND (o.oid >= {_FIRST_NORMAL_OID} OR i.identity = 'public') ORDER BY 1
            """,
        )
        found |= {name: {"owner": who, "acl": rights} for name, who, rights, member in rows if rights or not member}
    rows = _rows(
        cur,
        f"""
        SELECT (pg_identify_object('pg_class'::regclass, a.attrelid, a.attnum)).identity,
               {_acl_difference("a.attacl", "'c'", "c.relowner")}
          FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
         WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.oid >= {_FIRST_NORMAL_OID} ORDER BY 1
        """,
    )
    found |= {f"column {name}": {"acl": rights} for name, rights in rows}
    rows = _rows(
        cur,
        f"""
        SELECT format('default rights of %I in %s for %s', pg_get_userbyid(defaclrole),
                      coalesce(nullif(defaclnamespace, 0)::regnamespace::text, 'every schema'), defaclobjtype),
               ARRAY({_acl_entries("defaclacl")} ORDER BY 1)
          FROM pg_default_acl ORDER BY 1
        """,
    )
    return found | {name: {"acl": rights} for name, rights in rows}


def _comments(cur: cursor) -> State:
    rows = _rows(
        cur,
        f"""
        SELECT i.type || ' ' || i.identity, d.description
          FROM pg_description AS d, pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
         WHERE d.classoid <> 'pg_largeobject'::regclass
           AND (d.objoid >= {_FIRST_NORMAL_OID} OR (i.type = 'schema' AND i.identity = 'public')) ORDER BY 1
        """,
    )
    return dict(rows)


def _settings(cur: cursor, database: str) -> State:
    rows = _rows(
        cur,
        f"""
        SELECT CASE setrole WHEN 0 THEN '(every role)' ELSE pg_get_userbyid(setrole) END,
               ARRAY(SELECT setting FROM unnest(setconfig) AS setting ORDER BY 1)
          FROM pg_db_role_setting WHERE setdatabase = {database} ORDER BY 1
        """,
    )
    return dict(rows)


def _database(cur: cursor) -> State:
    row = _rows(
        cur,
        f"""
        SELECT to_jsonb(d), pg_get_userbyid(datdba), pg_encoding_to_char(encoding),
               {_acl_difference("datacl", "'d'", "datdba")},
               shobj_description(oid, 'pg_database'), (SELECT spcname FROM pg_tablespace WHERE oid = dattablespace)
          FROM pg_database AS d WHERE datname = current_database()
        """,
    )[0]
    raw, owner, encoding, acl, comment, tablespace = row
    return {
        "owner": owner,
        "acl": acl,
        "comment": comment,
        "encoding": encoding,
        "collate": raw["datcollate"],
        "ctype": raw["datctype"],
        "provider": raw["datlocprovider"],
        "locale": raw.get("datlocale") or raw.get("daticulocale"),
        "icu_rules": raw.get("daticurules"),
        "connection_limit": raw["datconnlimit"],
        "allow_connections": raw["datallowconn"],
        "is_template": raw["datistemplate"],
        "tablespace": tablespace,
        "settings": _settings(cur, _THIS_DATABASE),
    }


def _roles(cur: cursor) -> State:
    """Return the cluster's roles, and what belongs to the cluster as they do."""
    roles = _rows(
        cur,
        """
        SELECT rolname, to_jsonb(r) - '{oid,rolname,rolpassword}'::text[], encode(sha256(rolpassword::bytea), 'hex'),
               shobj_description(oid, 'pg_authid')
          FROM pg_authid AS r WHERE rolname !~ '^pg_' ORDER BY 1
        """,
    )
    members = _rows(
        cur,
        """
        SELECT format('%I in %I by %I', pg_get_userbyid(member), pg_get_userbyid(roleid), pg_get_userbyid(grantor)),
               to_jsonb(m) - '{oid,roleid,member,grantor}'::text[]
          FROM pg_auth_members AS m WHERE member >= 16384 ORDER BY 1
        """,
    )
    parameters = _rows(cur, f"SELECT parname, ARRAY({_acl_entries('paracl')} ORDER BY 1) FROM pg_parameter_acl")
    attributes = {name: {**raw, "password": password, "comment": comment} for name, raw, password, comment in roles}
    return {
        "attributes": attributes,
        "memberships": dict(members),
        "settings": _settings(cur, "0"),
        "parameters": dict(parameters),
    }


_READERS: dict[Part, t.Callable[[cursor], State]] = {
    "tables": _tables,
    "sequences": _sequences,
    "large_objects": _large_objects,
    "matviews": _matviews,
    "extensions": _extensions,
    "objects": _objects,
    "comments": _comments,
    "database": _database,
    "roles": _roles,
}


@contextlib.contextmanager
def _steady(conn: connection) -> Iterator[cursor]:
    """Give a cursor in one snapshot with known settings: the caller's transaction when one is open, or our own."""
    own = conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    autocommit = conn.autocommit
    if own:
        conn.autocommit = True
    with conn.cursor() as cur:
        try:
            cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if own else "SAVEPOINT steady")
            for name, value in _SETTINGS.items():
                cur.execute("SELECT set_config(%s, %s, true)", (name, value))
            if conn.info.server_version >= 170000:
                cur.execute("SET LOCAL transaction_timeout = 0")
            yield cur
            cur.execute("ROLLBACK" if own else "ROLLBACK TO SAVEPOINT steady; RELEASE SAVEPOINT steady")
        except BaseException:
            if own and not conn.closed:
                with contextlib.suppress(Exception):
                    cur.execute("ROLLBACK")
            raise
        finally:
            if own and not conn.closed:
                conn.autocommit = autocommit


def snapshot_of(conn: connection, parts: Collection[Part] = PARTS) -> State:
    """Read everything that a restore must bring back, as a superuser.

    In an open transaction its snapshot is used, else one of our own. Not read, because it can't be compared as it
    stands: rows of foreign tables and of materialised views (a restore refreshes them). The schema's text is the work
    of second_generation_schema().
    """
    with _steady(conn) as cur:
        return {part: _READERS[part](cur) for part in PARTS if part in parts}


def state_of(server: PgServer, dbname: str, parts: Collection[Part] = PARTS, *, on: PgServer | None = None) -> State:
    """Return snapshot_of() a database, with the schema's text added as `schema`."""
    with contextlib.closing(server.connect(dbname, options=CALM)) as conn:
        state = snapshot_of(conn, parts)
    return {**state, "schema": second_generation_schema(server, dbname, on=on)}


@functools.cache
def _knows_restrict_key(pg_dump: Path) -> bool:
    return "--restrict-key" in subprocess.run([pg_dump, "--help"], capture_output=True, text=True, check=True).stdout


def schema_text(server: PgServer, dbname: str, *, by: PgServer | None = None) -> str:
    """Return `pg_dump --schema-only` without what differs from run to run; `by` lends the program."""
    program = (by or server).install.program("pg_dump")
    argv = [str(program), "--schema-only", *(["--restrict-key=x"] if _knows_restrict_key(program) else [])]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", env=server.environment(dbname), check=False)
    if done.returncode:
        raise AssertionError(f"{argv} of {dbname} ended with {done.returncode}: {done.stderr}")
    return re.sub(r"\A(.{0,200}?)-- Dumped from [^\n]*\n-- Dumped by [^\n]*\n", r"\1", done.stdout, flags=re.DOTALL)


def second_generation_schema(server: PgServer, dbname: str, *, on: PgServer | None = None) -> str:
    """Return the schema's text as it is after one restore, which a further restore leaves as it is.

    The first generation of a perfect restore may differ from its source: IN lists on varchar are printed with other
    casts, inherited columns move. `on` is the server for the scratch database, and gives the programs: with it a source
    is compared to its restore on a newer server. Roles must exist there.
    """
    where = on or server
    text = schema_text(server, dbname, by=where)
    scratch = f"second_generation_{secrets.token_hex(4)}"
    if where is server:
        server.create_database_like(dbname, scratch)
    else:
        where.query(f"CREATE DATABASE {scratch} TEMPLATE template0", dbname="postgres")
    try:
        where.run("psql", "-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", dbname=scratch, stdin=text)
        return schema_text(where, scratch)
    finally:
        where.drop_database(scratch)


def difference(a: t.Any, b: t.Any, *, ignore: Collection[str] = (), limit: int = 200) -> list[str]:
    """Say in readable lines what differs; empty when nothing does.

    A line begins with a path such as `tables / public.t / rows: `; lines in which one of the regular expressions of
    `ignore` is found are left out.
    """
    patterns = [re.compile(pattern) for pattern in ignore]
    lines = [line for line in _differences(a, b, ()) if not any(pattern.search(line) for pattern in patterns)]
    if len(lines) > limit:
        lines = [*lines[:limit], f"... and {len(lines) - limit} more"]
    return lines


def _differences(a: t.Any, b: t.Any, path: tuple[str, ...]) -> Iterator[str]:
    where = " / ".join(path) or "(all)"
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            below = (*path, str(key))
            if key not in a:
                yield f"{' / '.join(below)}: only in the second: {_short(b[key])}"
            elif key not in b:
                yield f"{' / '.join(below)}: only in the first: {_short(a[key])}"
            else:
                yield from _differences(a[key], b[key], below)
    elif isinstance(a, list) and isinstance(b, list) and a != b:
        gone = [f"{where}: only in the first: {_short(item)}" for item in a if item not in b]
        new = [f"{where}: only in the second: {_short(item)}" for item in b if item not in a]
        yield from [*gone, *new] or [f"{where}: the order or the number of equal items differs"]
    elif isinstance(a, str) and isinstance(b, str) and a != b and ("\n" in a or "\n" in b):
        yield from _changed_lines(a, b, where)
    elif a != b or type(a) is not type(b):
        yield f"{where}: {_short(a)} became {_short(b)}"


def _changed_lines(a: str, b: str, where: str) -> Iterator[str]:
    first, second = a.split("\n"), b.split("\n")
    for tag, a_from, a_to, b_from, b_to in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from (f"{where} line {n + 1}: -{_short(first[n])}" for n in range(a_from, a_to))
            yield from (f"{where} line {n + 1}: +{_short(second[n])}" for n in range(b_from, b_to))


def _short(value: t.Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
