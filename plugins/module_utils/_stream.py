# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What goes by in a stream of dumped SQL: the rows of each COPY block, and commands that only psql knows."""

from __future__ import annotations

import re

from ansible_collections.mazevault.backup.plugins.module_utils._errors import Damaged


class RowCounter:
    """Counts the rows of each COPY block in a stream of SQL."""

    _NAME = rb'(?:"(?:[^"]|"")*"|[^\s".(]+)'
    # Quoted names may hold line ends, parentheses and even the words of a header.
    _HEADER = re.compile(
        rb"\nCOPY (" + _NAME + rb"(?:\." + _NAME + rb')?) (?:\((?:"(?:[^"]|"")*"|[^")])*\))? ?FROM stdin;\n'
    )
    _LONGEST_HEADER = 1 << 20
    _LONGEST_COMMENT = 4096

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], int] = {}
        self._buffer = b"\n"
        self._table: tuple[str, str] | None = None

    def feed(self, chunk: bytes | memoryview) -> None:
        self._buffer += chunk
        while self._advance():
            pass

    def _advance(self) -> bool:
        return self._in_copy(self._table) if self._table is not None else self._in_sql()

    def _in_copy(self, table: tuple[str, str]) -> bool:
        end = self._buffer.find(b"\n\\.\n")
        if end < 0:
            keep = 3
            self.rows[table] += self._buffer.count(b"\n", 0, max(0, len(self._buffer) - keep))
            self._buffer = self._buffer[-keep:]
            return False
        self.rows[table] += self._buffer.count(b"\n", 0, end)
        self._buffer = self._buffer[end + 3 :]
        self._table = None
        return True

    def _in_sql(self) -> bool:
        start = self._buffer.find(b"\n\nCOPY ") + 1
        if not start:
            self._buffer = self._buffer[-self._LONGEST_COMMENT :]
            return False
        # pg_dump writes a comment before each of them; a name or a text that holds these words has none.
        comment = self._buffer.rfind(b"\n", 0, start - 1) + 1
        if not self._buffer.startswith(b"--", comment):
            self._buffer = self._buffer[start:]
            return True
        match = self._HEADER.match(self._buffer, start)
        if match:
            self._table = _names(match.group(1))
            self.rows.setdefault(self._table, 0)
            self._buffer = self._buffer[match.end() - 1 :]
            return True
        if len(self._buffer) - start > self._LONGEST_HEADER:
            self._buffer = self._buffer[start + 1 :]
            return True
        self._buffer = self._buffer[comment:]
        return False

    def finish(self) -> None:
        """Raise Damaged when the stream ended inside a COPY block."""
        if self._table is not None:
            raise Damaged(f"the data of {'.'.join(self._table)} ends in the middle")


def _names(text: bytes) -> tuple[str, str]:
    parts = re.findall(rb'"((?:[^"]|"")*)"|([^".]+)', text)
    names = [
        (quoted.replace(b'""', b'"') if quoted else bare).decode("utf-8", "surrogateescape") for quoted, bare in parts
    ]
    return (names[0], names[1]) if len(names) > 1 else ("", names[0])


class CommandGuard:
    r"""Looks for psql's `\unrestrict` with anything but a token behind it.

    It is the one command that psql accepts in a restricted script, and there are releases that first run what stands
    there in backquotes. In the data of a COPY each backslash is doubled, so theirs is preceded by an odd number.
    """

    _COMMAND = re.compile(rb"(\\*)\\unrestrict(?! [A-Za-z0-9]{1,200}[ \t\r]*\n)")
    _CONTEXT = 512

    def __init__(self) -> None:
        self._buffer = b"\n"

    def feed(self, chunk: bytes) -> bool:
        """True when there is one in what was seen up to now; its last bytes are looked at with the next chunk."""
        begin, window = len(self._buffer) - self._CONTEXT // 2, self._buffer + chunk
        self._buffer = window[-self._CONTEXT :]
        return self._found(window, begin, len(window) - self._CONTEXT // 2)

    def finish(self) -> bool:
        return self._found(self._buffer + b"\n", len(self._buffer) - self._CONTEXT // 2, len(self._buffer))

    def _found(self, window: bytes, begin: int, end: int) -> bool:
        # A run of backslashes that fills the whole context may have any number.
        return any(
            begin < match.end() <= end and (len(match[1]) % 2 == 0 or match.start() == 0)
            for match in self._COMMAND.finditer(window)
        )
