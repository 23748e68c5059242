# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Everything that is read in a snapshot's own session while pg_dump works."""

from __future__ import annotations

import threading
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._catalogue import read_catalogue
from ansible_collections.mazevault.backup.plugins.module_utils._contents import read_contents
from ansible_collections.mazevault.backup.plugins.module_utils._database import read_properties
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._roles import read_roles
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session, SqlError


class Reader:
    """Reads counts, digests and catalogues in the snapshot's own session while pg_dump works."""

    def __init__(self, session: Session, salt: str, database: str) -> None:
        self._session, self._salt, self._database = session, salt, database
        self.facts: dict[str, t.Any] = {}
        self.error: BackupError | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            self.facts["catalogue"] = read_catalogue(self._session)
            self.facts["contents"] = read_contents(self._session, salt=self._salt)
            self.facts["roles"] = read_roles(self._session)
            self.facts["database"] = read_properties(self._session, self._database)
            self.facts["settings"], self.facts["server_files"] = _read_configuration(self._session)
        except BackupError as exc:
            self.error = exc
        except Exception as exc:  # a bug must end the run, not hang it
            self.error = BackupError(f"contents: {type(exc).__name__}: {exc}")


def _read_configuration(session: Session) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Settings that differ from the built-in ones, and the server's configuration files."""
    files: dict[str, str] = {}
    session.execute("SAVEPOINT configuration")
    try:
        settings: dict[str, str] = dict(
            session.query(
                "SELECT name::text, setting::text FROM pg_catalog.pg_settings"
                " WHERE source IN ('configuration file', 'command line', 'global') ORDER BY 1"
            )
        )
        for name, sql in (
            ("postgresql.conf", "current_setting('config_file')"),
            ("postgresql.auto.conf", "current_setting('data_directory') || '/postgresql.auto.conf'"),
            ("pg_hba.conf", "current_setting('hba_file')"),
            ("pg_ident.conf", "current_setting('ident_file')"),
        ):
            text = session.query(f"SELECT pg_catalog.pg_read_file({sql}, 0, 1048576, true)")[0][0]
            if text is not None:
                files[name] = text
    except SqlError:
        session.execute("ROLLBACK TO SAVEPOINT configuration")
        return None, {}
    session.execute("RELEASE SAVEPOINT configuration")
    return settings, files
