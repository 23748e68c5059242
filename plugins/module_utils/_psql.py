# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A database session by one psql that stays open: of the server's own version, with no Python package on the host."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._process import PIPE, Child, ProcessRunner, TimedOut
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    Row,
    Server,
    SqlError,
    connection_error,
    greet,
)

# SQLSTATE "connection failure"
_LOST = "08006"


class PsqlSession:
    """A session in autocommit mode: a transaction is what the caller begins.

    Rows come as JSON, one a line, so that every text arrives whole: numbers, booleans, texts, NULL, arrays and JSON
    have their Python types; anything else is PostgreSQL's text of it.
    """

    def __init__(self, server: Server, application: str, processes: ProcessRunner, psql: str) -> None:
        server.check_passfile()
        self.server = server
        self._mark = f"mazevault-{secrets.token_hex(12)}"
        self._buffer = b""
        self._child: Child = processes.start(
            [psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--file=-"],
            env={**server.environment(application), "PGCLIENTENCODING": "UTF8"},
            stdin=PIPE,
            stdout=PIPE,
        )
        try:
            ((self.pid, self.version),) = self._first_answer()
        except BaseException:
            self._child.stop()
            raise
        greet(self)

    def _first_answer(self) -> list[Row]:
        try:
            return self.query(
                "SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.current_setting('server_version_num')::int AS v"
            )
        except SqlError as exc:
            if exc.code != _LOST:
                raise
            raise connection_error(self.server, exc.msg.removeprefix("server: ")) from None

    def query(self, sql: str, *, timeout: float | None = None) -> list[Row]:
        lines = self._ask(f"SELECT pg_catalog.row_to_json(mazevault_row) FROM (\n{sql}\n) AS mazevault_row;", timeout)
        return [_row(line) for line in lines]

    def value(self, sql: str) -> t.Any:
        """The first column of the first row, or None."""
        rows = self.query(sql)
        return rows[0][0] if rows else None

    def execute(self, *statements: str) -> None:
        # In one message, as other clients send several statements: the first that fails ends them all.
        self._ask("\\;\n".join(statements) + "\n;", None)

    def _ask(self, sql: str, timeout: float | None) -> list[bytes]:
        """Send statements and return the lines of their answers.

        Raises:
            SqlError: the server refused a statement, or the connection is lost.
        """
        script = f"{sql}\n\\echo {self._mark} :ERROR :SQLSTATE\n\\echo :LAST_ERROR_MESSAGE\n\\echo {self._mark}.\n"
        try:
            self._child.stdin.write(script.encode("utf-8", "surrogateescape"))
            self._child.stdin.flush()
        except (OSError, ValueError):
            raise self._lost() from None
        answer = self._read_until(f"{self._mark}.\n".encode(), timeout)
        rows, _mark, state = answer.rpartition(f"{self._mark} ".encode())
        verdict, _newline, message = state.decode("utf-8", "replace").partition("\n")
        failed, code = verdict.split()
        if failed == "true":
            raise SqlError(f"server: {message.strip() or 'error'}", code)
        return [line for line in rows.split(b"\n") if line]

    def _read_until(self, end: bytes, timeout: float | None) -> bytes:
        pieces = [self._buffer]
        stream = self._child.stdout.fileno()
        limit = None if timeout is None else time.monotonic() + timeout
        while not self._buffer.endswith(end):
            if limit is not None and not select.select([stream], [], [], max(0.0, limit - time.monotonic()))[0]:
                # Whatever comes now would be taken for the answer to the next question.
                self._child.stop(patience=1)
                raise SqlError(f"server: no answer for {timeout:.0f} s: it is paused, or its host overloaded", _LOST)
            chunk = os.read(stream, 1 << 16)
            if not chunk:
                raise self._lost()
            pieces.append(chunk)
            self._buffer = (self._buffer + chunk)[-len(end) :]
        self._buffer = b""
        return b"".join(pieces)[: -len(end)]

    def _lost(self) -> SqlError:
        try:
            words = self._child.wait(5).stderr
        except TimedOut:
            words = ""
        lines = [line for line in words.splitlines() if line.strip()]
        lost = SqlError(f"server: {' '.join(lines[:2]) or 'the connection is lost'}", _LOST)
        lost.hint = "Is the database up? If so, run this again."
        return lost

    def cancel(self) -> None:
        """Give up what runs: the session is of no use after it."""
        self._child.stop(patience=1)

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._child.stdin.close()
        with contextlib.suppress(TimedOut):
            self._child.wait(2)
        self._child.stop(patience=1)


class _Pairs(list[tuple[str, t.Any]]):
    """A JSON object with its names in order, also such as occur twice."""


def _row(line: bytes) -> Row:
    pairs = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_Pairs)
    return tuple(_plain(value) for _name, value in pairs)


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, _Pairs):
        return {name: _plain(entry) for name, entry in value}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value
