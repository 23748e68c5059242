# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can't work is told in one line, and nothing is touched."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.site import POSTGRES, Site
from support.plays import Play

NAME = "mv-site-b"
LABELS = (
    "--label com.docker.compose.project=other --label com.docker.compose.container-number=1"
    " --label com.docker.compose.service="
)


@pytest.fixture(scope="module")
def target(site: Callable[[str], Site]) -> Iterator[Site]:
    found = site(NAME)
    found.tidy()
    yield found
    found.tidy()


@contextmanager
def as_it_is(_site: Site) -> Iterator[None]:
    yield


@contextmanager
def database_stopped(site: Site) -> Iterator[None]:
    site.shell(f"docker stop {POSTGRES}")
    try:
        yield
    finally:
        site.shell(f"docker start {POSTGRES}")
        site.wait_healthy()


@contextmanager
def two_projects(site: Site) -> Iterator[None]:
    site.shell(
        f"docker create --name other-postgres-1 {LABELS}postgres mazevault-lab/postgres:15;"
        f" docker create --name other-backend-1 {LABELS}backend mazevault-lab/mazevault-backend:1.0.17"
    )
    try:
        yield
    finally:
        site.shell("docker rm --force --volumes other-postgres-1 other-backend-1")


CASES: dict[str, tuple[t.Callable[[Site], t.ContextManager[None]], dict[str, t.Any], str]] = {
    "another project": (as_it_is, {"mazevault_project": "elsewhere"}, "mazevault_project"),
    "nonsense for a service": (
        as_it_is,
        {"mazevault_services": {"postgres": "nonsense"}},
        "mazevault_services.postgres",
    ),
    "nonsense for a role": (as_it_is, {"mazevault_services": {"nonsense": "postgres"}}, "mazevault_services takes"),
    "two projects": (two_projects, {}, "mazevault_project"),
    "the database is stopped": (database_stopped, {}, f"docker start {POSTGRES}"),
    "no room below the limit": (as_it_is, {"mazevault_backup_root_limit": "1K"}, "mazevault_backup_root_limit"),
}

# Without the root's own notes: what was done, and which keys were seen.
FILES = "find /opt/mazevault/backups -type f ! -name '*.lock' ! -name ledger.jsonl ! -name generations.json"


@pytest.mark.parametrize("name", CASES)
def test_one_clear_line(target: Site, name: str, record_property: t.Any) -> None:
    around, extra, hint = CASES[name]
    with around(target):
        before = target.stack_state()
        backups = target.shell(FILES)
        done: Play = target.play("backup", **extra)
        assert target.stack_state() == before
        assert target.shell(FILES) == backups
    assert done.rc == 2, done.output
    said = done.failures[-1].msg
    record_property("said", said)
    assert hint in said
    assert "\n" not in said
    assert not done.changed
    assert target.leftovers() == []
