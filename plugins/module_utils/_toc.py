# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The table of contents of a dump, as `pg_restore --list` prints it. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class TocEntry:
    """One line of `pg_restore --list`."""

    line: str
    tag: str
    name: str


_TOC_LINE = re.compile(r"^(\d+); (\d+) (\d+) (.*)$")
_TAGS = (
    "ACCESS METHOD", "ACL", "AGGREGATE", "ATTRDEF", "BLOB", "BLOB COMMENTS", "BLOB METADATA", "BLOBS", "CAST",
    "CHECK CONSTRAINT", "COLLATION", "COMMENT", "CONSTRAINT", "CONVERSION", "DATABASE", "DATABASE PROPERTIES",
    "DEFAULT", "DEFAULT ACL", "DOMAIN", "EVENT TRIGGER", "EXTENSION", "FK CONSTRAINT", "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE", "FUNCTION", "INDEX", "INDEX ATTACH", "LARGE OBJECT", "MATERIALIZED VIEW", "MATERIALIZED VIEW DATA",
    "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY", "PROCEDURE", "PROCEDURAL LANGUAGE", "PUBLICATION",
    "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "ROW SECURITY", "RULE", "SCHEMA", "SECURITY LABEL", "SEQUENCE",
    "SEQUENCE OWNED BY", "SEQUENCE SET", "SERVER", "SHELL TYPE", "STATISTICS", "STATISTICS DATA", "SUBSCRIPTION",
    "SUBSCRIPTION TABLE", "TABLE", "TABLE ATTACH", "TABLE DATA", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM", "TRIGGER", "TYPE", "USER MAPPING", "VIEW",
)  # fmt: skip
_BY_LENGTH = sorted(_TAGS, key=len, reverse=True)


def parse_toc(text: str) -> list[TocEntry]:
    """The entries of `pg_restore --list`; comments are left out."""
    entries = []
    for line in text.splitlines():
        match = _TOC_LINE.match(line)
        if not match:
            continue
        rest = match.group(4)
        tag = next((word for word in _BY_LENGTH if rest.startswith(word + " ")), rest.split(" ", 1)[0])
        entries.append(TocEntry(line, tag, rest[len(tag) :].strip()))
    return entries


def dumped_by(text: str) -> tuple[int, int]:
    """(server major, pg_dump major) from the heading of `pg_restore --list`; 0 where it doesn't say."""

    def major(label: str) -> int:
        match = re.search(rf"^;\s+Dumped {label} version: (\d+)", text, re.MULTILINE)
        return int(match.group(1)) if match else 0

    return major("from database"), major("by pg_dump")
