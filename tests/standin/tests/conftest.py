# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway servers and seeded databases."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from standin_process import Site
from support import servers

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=servers.installations(), ids=str)
def postgres(request: pytest.FixtureRequest) -> Iterator[servers.PgServer]:
    """One server of each version on this machine."""
    with servers.PgServer(request.param) as server:
        yield server


@pytest.fixture
def admin(postgres: servers.PgServer) -> Callable[[str], object]:
    """Runs one statement from the maintenance database."""
    return lambda statement: postgres.query(statement, dbname="postgres")


@pytest.fixture
def empty_site(postgres: servers.PgServer, admin: Callable[[str], object], tmp_path: Path) -> Iterator[Site]:
    name = f"mazevault_{next(_numbers)}"
    admin(f"CREATE DATABASE {name}")
    yield Site(f"postgres://{postgres.superuser}@{postgres.host}:{postgres.port}/{name}?sslmode=disable", tmp_path)
    admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def site(empty_site: Site) -> Site:
    """A seeded database, size small."""
    token_file = empty_site.directory / "token"
    done = empty_site.run("seed", "--token-file", str(token_file))
    assert done.returncode == 0, done.stderr
    return dataclasses.replace(empty_site, token=token_file.read_text().strip())
