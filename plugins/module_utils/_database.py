# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What belongs to a database but to no dump: encoding, locale, owner, privileges, settings, comment, limit."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session, ident, literal

# These settings are stored as lists of quoted names (GUC_LIST_QUOTE); other lists are one plain string.
_LIST_SETTINGS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:,|$)')


def setting_sql(entry: str) -> str:
    """`"name" = value` for SET, from the way the catalogue stores it (`name=value`)."""
    key, _equals, value = entry.partition("=")
    # A custom setting's name holds a dot, each part is a name of its own.
    name = ".".join(ident(part) for part in key.split("."))
    if key not in _LIST_SETTINGS:
        return f"{name} = {literal(value)}"
    # Each as a string: the empty list is stored as `""`, which is no name in SQL.
    items, position = [], 0
    while position < len(value):
        match = _LIST_ITEM.match(value, position)
        if match is None:
            return f"{name} = {value}"
        quoted, bare = match.groups()
        items.append(bare if quoted is None else quoted.replace('""', '"'))
        position = match.end()
    return f"{name} = {', '.join(literal(item) for item in items or [''])}"


def read_properties(session: Session, database: str) -> dict[str, t.Any] | None:
    """Everything about one database, by names instead of ids; None where it doesn't exist."""
    rows = session.query("SELECT to_jsonb(d) FROM pg_catalog.pg_database d WHERE datname = " + literal(database))
    if not rows:
        return None
    raw: dict[str, t.Any] = rows[0][0]
    oid = int(raw["oid"])
    more = session.query(
        f"""SELECT pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), s.spcname,
                   pg_catalog.shobj_description(d.oid, 'pg_database'), d.datacl IS NOT NULL
              FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace s ON s.oid = d.dattablespace
             WHERE d.oid = {oid}"""
    )[0]
    grants = session.query(
        f"""SELECT coalesce(g.rolname, ''), a.privilege_type, a.is_grantable, b.rolname
              FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
              LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee LEFT JOIN pg_catalog.pg_roles b ON b.oid = a.grantor
             WHERE d.oid = {oid} ORDER BY a.grantor <> d.datdba, 4, 1, 2, 3"""
    )
    settings = session.query(
        f"""SELECT coalesce(r.rolname, ''), s.setconfig FROM pg_catalog.pg_db_role_setting s
              LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = {oid} ORDER BY 1"""
    )
    labels = session.query(
        f"SELECT provider, label FROM pg_catalog.pg_shseclabel WHERE objoid = {oid}"
        " AND classoid = 'pg_catalog.pg_database'::pg_catalog.regclass ORDER BY 1"
    )
    return {
        "oid": oid,
        "owner": more[0],
        "encoding": more[1],
        "tablespace": more[2],
        "comment": more[3],
        "connection_limit": raw["datconnlimit"],
        "is_template": raw["datistemplate"],
        "allow_connections": raw["datallowconn"],
        "locale_provider": {"c": "libc", "i": "icu", "b": "builtin"}[raw.get("datlocprovider") or "c"],
        "collate": raw["datcollate"],
        "ctype": raw["datctype"],
        # PostgreSQL 15 and 16 call it daticulocale, 17 and newer datlocale.
        "locale": raw.get("datlocale") or raw.get("daticulocale"),
        "icu_rules": raw.get("daticurules"),
        "collation_version": raw.get("datcollversion"),
        "grants": [list(row) for row in grants] if more[4] else None,
        "settings": [[role, list(values)] for role, values in settings],
        "security_labels": [list(row) for row in labels],
    }


def create_sql(name: str, properties: t.Mapping[str, t.Any]) -> str:
    """`CREATE DATABASE` with the same encoding and locale, from template0."""
    words = [
        f"CREATE DATABASE {ident(name)} TEMPLATE template0",
        f"ENCODING {literal(properties['encoding'])}",
        f"LC_COLLATE {literal(properties['collate'])} LC_CTYPE {literal(properties['ctype'])}",
    ]
    provider = properties["locale_provider"]
    if provider == "icu":
        words.append(f"LOCALE_PROVIDER icu ICU_LOCALE {literal(properties['locale'])}")
        if properties.get("icu_rules"):
            words.append(f"ICU_RULES {literal(properties['icu_rules'])}")
    elif provider == "builtin":
        words.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(properties['locale'])}")
    if properties.get("tablespace") not in (None, "pg_default"):
        words.append(f"TABLESPACE {ident(properties['tablespace'])}")
    return " ".join(words)


def apply_sql(name: str, properties: t.Mapping[str, t.Any]) -> list[str]:
    """Statements that give an existing database the owner, privileges, settings, comment and limit.

    To be run after the data is in: `default_transaction_read_only` would refuse a restore.
    """
    database = ident(name)
    owner = properties["owner"]
    statements = [f"ALTER DATABASE {database} OWNER TO {ident(owner)}"]
    if properties["grants"] is not None:
        statements.append(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {ident(owner)}")
        # The owner's own grants come first: others pass on what they were given.
        for grantee, privilege, grantable, grantor in properties["grants"]:
            who = ident(grantee) if grantee else "PUBLIC"
            option = " WITH GRANT OPTION" if grantable else ""
            grant = f"GRANT {privilege} ON DATABASE {database} TO {who}{option}"
            if grantor != owner:
                grant = f"SET SESSION AUTHORIZATION {ident(grantor)}; {grant}; RESET SESSION AUTHORIZATION"
            statements.append(grant)
    for role, values in properties["settings"]:
        target = f"ALTER ROLE {ident(role)} IN DATABASE {database}" if role else f"ALTER DATABASE {database}"
        for entry in values:
            statements.append(f"{target} SET {setting_sql(entry)}")
    for provider, label in properties["security_labels"]:
        statements.append(f"SECURITY LABEL FOR {ident(provider)} ON DATABASE {database} IS {literal(label)}")
    statements.append(f"COMMENT ON DATABASE {database} IS {literal(properties['comment'])}")
    statements.append(f"ALTER DATABASE {database} CONNECTION LIMIT {int(properties['connection_limit'])}")
    if properties["is_template"]:
        statements.append(f"ALTER DATABASE {database} IS_TEMPLATE true")
    return statements


COMPARED = (
    "owner",
    "encoding",
    "tablespace",
    "comment",
    "connection_limit",
    "is_template",
    "locale_provider",
    "collate",
    "ctype",
    "locale",
    "icu_rules",
    "grants",
    "settings",
    "security_labels",
)


def differences(expected: t.Mapping[str, t.Any], observed: t.Mapping[str, t.Any]) -> list[str]:
    """Names of the properties that differ (settings in any order are the same)."""

    def plain(properties: t.Mapping[str, t.Any], key: str) -> t.Any:
        if key == "settings":
            return sorted((role, sorted(values)) for role, values in properties[key])
        return properties.get(key)

    return [key for key in COMPARED if plain(expected, key) != plain(observed, key)]
