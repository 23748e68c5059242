# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with hardly a connection left, with tiny timeouts, or amid migrations is backed up all the same."""

from __future__ import annotations

import subprocess
import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab import hosts
from lab.site import Site

NAME = "mv-site-b"
# Takes every connection but so many, as the stack's own role, and holds them until its input ends.
_HOLDER = r"""
import os, sys, psycopg2
held = []
try:
    while True:
        held.append(psycopg2.connect(os.environ["DATABASE_URL"]))
except psycopg2.OperationalError:
    pass
for _ in range(int(sys.argv[1])):
    held.pop().close()
print("held", len(held), flush=True)
sys.stdin.read()
"""
# Changes tables as the stack's own role until its input ends.
_MIGRATIONS = r"""
import os, select, sys, psycopg2
session = psycopg2.connect(os.environ["DATABASE_URL"])
session.autocommit = True
cursor, rounds = session.cursor(), 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    cursor.execute("ALTER TABLE secrets ADD COLUMN extra text")
    cursor.execute("ALTER TABLE secrets DROP COLUMN extra")
    rounds += 1
    if rounds == 1:
        print("begun", flush=True)
print(rounds, flush=True)
"""
TINY = ("statement_timeout = '20ms'", "idle_in_transaction_session_timeout = '20ms'", "lock_timeout = '1ms'")


@pytest.fixture(scope="module")
def target(site: Callable[[str], Site]) -> Iterator[Site]:
    found = site(NAME)
    found.tidy()
    yield found
    found.tidy()


@contextmanager
def beside(site: Site, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a container of the host, until its input ends."""
    command = [
        "docker",
        "exec",
        "--interactive",
        hosts.container(site.place, site.host),
        "docker",
        "exec",
        "--interactive",
    ]
    with subprocess.Popen([*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.stdin.close()


@contextmanager
def tiny_timeouts(site: Site) -> Iterator[None]:
    """For everybody, for the stack's role, and for its database."""
    for setting in TINY:
        site.sql(f"ALTER ROLE mazevault SET {setting}; ALTER DATABASE mazevault SET {setting}")
        site.sql(f"ALTER SYSTEM SET {setting}")
    site.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        calm = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;"
        site.sql(f"{calm} ALTER ROLE mazevault RESET ALL; ALTER DATABASE mazevault RESET ALL")
        site.sql(f"{calm} ALTER SYSTEM RESET ALL")
        site.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("free", [8, 1])
def test_hardly_a_connection_left_and_no_time(target: Site, free: int, record_property: t.Any) -> None:
    former = target.sets()
    with tiny_timeouts(target), beside(target, "mazevault-backend-1", "python3", "-c", _HOLDER, str(free)):
        done = target.play("backup")
    said = done.failures[-1].msg if done.failures else "published"
    record_property(f"{free} free", said)
    new = set(target.sets()) - set(former)
    if free > 1:
        assert (done.rc, len(new)) == (0, 1), done.output
    elif done.rc:
        assert "too many" in said or "connection" in said
        assert not new
    assert all(target.sets().values())
    assert target.leftovers() == []


def test_migrations_that_never_end(target: Site, record_property: t.Any) -> None:
    former = target.sets()
    with beside(target, "mazevault-backend-1", "python3", "-c", _MIGRATIONS) as migrations:
        done = target.play("backup")
        assert migrations.poll() is None, "they went on all the time"
    said = done.failures[-1].msg if done.failures else "published"
    record_property("migrations", said)
    new = set(target.sets()) - set(former)
    assert len(new) == (1 if done.rc == 0 else 0), done.output
    if done.rc:
        assert "lock" in said
    assert all(target.sets().values())
    assert target.leftovers() == []
