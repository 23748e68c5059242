# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What backups need of a host's programs: which ones, how old they may be, what their own word on it means. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

# A number with a point in it, so that "64-bit" is none.
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+)+")
Version = tuple[int, ...]


@dataclass(frozen=True)
class Requirement:
    """One program.

    Attributes:
        ask: the argument that makes it say its version.
        makers: words of that answer's first line that tell the wanted program from namesakes; empty: any.
        least: the oldest version that will do.
        package: where it comes from.
    """

    name: str
    ask: str = "--version"
    makers: tuple[str, ...] = ()
    least: Version = ()
    package: str = ""


_ALWAYS = (
    Requirement("openssl", "version", ("OpenSSL",), (3, 0), "openssl"),
    Requirement("zstd", makers=("zstandard", "zstd"), package="zstd"),
    Requirement("tar", makers=("GNU tar",), least=(1, 29), package="tar"),
)
_AGE = (Requirement("age", package="age"), Requirement("age-keygen", package="age"))
_CLIENT = tuple(
    Requirement(name, makers=("PostgreSQL",), package="the PostgreSQL client package of the server's version")
    for name in ("pg_dump", "pg_restore", "psql")
)
_SERVER = tuple(
    Requirement(name, makers=("PostgreSQL",), package="the PostgreSQL server package, for proofs by a real restore")
    for name in ("initdb", "postgres")
)


def required(*, encryption: str, runtime: str) -> tuple[Requirement, ...]:
    """Programs that the host itself has to have; beside a container PostgreSQL's come out of its image."""
    return (*_ALWAYS, *(_AGE if encryption == "age" else ()), *((*_CLIENT, *_SERVER) if runtime == "host" else ()))


def version_of(answer: str) -> str:
    """The version in a program's first line, empty where there is none."""
    found = _VERSION.search(_first_line(answer))
    return found[0] if found else ""


def problem(need: Requirement, answer: str | None) -> str:
    """What is wrong with a program, empty where nothing is.

    Args:
        answer: what it said when it was asked for its version; None where it isn't there.
    """
    if answer is None:
        return f"{need.name}: not there. Install {need.package}."
    line = _first_line(answer)
    if need.makers and not any(maker.lower() in line.lower() for maker in need.makers):
        return f"{need.name}: is another program ({line[:60] or 'it says nothing'}). Install {need.package}."
    version = version_of(answer)
    if need.least and version and _numbers(version) < need.least:
        wanted = ".".join(map(str, need.least))
        return f"{need.name}: {version} is older than {wanted}. Install a newer {need.package}."
    return ""


def _first_line(answer: str) -> str:
    return next((line.strip() for line in answer.splitlines() if line.strip()), "")


def _numbers(version: str) -> Version:
    return tuple(int(number) for number in version.split("."))


def words_of(system: t.Iterable[str]) -> str:
    """The name by which a system calls itself, from the lines of its `os-release`; empty where it doesn't."""
    found = {key: value.strip().strip("\"'") for key, _equals, value in (line.partition("=") for line in system)}
    return found.get("PRETTY_NAME") or found.get("NAME") or ""
