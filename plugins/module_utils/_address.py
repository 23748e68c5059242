# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Where an application says its database is, without the password beside it, no I/O.

What can be read in two ways isn't read at all: a piece of a password must not be taken for a host.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?")
_WORD = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']\S*|)(?:\s+|\Z)")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\]|/[\w./-]+")
_NAME = re.compile(r"[\w.$ -]+")
# Names of (host, port, database, user) where they are apart.
_APART = (
    ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER"),
    ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER"),
    ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"),
)
_WHOLE = ("DATABASE_URL", "DB_CONNECTION")
# Names of the host that a container runs on.
_THIS_HOST = ("localhost", "127.0.0.1", "[::1]", "host.docker.internal", "host.containers.internal", "172.17.0.1")
DEFAULT_PORT = "5432"


@dataclass(frozen=True)
class Address:
    """Attributes:
    host: name or address; several with commas between.
    said_by: the variable that says it.
    """

    host: str
    port: str
    database: str
    user: str
    said_by: str

    @property
    def this_host(self) -> bool:
        """Whether it is the host that the container runs on."""
        return self.host in _THIS_HOST

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address_in(environment: t.Mapping[str, str]) -> Address | None:
    """The database's address in the variables of an application; None where they don't tell it for certain."""
    for name in _WHOLE:
        value = environment.get(name, "").strip()
        found = _of_url(value, name) or _of_words(value, name)
        if found:
            return found
    for names in _APART:
        host, port, database, user = (environment.get(name, "") for name in names)
        found = _checked(host, port, database, user, names[0])
        if found:
            return found
    return None


def _of_url(value: str, said_by: str) -> Address | None:
    found = _URL.fullmatch(value)
    # A sign that ends an account's part, further on: perhaps all before it is a password.
    if not found or "@" in f"{found[2] or ''}{found[3] or ''}":
        return None
    account, _at, place = found[1].rpartition("@")
    asked = parse_qs(found[3] or "")
    pieces = [re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d{0,5}))?", piece) for piece in place.split(",")]
    if not all(pieces):
        return None
    hosts = ",".join(piece[1] for piece in pieces if piece) or asked.get("host", [""])[0]
    port = (pieces[0][2] if pieces[0] else "") or asked.get("port", [""])[0]
    database = unquote((found[2] or "/")[1:]) or asked.get("dbname", [""])[0]
    return _checked(hosts, port, database, unquote(account.partition(":")[0]), said_by)


def _of_words(value: str, said_by: str) -> Address | None:
    """`host=postgres port=5432 dbname=mazevault user=mazevault password='...'`."""
    said, position = {}, 0
    while position < len(value):
        found = _WORD.match(value, position)
        # A word that comes twice: the second one may be the rest of a password.
        if not found or found[1] in said:
            return None
        said[found[1]] = re.sub(r"\\(.)", r"\1", found[2][1:-1]) if found[2].startswith("'") else found[2]
        position = found.end()
    return _checked(said.get("host", ""), said.get("port", ""), said.get("dbname", ""), said.get("user", ""), said_by)


def _checked(hosts: str, port: str, database: str, user: str, said_by: str) -> Address | None:
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")) or not re.fullmatch(r"\d{0,5}", port):
        return None
    database, user = (name if _NAME.fullmatch(name) else "" for name in (database, user))
    return Address(hosts, port or DEFAULT_PORT, database, user, said_by)
