# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Restoring a dump beside the live database: may it go there, load it, prove it. The live database is only read."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._archive import identify, read_fully, read_toc
from ansible_collections.mazevault.backup.plugins.module_utils._compare import compare_all, left_out_check
from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql, read_properties
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import require_space
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._restore import (
    analyze,
    create_database,
    create_roles,
    drop_database,
    load,
    observe,
)
from ansible_collections.mazevault.backup.plugins.module_utils._roles import missing_roles, read_roles
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import Scratch
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    Server,
    Session,
    SqlError,
    ident,
    literal,
    qualified,
)
from ansible_collections.mazevault.backup.plugins.module_utils._swap import (
    derived_name,
    derived_prefix,
    is_stamp,
    maintenance,
)
from ansible_collections.mazevault.backup.plugins.module_utils._toc import dumped_by
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Places, Subject

_APPLICATION = "mazevault.backup restore"
MARK = "mazevault.backup: being restored, "


@dataclass(frozen=True)
class Outlook:
    """What a restore would do, from what can be known before it."""

    database: str
    live_exists: bool
    live_rows: int | None
    set_rows: int | None
    differing: tuple[str, ...]
    missing_roles: tuple[str, ...]
    needed_bytes: int
    server_major: int
    notes: tuple[str, ...]


def precheck(
    subject: Subject,
    server: Server,
    runtime: Runtime,
    *,
    installation: str,
    set_installation: str,
    accept: t.Container[str],
    reserve: int | None,
) -> Outlook:
    """Everything that would make the restore fail later, found before anything is touched.

    Raises:
        BackupError: server older than the dump, other installation, dirty migration, missing extension, too little
            space, ...
    """
    if (
        subject.public is not None
        and installation
        and set_installation != installation
        and "other_installation" not in accept
    ):
        raise BackupError(
            f"set: it belongs to installation {set_installation}, not to {installation}",
            hint="Restoring another installation's data needs accept=other_installation.",
        )
    if subject.public is not None and subject.public["schema_dirty"] and "dirty_migration" not in accept:
        raise BackupError(
            f"set: its schema version {subject.public['schema_version']} is dirty: a migration had been broken off",
            hint="MazeVault won't start on it. Choose another set, or accept=dirty_migration.",
        )
    admin = maintenance(server)
    with admin.session(_APPLICATION) as session:
        major = session.version // 10000
        for program in ("pg_restore", "psql", "vacuumdb"):
            runtime.program(program, major=major)
        _refuse_older(major, _source_major(subject, runtime, major))
        live = read_properties(session, server.database)
        _model(subject, server, live)
        roles: list[str] = []
        if subject.private is not None:
            roles = missing_roles(subject.private["roles"], session)
            _check_extensions(session, subject.private)
        needed = _needed_bytes(subject)
        local = _local_data_folder(session, runtime)
        if local:
            require_space(
                local, needed, parameter="server", what="the restored database beside the live one", reserve=reserve
            )
        # PostgreSQL 14 keeps no version of a database's collation.
        notes = _collation_notes(session, live, subject) if major >= 15 else ()
    rows = subject.public["rows"] if subject.public else None
    live_rows, differing = (None, ()) if live is None else _compare_live(server, subject)
    return Outlook(server.database, live is not None, live_rows, rows, differing, tuple(roles), needed, major, notes)


def _collation_notes(session: Session, live: t.Mapping[str, t.Any] | None, subject: Subject) -> tuple[str, ...]:
    """Where text is sorted by another version than the set's source did; the restored indexes are built anew."""
    if live is None or subject.public is None or not subject.public["collation_version"]:
        return ()
    actual = session.query(f"SELECT pg_catalog.pg_database_collation_actual_version({int(live['oid'])})")[0][0]
    if actual in (None, subject.public["collation_version"]):
        return ()
    return (
        f"collation version: {subject.public['collation_version']} in the set, {actual} on this server;"
        " the order of texts may change, the restored indexes follow it",
    )


def refuse_older_server(public: t.Mapping[str, t.Any], server: Server) -> None:
    """Refuse a set that this server is too old for, before anybody asks for programs that can read it."""
    with maintenance(server).session(_APPLICATION) as session:
        _refuse_older(session.version // 10000, int(public["client_version"]))


def _refuse_older(major: int, source_major: int) -> None:
    if source_major > major:
        raise BackupError(
            f"server: version {major}: older than the dump, which comes from PostgreSQL {source_major}",
            hint=f"Restore to a server of version {source_major} or newer.",
        )


def _source_major(subject: Subject, runtime: Runtime, major: int) -> int:
    if subject.public is not None:
        return int(subject.public["client_version"])
    archive = identify(subject.path, runtime, subject.stored())
    return 0 if archive.format == "plain" else dumped_by(read_toc(archive, runtime, major)[1])[0]


def _check_extensions(session: Session, private: t.Mapping[str, t.Any]) -> None:
    available = {
        row[0] for row in session.query("SELECT quote_ident(name::text) FROM pg_catalog.pg_available_extensions")
    }
    wanted = [line.split(":")[0] for line in private["catalogue"]["extensions"]]
    missing = [name for name in wanted if name not in available]
    if missing:
        raise BackupError(
            f"server: extension {', '.join(missing)}: not available there",
            hint="Install the extension's package on the database server first.",
        )


def _needed_bytes(subject: Subject) -> int:
    if subject.public is not None:
        return int(subject.public["size_bytes"] * 1.2) + (64 << 20)
    size = os.path.getsize(subject.path) if os.path.isfile(subject.path) else 0
    return size * 8 + (64 << 20)


def _local_data_folder(session: Session, runtime: Runtime) -> str:
    """The server's data folder where it is on this machine and ours to see, else an empty string."""
    try:
        folder = session.query("SELECT pg_catalog.current_setting('data_directory')")[0][0]
    except SqlError:
        return ""
    here = runtime.data_folder(folder) if folder else ""
    return here if here and os.path.isfile(os.path.join(here, "PG_VERSION")) else ""


def _compare_live(server: Server, subject: Subject) -> tuple[int | None, tuple[str, ...]]:
    """Rows in the live database now, and the tables whose number of rows differs from the set's."""
    if subject.private is None:
        return None, ()
    total, differing = 0, []
    try:
        with server.session(_APPLICATION) as session:
            session.execute("SET statement_timeout = '60s'", "SET lock_timeout = '2s'", "SET row_security = off")
            for entry in subject.private["tables"]:
                name = f"{entry['schema']}.{entry['name']}"
                try:
                    count = session.query(f"SELECT count(*) FROM ONLY {qualified(entry['schema'], entry['name'])}")[0][
                        0
                    ]
                except SqlError:
                    differing.append(f"{name}: not readable now, {entry['rows']} rows in the set")
                    continue
                total += count
                if count != entry["rows"]:
                    differing.append(f"{name}: {count} rows now, {entry['rows']} in the set")
    except BackupError:
        return None, ()
    return total, tuple(differing)


@dataclass(frozen=True)
class Restored:
    """A database that stands beside the live one."""

    name: str
    oid: int
    checks: list[Check]
    left_out: list[str]
    comment: str | None
    set_comment: bool
    seconds: dict[str, float]


def restore_beside(
    subject: Subject,
    server: Server,
    runtime: Runtime,
    places: Places,
    *,
    stamp: str,
    jobs: int,
    step: t.Callable[[str], None],
) -> Restored:
    """Load the dump into `<database>_restore_<stamp>`, give it all that belongs to it, and prove it.

    Raises:
        BackupError: it couldn't be loaded; the new database is gone again, the live one was not touched.
    """
    admin = maintenance(server)
    name = derived_name(server.database, "restore", stamp)
    target = server.on(name)
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    if subject.private is None:
        step("restore: scratch first")
        _rehearse(subject, server, runtime, places, jobs)
        clock.lap("scratch")
    with admin.session(_APPLICATION) as session:
        step("restore: clear")
        drop_leftovers(session, server.database)
        live = read_properties(session, server.database)
        expected = _model(subject, server, live)
        step("restore: roles")
        if subject.private is not None:
            superuser = bool(session.value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"))
            create_roles(session, subject.private["roles"], login=True, superuser=superuser, version=session.version)
        step("restore: create the database")
        # Closed until it bears the mark: a server that dies in between leaves one that shows whose it is.
        oid = create_database(session, name, expected, closed=True)
        session.execute(f"COMMENT ON DATABASE {ident(name)} IS {literal(MARK + stamp)}")
        session.execute(f"ALTER DATABASE {ident(name)} ALLOW_CONNECTIONS true")
    try:
        step("restore: load")
        archive = identify(subject.path, runtime, subject.stored())
        loaded = load(runtime, target, archive, jobs=jobs, work=places.work, application=_APPLICATION)
        clock.lap("load")
        step("restore: statistics")
        without_statistics = analyze(runtime, target, jobs=jobs, application=_APPLICATION)
        clock.lap("statistics")
        step("restore: properties")
        with admin.session(_APPLICATION) as session:
            for statement in apply_sql(name, expected):
                # The comment marks the database as ours until it is swapped in.
                if not statement.startswith("COMMENT"):
                    session.execute(statement)
        step("restore: prove")
        checks = _prove(subject, target, expected)
        checks += [left_out_check(what) for what in loaded.left_out]
        # Slower queries, but not a row is missing: worth a word, not a verdict.
        checks += [Check("statistics", "restore", PASS, f"not analyzed: {what}") for what in without_statistics]
        clock.lap("proof")
        failed = [check for check in checks if check.verdict == FAIL]
        if failed:
            raise BackupError(
                "restore: what was loaded isn't what the set's manifest says: "
                + "; ".join(f"{check.name}: {check.reason}" for check in failed[:3]),
                hint="The live database is as it was. Choose another set.",
            )
    except BaseException:
        with admin.session(_APPLICATION) as session:
            drop_database(session, name)
        raise
    return Restored(name, oid, checks, loaded.left_out, expected["comment"], True, seconds)


def _model(subject: Subject, server: Server, live: t.Mapping[str, t.Any] | None) -> t.Mapping[str, t.Any]:
    """The properties to make the database with: what the set recorded, or what the live one has."""
    if subject.private is not None:
        return t.cast("t.Mapping[str, t.Any]", subject.private["database"])
    if live is None:
        raise BackupError(
            f"database: {server.database}: does not exist,"
            " and this dump doesn't say with what encoding and owner to make it",
            hint="Create an empty database of this name with the right owner first, then restore.",
        )
    return live


class _Clock:
    def __init__(self, laps: dict[str, float]) -> None:
        self._laps, self._last = laps, _clock.now()

    def lap(self, name: str) -> None:
        moment = _clock.now()
        self._laps[name] = round((moment - self._last).total_seconds(), 3)
        self._last = moment


def _prove(subject: Subject, target: Server, expected: t.Mapping[str, t.Any]) -> list[Check]:
    if subject.private is None or subject.public is None:
        with target.session(_APPLICATION) as session:
            tables = session.value(
                "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
                " AND n.nspname !~ '^pg_'"
            )
        if not tables:
            return [Check("tables", "restore", FAIL, "the dump holds no table")]
        return [
            Check("tables", "restore", UNPROVEN, "no manifest says what has to be there", observed=f"{tables} tables")
        ]
    observed = observe(target, subject.private, application=_APPLICATION)
    # Name and comment follow with the swap.
    observed["database"] = {**observed["database"], "comment": expected["comment"]}
    with target.session(_APPLICATION) as session:
        same_major = session.version // 10000 == int(subject.public["client_version"])
    return compare_all(subject.private, observed, same_major=same_major)


def _rehearse(subject: Subject, server: Server, runtime: Runtime, places: Places, jobs: int) -> None:
    """A foreign dump is code: it runs in a throw-away server before it may run in the live one."""
    with maintenance(server).session(_APPLICATION) as session:
        major, roles = session.version // 10000, read_roles(session)
        live = read_properties(session, server.database)
    archive = identify(subject.path, runtime, subject.stored())
    # No recorded hash vouches for it: damage is found here, also such that pg_restore would loop over for ever.
    read_fully(archive, runtime, major, work=places.work)
    with Scratch(
        runtime,
        work=places.scratch,
        major=major,
        superuser=roles["bootstrap"] or "postgres",
        account=places.account,
        register=places.register,
        sees=(archive.path, places.work),
    ) as scratch:
        with scratch.server("template1").session() as admin:
            create_roles(admin, roles, login=False, superuser=True, version=admin.version)
            create_database(admin, "rehearsal", {**_model(subject, server, live), "tablespace": None})
        load(
            scratch.runtime,
            scratch.server("rehearsal"),
            archive,
            jobs=jobs,
            work=places.work,
            application=_APPLICATION,
            tablespaces=False,
        )


def drop_leftovers(session: Session, database: str) -> list[str]:
    """Drop databases that dead restores left behind.

    They carry our mark as their comment, or are as they were created: closed and without a comment, so without data.
    """
    prefix = derived_prefix(database, "restore")
    rows = session.query(
        "SELECT d.datname::text, pg_catalog.shobj_description(d.oid, 'pg_database'), d.datallowconn"
        " FROM pg_catalog.pg_database d ORDER BY 1"
    )
    dropped = []
    for name, comment, is_open in rows:
        begun = is_stamp(name[len(prefix) :]) and comment is None and not is_open
        if name.startswith(prefix) and (begun or (comment or "").startswith(MARK)):
            drop_database(session, name)
            dropped.append(name)
    return dropped
