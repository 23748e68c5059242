# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The roles of a server without their passwords, from catalogues that every role may read."""

from __future__ import annotations

import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._database import setting_sql
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session, ident, literal

_FLAGS = (
    ("rolsuper", "SUPERUSER"),
    ("rolinherit", "INHERIT"),
    ("rolcreaterole", "CREATEROLE"),
    ("rolcreatedb", "CREATEDB"),
    ("rolcanlogin", "LOGIN"),
    ("rolreplication", "REPLICATION"),
    ("rolbypassrls", "BYPASSRLS"),
)


def read_roles(session: Session) -> dict[str, t.Any]:
    """Roles, memberships and the settings of roles that hold in every database.

    Returns:
        `bootstrap` (the first superuser's name), `roles`, `memberships`.
    """
    roles = [
        row[0]
        for row in session.query(
            """SELECT jsonb_build_object('name', r.rolname, 'connection_limit', r.rolconnlimit,
                      'valid_until', r.rolvaliduntil::text, 'comment', shobj_description(r.oid, 'pg_authid'),
                      'flags', to_jsonb(r) - 'rolpassword' - 'rolname' - 'oid' - 'rolconfig' - 'rolvaliduntil'
                               - 'rolconnlimit',
                      'settings', (SELECT to_jsonb(s.setconfig) FROM pg_catalog.pg_db_role_setting s
                                    WHERE s.setrole = r.oid AND s.setdatabase = 0))
                 FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.oid"""
        )
    ]
    memberships = [
        row[0]
        for row in session.query(
            """SELECT jsonb_build_object('role', g.rolname, 'member', m.rolname, 'options', to_jsonb(a))
                 FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
                 JOIN pg_catalog.pg_roles m ON m.oid = a.member
                WHERE m.rolname !~ '^pg_' ORDER BY g.rolname COLLATE "C", m.rolname COLLATE "C\""""
        )
    ]
    version = int(session.query("SELECT pg_catalog.current_setting('server_version_num')")[0][0])
    parameters: dict[str, list[list[t.Any]]] = {}
    if version >= 150000:
        for grantee, name, privilege, grantable in session.query(
            """SELECT g.rolname::text, p.parname, a.privilege_type, a.is_grantable
                 FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a
                 JOIN pg_catalog.pg_roles g ON g.oid = a.grantee WHERE a.grantee <> 10 ORDER BY 1, 2, 3"""
        ):
            parameters.setdefault(grantee, []).append([name, privilege, grantable])
    bootstrap = session.query("SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10")
    return {
        "bootstrap": bootstrap[0][0] if bootstrap else None,
        "roles": [
            {
                **role,
                "flags": {word: bool(role["flags"].get(key)) for key, word in _FLAGS},
                "settings": role["settings"] or [],
                "parameters": parameters.get(role["name"], []),
            }
            for role in roles
        ],
        "memberships": _memberships(memberships),
    }


def _memberships(rows: t.Sequence[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    # PostgreSQL 16 and newer keep one row per grantor; the options of all count together.
    merged: dict[tuple[str, str], dict[str, t.Any]] = {}
    for row in rows:
        options = row["options"]
        entry = merged.setdefault(
            (row["role"], row["member"]),
            {"role": row["role"], "member": row["member"], "admin": False, "inherit": None, "set": None},
        )
        entry["admin"] = entry["admin"] or bool(options["admin_option"])
        for key, column in (("inherit", "inherit_option"), ("set", "set_option")):
            if column in options:
                entry[key] = bool(entry[key]) or bool(options[column])
    return list(merged.values())


def roles_sql(
    facts: t.Mapping[str, t.Any], *, login: bool = True, superuser: bool = True, version: int = 150000
) -> list[str]:
    """Statements that create the roles that are missing and leave existing ones alone.

    Args:
        login: keep the LOGIN attribute (a scratch server gets NOLOGIN for all).
        superuser: keep attributes that only a superuser may give.
        version: server_version_num of the server that will run them (membership options exist from 16 on).
    """
    statements = []
    for role in facts["roles"]:
        name = role["name"]
        words = []
        for _column, word in _FLAGS:
            if word in ("SUPERUSER", "REPLICATION", "BYPASSRLS") and not superuser:
                continue
            wanted = role["flags"][word] and (login or word not in ("LOGIN", "SUPERUSER", "REPLICATION"))
            words.append(word if wanted else f"NO{word}")
        words.append(f"CONNECTION LIMIT {int(role['connection_limit'])}")
        if role["valid_until"]:
            words.append(f"VALID UNTIL {literal(role['valid_until'])}")
        inside = [f"CREATE ROLE {ident(name)} {' '.join(words)}"]
        for entry in role["settings"]:
            inside.append(f"ALTER ROLE {ident(name)} SET {setting_sql(entry)}")
        if superuser and version >= 150000:
            inside += [
                f"GRANT {privilege} ON PARAMETER {'.'.join(ident(part) for part in key.split('.'))} TO {ident(name)}"
                + (" WITH GRANT OPTION" if grantable else "")
                for key, privilege, grantable in role["parameters"]
            ]
        if role["comment"]:
            inside.append(f"COMMENT ON ROLE {ident(name)} IS {literal(role['comment'])}")
        statements.append(_unless_exists(name, inside))
    for entry in facts["memberships"]:
        options = []
        if entry["admin"]:
            options.append("ADMIN TRUE" if version >= 160000 else "ADMIN OPTION")
        if version >= 160000:
            options += [
                f"{word.upper()} {'TRUE' if entry[word] else 'FALSE'}"
                for word in ("inherit", "set")
                if entry[word] is not None
            ]
        grant = f"GRANT {ident(entry['role'])} TO {ident(entry['member'])}"
        if options:
            grant += f" WITH {', '.join(options)}"
        statements.append(_unless_member(entry["role"], entry["member"], grant))
    return statements


def _do(body: str) -> str:
    tag = "$do$"
    while tag in body:
        tag = f"$do{len(tag)}$"
    return f"DO {tag} BEGIN {body} END {tag}"


def _unless_exists(name: str, statements: t.Sequence[str]) -> str:
    body = " ".join(f"{statement};" for statement in statements)
    return _do(f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(name)}) THEN {body} END IF;")


def _unless_member(role: str, member: str, grant: str) -> str:
    condition = (
        "NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid"
        f" JOIN pg_catalog.pg_roles m ON m.oid = a.member"
        f" WHERE g.rolname = {literal(role)} AND m.rolname = {literal(member)})"
    )
    return _do(f"IF {condition} THEN {grant}; END IF;")


def missing_roles(facts: t.Mapping[str, t.Any], session: Session) -> list[str]:
    """Roles of the source that this server doesn't have."""
    present = {row[0] for row in session.query("SELECT rolname::text FROM pg_catalog.pg_roles")}
    return [role["name"] for role in facts["roles"] if role["name"] not in present]
