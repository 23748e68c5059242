# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a database holds, as counts and salted digests that survive dump and restore and nothing else.

A row's digest is sha256(salt || the row, columns ordered by name); a table's is its row count and the exact sums of
two 64-bit lanes of the row digests: independent of order, sensitive to duplicates, computable in parallel.

A row is written in one of three ways, its method, which both sides of a comparison have to share:

- `packed`: in the protocol's binary form, whose lengths say where a value ends. Types whose binary form is the same
  after a restore as they are; the text of all others as one more value. Half the work of `row`, and less for bytea.
- `row`: as PostgreSQL's text of a row. Where the database is not in UTF-8.
- `column`: as the hashes of its values, where a row is too large for either.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session, SqlError, ident, literal, qualified

# Rows whose text nears 1 GB can't be built by the server in one piece.
_TOO_LARGE = ("54000", "53200", "XX000")
_NO_RIGHT = ("42501",)

_USER_SCHEMA = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"

TABLES = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       coalesce((SELECT e.extcondition[array_position(e.extconfig, c.oid)] FROM pg_catalog.pg_extension e
                  WHERE c.oid = ANY (e.extconfig) LIMIT 1), '')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {_USER_SCHEMA}
   AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                       AND d.objid = c.oid AND d.deptype = 'e')
        OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
 ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

_COLUMNS = """
SELECT a.attrelid::bigint, a.attname::text, a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype,
       a.atttypid::bigint = ANY (ARRAY[{packed}])
  FROM pg_catalog.pg_attribute a
 WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (ARRAY[{oids}]::oid[])
 ORDER BY a.attrelid, a.attname COLLATE "C"
"""

# Built-in types whose binary form holds nothing but the value: bool, bytea, int8, int2, int4, text, json, char(n),
# varchar, date, timestamp, timestamptz, uuid, jsonb. Their ids are the same in every database.
_PACKED = (16, 17, 20, 21, 23, 25, 114, 1042, 1043, 1082, 1114, 1184, 2950, 3802)

# Rows of hash partitions can lie in another partition after a restore (enum values have other ids there): only the
# whole table can be compared. pg_dump then names its topmost parent.
_HASH_GROUPS = """
WITH RECURSIVE up(leaf, parent, depth) AS (
    SELECT i.inhrelid, i.inhparent, 1 FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
     WHERE c.relkind = 'r' AND c.relispartition
    UNION ALL SELECT up.leaf, i.inhparent, up.depth + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent)
SELECT DISTINCT ON (up.leaf) up.leaf::bigint, n.nspname::text, c.relname::text
  FROM up JOIN pg_catalog.pg_class c ON c.oid = up.parent JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE EXISTS (SELECT FROM up h JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = h.parent
                WHERE h.leaf = up.leaf AND p.partstrat = 'h')
 ORDER BY up.leaf, up.depth DESC
"""

_SEQUENCES = f"""
SELECT n.nspname::text, c.relname::text, s.seqincrement::bigint, s.seqcycle
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
 WHERE c.relpersistence <> 't' AND {_USER_SCHEMA}
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""

_VIEWS = f"""
SELECT n.nspname::text, c.relname::text, c.relispopulated
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm' AND {_USER_SCHEMA} ORDER BY 1, 2
"""

_FOREIGN = f"""
SELECT n.nspname::text, c.relname::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'f' AND {_USER_SCHEMA} ORDER BY 1, 2
"""

# By content in pieces of 1 MB: the number of stored pages of a sparse object changes on restore.
_LARGE_OBJECTS = """
SELECT count(*), coalesce(sum(('x' || substr(h, 1, 16))::bit(64)::bigint), 0)::text,
       coalesce(sum(('x' || substr(h, 17, 16))::bit(64)::bigint), 0)::text
  FROM (SELECT encode(sha256({salt} || convert_to(concat_ws('|',
                 m.oid, coalesce(z.size, 0), pg_get_userbyid(m.lomowner),
                 (SELECT string_agg(concat_ws(':', coalesce(g.rolname, 'PUBLIC'), b.rolname, x.privilege_type,
                                              x.is_grantable), ','
                         ORDER BY g.rolname, b.rolname, x.privilege_type)
                    FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) x
                    LEFT JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
                    LEFT JOIN pg_catalog.pg_roles b ON b.oid = x.grantor),
                 obj_description(m.oid, 'pg_largeobject')), 'UTF8')
               || coalesce((SELECT string_agg(sha256(lo_get(m.oid, o, 1048576)), ''::bytea ORDER BY o)
                              FROM generate_series(0, coalesce(z.size, 0) - 1, 1048576) o), ''::bytea)), 'hex') AS h
          FROM pg_catalog.pg_largeobject_metadata m
          LEFT JOIN {sizes} z ON z.loid = m.oid
        OFFSET 0) s
"""
# Stored pages can be read by superusers only; who owns the objects asks each for its content instead.
_SIZES = (
    "(SELECT loid, max(pageno::bigint * 2048 + octet_length(data)) AS size"
    " FROM pg_catalog.pg_largeobject GROUP BY loid)",
    "(SELECT oid AS loid, octet_length(lo_get(oid))::bigint AS size FROM pg_catalog.pg_largeobject_metadata)",
)


class Column(t.NamedTuple):
    """A column as far as its digest depends on it."""

    name: str
    is_bytea: bool
    is_packed: bool


def list_tables(session: Session) -> list[tuple[int, str, str, str, str, str]]:
    """(oid, schema, name, kind `r` or `p`, persistence, extension condition) of every table that a dump carries."""
    return t.cast("list[tuple[int, str, str, str, str, str]]", session.query(TABLES))


def read_sequences(session: Session) -> list[dict[str, t.Any]]:
    """Every sequence with its position now (sequences are not part of any snapshot)."""
    found = session.query(_SEQUENCES)
    positions: dict[tuple[str, str], tuple[int, bool]] = {}
    for start in range(0, len(found), 100):
        part = found[start : start + 100]
        sql = " UNION ALL ".join(
            f"SELECT {literal(str(schema))}, {literal(str(name))}, last_value, is_called FROM {qualified(schema, name)}"
            for schema, name, _increment, _cycle in part
        )
        for schema, name, last, called in session.query(sql):
            positions[(schema, name)] = (last, called)
    return [
        {
            "schema": schema,
            "name": name,
            "increment": increment,
            "cycle": cycle,
            "last_value": positions[(schema, name)][0],
            "is_called": positions[(schema, name)][1],
        }
        for schema, name, increment, cycle in found
    ]


def _salted(salt: str) -> str:
    bytes.fromhex(salt)
    return f"decode('{salt}', 'hex')"


def _lane(start: int) -> str:
    """Eight bytes of a row's digest as a bigint, in halves: shifts of integers are what the server does fastest."""

    def half(first: int) -> str:
        shifted = (f"(get_byte(h, {first + place}) << {24 - 8 * place})" for place in range(4))
        return f"({' | '.join(shifted)})::bigint"

    return f"({half(start)} << 32 | ({half(start + 4)} & 4294967295))"


def _table_sql(schema: str, name: str, condition: str, row_hash: str) -> str:
    return (
        f"SELECT count(*), coalesce(sum({_lane(0)}), 0)::text, coalesce(sum({_lane(8)}), 0)::text"
        f" FROM (SELECT {row_hash} AS h FROM ONLY {qualified(schema, name)} AS t {condition} OFFSET 0) s"
    )


def _row(columns: t.Iterable[Column]) -> str:
    return f"ROW({', '.join(f't.{ident(column.name)}' for column in columns)})"


def _packed_hash(salt: str, columns: t.Sequence[Column]) -> str:
    # A row's own text, not a cast of each value to text: casts can be made by anybody.
    others = [column for column in columns if not column.is_packed]
    fields = [f"t.{ident(column.name)}" for column in columns if column.is_packed]
    fields += [f"{_row(others)}::text"] if others else []
    return f"sha256({_salted(salt)} || record_send(ROW({', '.join(fields)})))"


def _row_hash(salt: str, columns: t.Sequence[Column]) -> str:
    return f"sha256({_salted(salt)} || convert_to({_row(columns)}::text, getdatabaseencoding()))"


def _column_hash(salt: str, columns: t.Sequence[Column]) -> str:
    def one(column: Column) -> str:
        field = f"t.{ident(column.name)}"
        content = field if column.is_bytea else f"convert_to({field}::text, getdatabaseencoding())"
        return f"coalesce('\\x01'::bytea || sha256({content}), '\\x00'::bytea)"

    return f"sha256({_salted(salt)} || {' || '.join(one(column) for column in columns)})"


_METHODS = {"packed": _packed_hash, "row": _row_hash, "column": _column_hash}


def digest_table(
    session: Session,
    schema: str,
    name: str,
    columns: t.Sequence[Column],
    *,
    salt: str,
    condition: str = "",
    method: str = "row",
) -> dict[str, t.Any]:
    """Count and digest of one table, inside the caller's transaction.

    Args:
        condition: a `WHERE` clause (tables of extensions are dumped in part).
        method: `packed`, `row` or `column`; the last one is taken where the others can't be, unless there is no column.
    """
    session.execute("SAVEPOINT digest")
    try:
        row_hash = _METHODS[method if columns else "row"](salt, columns)
        count, high, low = session.query(_table_sql(schema, name, condition, row_hash))[0]
    except SqlError as exc:
        session.execute("ROLLBACK TO SAVEPOINT digest")
        if method != "column" and columns and exc.code in _TOO_LARGE:
            return digest_table(session, schema, name, columns, salt=salt, condition=condition, method="column")
        raise
    session.execute("RELEASE SAVEPOINT digest")
    entry = {"schema": schema, "name": name, "rows": count, "digest": f"{high}:{low}"}
    if method != "row":
        entry["method"] = method
    if condition:
        entry["condition"] = condition
    return entry


def read_contents(
    session: Session,
    *,
    salt: str,
    methods: t.Mapping[tuple[str, str], str] | None = None,
    step: t.Callable[[str], None] = lambda _name: None,
) -> dict[str, t.Any]:
    """Counts and digests of everything in the database, inside the caller's transaction.

    Args:
        salt: hexadecimal; the same for both sides of a comparison.
        methods: (schema, name) to digest method, as the other side used it; None: this is the first side.
        step: told the name of each table before it is read.
    Returns:
        `tables`, `large_objects`, `materialized_views`, `foreign_tables` (read by nobody, dumped without data).
    """
    tables = [entry for entry in list_tables(session) if entry[3] == "r"]
    oids = ", ".join(str(entry[0]) for entry in tables)
    columns: dict[int, list[Column]] = {}
    if oids:
        for oid, *column in session.query(_COLUMNS.format(oids=oids, packed=", ".join(map(str, _PACKED)))):
            columns.setdefault(oid, []).append(Column(*column))
    if methods is None:
        methods = {}
        default = "packed" if session.value("SELECT getdatabaseencoding()") == "UTF8" else "row"
    else:
        default = "row"
    groups = {oid: [schema, name] for oid, schema, name in session.query(_HASH_GROUPS)}
    digests = []
    for oid, schema, name, _kind, _persistence, condition in tables:
        step(f"{schema}.{name}")
        method = methods.get((schema, name), default)
        entry = digest_table(session, schema, name, columns.get(oid, []), salt=salt, condition=condition, method=method)
        if oid in groups:
            entry["group"] = groups[oid]
        digests.append(entry)
    return {
        "tables": digests,
        "large_objects": _large_objects(session, salt),
        "materialized_views": [
            {"schema": schema, "name": name, "populated": populated}
            for schema, name, populated in session.query(_VIEWS)
        ],
        "foreign_tables": [{"schema": schema, "name": name} for schema, name in session.query(_FOREIGN)],
    }


def _large_objects(session: Session, salt: str) -> dict[str, t.Any]:
    for sizes in _SIZES:
        session.execute("SAVEPOINT digest")
        try:
            count, high, low = session.query(_LARGE_OBJECTS.format(salt=_salted(salt), sizes=sizes))[0]
        except SqlError as exc:
            session.execute("ROLLBACK TO SAVEPOINT digest")
            if exc.code not in _NO_RIGHT:
                raise
        else:
            session.execute("RELEASE SAVEPOINT digest")
            return {"count": count, "digest": f"{high}:{low}"}
    return {"unproven": "this role may not read large objects"}


def overall_digest(contents: t.Mapping[str, t.Any]) -> str:
    """One SHA-256 over all counts, digests and sequences' positions: the public fingerprint of the private part."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()
