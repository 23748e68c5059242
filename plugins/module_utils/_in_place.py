# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Where there is no room for two databases: drop the live one, load the set in its place, keep a safety set."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._archive import identify
from ansible_collections.mazevault.backup.plugins.module_utils._compare import compare_all
from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._restore import (
    analyze,
    create_database,
    create_roles,
    drop_database,
    load,
    observe,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server
from ansible_collections.mazevault.backup.plugins.module_utils._swap import Application, maintenance, oid_of
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, Check
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Subject

_APPLICATION = "mazevault.backup restore"


@dataclass(frozen=True)
class InPlace:
    """One replacement of the live database by a set's.

    Attributes:
        safety: the set that holds what is dropped; None where there was no live database.
        work: folder for unpacked copies.
        live_oid: object id of the live database before; 0 where there was none.
    """

    runtime: Runtime
    server: Server
    chosen: Subject
    safety: Subject | None
    application: Application
    work: str
    jobs: int
    step: t.Callable[[str], None]
    live_oid: int

    def replace(self) -> list[Check]:
        """Stop, drop, load, prove, start; go back to the safety set when the chosen one doesn't load or prove itself.

        Raises:
            BackupError: with word of where the database and the application are now.
        """
        self.step("in place: stop the application")
        try:
            self.application.stop()
        except BackupError:
            self.application.start()
            raise
        try:
            checks = self._load(self.chosen)
            failed = [check for check in checks if check.verdict == FAIL]
            if failed:
                raise BackupError(f"what was loaded isn't what the manifest says: {failed[0].name}: {failed[0].reason}")
        except BackupError as exc:
            self.recover()
            raise BackupError(
                f"in place: the set didn't restore: {exc.msg}",
                hint="The database is back as it was before (from the safety set), and the application is started.",
                details=exc.details,
            ) from exc
        with maintenance(self.server).session(_APPLICATION) as session:
            write_json(self._proven, {"oid": oid_of(session, self.server.database)})
        self.step("in place: start the application")
        self.application.start()
        return checks

    @property
    def _proven(self) -> str:
        return os.path.join(self.work, "in_place_proven.json")

    def recover(self) -> None:
        """End what failed or was killed: back to the safety set only where the live database is gone already."""
        with maintenance(self.server).session(_APPLICATION) as session:
            here = oid_of(session, self.server.database)
        proven = int(read_json(self._proven)["oid"]) if os.path.isfile(self._proven) else 0
        if here and here in (self.live_oid, proven):
            self.application.start()
        else:
            self.go_back()

    def go_back(self) -> None:
        """Load the safety set and start the application; without one the application stays down."""
        self.step("in place: go back")
        if self.safety is None:
            raise BackupError(
                f"database: {self.server.database}: is empty, and there was none before that could be brought back",
                hint="The application was left stopped: on an empty database it would begin anew. Restore another set.",
            )
        self._load(self.safety)
        self.application.start()

    def _load(self, subject: Subject) -> list[Check]:
        private, public = subject.private, subject.public
        if private is None or public is None:
            raise BackupError(
                "set: in place needs a recovery set, not a file", hint="Restore the file beside the live database."
            )
        name = self.server.database
        admin = maintenance(self.server)
        self.step("in place: drop the database")
        with admin.session(_APPLICATION) as session:
            drop_database(session, name)
            superuser = bool(session.value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"))
            create_roles(session, private["roles"], login=True, superuser=superuser, version=session.version)
            create_database(session, name, private["database"])
            same_major = session.version // 10000 == int(public["client_version"])
        self.step("in place: load")
        load(
            self.runtime,
            self.server,
            identify(subject.path, self.runtime, subject.stored()),
            jobs=self.jobs,
            work=self.work,
            application=_APPLICATION,
        )
        analyze(self.runtime, self.server, jobs=self.jobs, application=_APPLICATION)
        with admin.session(_APPLICATION) as session:
            for statement in apply_sql(name, private["database"]):
                session.execute(statement)
        self.step("in place: prove")
        return compare_all(private, observe(self.server, private, application=_APPLICATION), same_major=same_major)
