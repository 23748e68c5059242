# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an application says its database is; never its password, and nothing where it could be read in two ways."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._address import Address, address_in

SHIPPED = Address("postgres", "5432", "mazevault", "mazevault", "DATABASE_URL")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("postgres://mazevault:canary@postgres:5432/mazevault?sslmode=disable", ("postgres", "5432", "mazevault")),
        ("postgresql+asyncpg://u:canary@db/vault", ("db", "5432", "vault")),
        ("pgx5://u:canary%40x%2Fy@10.1.2.3:6432/vault", ("10.1.2.3", "6432", "vault")),
        ("postgres://u:can@ary@db/vault", ("db", "5432", "vault")),
        ("postgres://u:canary@[fd00::1]:5433/vault", ("[fd00::1]", "5433", "vault")),
        ("postgres://u:canary@a:5432,b:5433/vault", ("a,b", "5432", "vault")),
        ("postgres:///vault?host=/run/postgresql&user=u", ("/run/postgresql", "5432", "vault")),
        ("postgres://db", ("db", "5432", "")),
        ("host=db port=6432 dbname=vault user=u password='can ary\\' host=x'", ("db", "6432", "vault")),
        ("password=canary host = db", ("db", "5432", "")),
    ],
)
def test_addresses(value: str, place: tuple[str, str, str]) -> None:
    found = address_in({"DATABASE_URL": value})
    assert found and (found.host, found.port, found.database) == place
    assert "canary" not in repr(found) + str(found)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "postgres",
        "postgres://",
        "postgres://u:can/ary@db/vault",
        "postgres://u:can?ary@db/vault",
        "postgres://u:can#ary@db/vault",
        "postgres://u:p@canary/x@db/vault",
        "postgres://u:canary/vault",
        "postgres://u:canary@${HOST}/vault",
        "postgres://u:canary@db:port/vault",
        "host=db password=can ary",
        "host=db password=can host=ary",
        "dbname=vault password=canary",
    ],
)
def test_what_is_not_certain_is_no_address(value: str) -> None:
    assert address_in({"DATABASE_URL": value}) is None


def test_which_variable_counts() -> None:
    whole = "postgres://mazevault:canary@postgres:5432/mazevault"
    assert address_in({"DB_HOST": "other", "DB_CONNECTION": "host=third", "DATABASE_URL": whole}) == SHIPPED
    assert address_in({"DATABASE_URL": "unreadable", "DB_CONNECTION": "host=third"}) == (
        Address("third", "5432", "", "", "DB_CONNECTION")
    )
    apart = {"DB_HOST": "db", "DB_PORT": "6432", "DB_NAME": "vault", "DB_USER": "u", "DB_PASSWORD": "canary"}
    assert address_in(apart) == Address("db", "6432", "vault", "u", "DB_HOST")
    assert address_in({"PGHOST": "db"}) == Address("db", "5432", "", "", "PGHOST")
    assert address_in({}) is None


def test_the_host_itself() -> None:
    here = address_in({"PGHOST": "host.docker.internal"})
    there = address_in({"PGHOST": "db.bank.example"})
    assert here and here.this_host and there and not there.this_host


secrets = st.text(min_size=1).map(lambda text: f"canary{text}")


@given(secrets)
def test_no_password_is_taken_for_anything_else(secret: str) -> None:
    """However it is written: as it should be, or as people write it."""
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    for value in (
        f"postgres://mazevault:{quote(secret, safe='')}@postgres:5432/mazevault",
        f"postgres://mazevault:{secret}@postgres:5432/mazevault",
        f"host=postgres dbname=mazevault user=mazevault password='{escaped}'",
        f"host=postgres dbname=mazevault user=mazevault password={secret}",
    ):
        found = address_in({"DATABASE_URL": value})
        assert found is None or found == SHIPPED
    assert address_in({"DATABASE_URL": f"postgres://mazevault:{quote(secret, safe='')}@postgres/mazevault"}) == SHIPPED
