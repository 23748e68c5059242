# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations and what they leave."""

from __future__ import annotations

import psycopg2
import pytest

from standin_process import Site


def test_migrations_run_once_and_in_order(empty_site: Site) -> None:
    assert empty_site.run("migrate", MAZEVAULT_RELEASE_SCHEMA="2").stdout.strip() == "migrations run: [1, 2]"
    assert empty_site.query("SELECT version, dirty FROM schema_migrations") == [(2, False)]
    assert empty_site.run("migrate").stdout.strip() == "migrations run: [3, 4]"
    assert empty_site.run("migrate").stdout.strip() == "migrations run: none"
    assert empty_site.query("SELECT version, dirty FROM schema_migrations") == [(4, False)]


def test_an_older_release_refuses_a_newer_schema(site: Site) -> None:
    done = site.run("api", MAZEVAULT_RELEASE_SCHEMA="3")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "no migration found for version 4" in done.stderr


def test_a_release_migrates_an_older_schema_at_start(empty_site: Site) -> None:
    empty_site.run("migrate", MAZEVAULT_RELEASE_SCHEMA="3")
    refused = empty_site.run("api", RUN_MIGRATIONS="false")
    assert refused.returncode == 4
    assert "schema version is 3" in refused.stderr
    with empty_site.service("api"):
        assert empty_site.query("SELECT version, dirty FROM schema_migrations") == [(4, False)]


def test_dirty_refuses_the_start(site: Site) -> None:
    site.query("UPDATE schema_migrations SET dirty = true")
    for migrations in ("true", "false"):
        done = site.run("api", RUN_MIGRATIONS=migrations)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        assert "dirty" in done.stderr


def test_a_failed_migration_leaves_the_flag(empty_site: Site) -> None:
    empty_site.run("migrate", MAZEVAULT_RELEASE_SCHEMA="3")
    empty_site.query("CREATE TABLE audit_logs (id int)")
    assert empty_site.run("migrate").returncode == 4
    assert empty_site.query("SELECT version, dirty FROM schema_migrations") == [(4, True)]


def test_kinds_of_objects(site: Site) -> None:
    kinds = dict(
        site.query(
            "SELECT relkind::text, count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace GROUP BY relkind"
        )
    )
    assert (kinds["r"], kinds["v"], kinds["S"]) == (13, 1, 10)
    assert site.query("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(4,)]
    assert site.query("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == [(12,)]


def test_checks_and_trigger(site: Site) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        site.query("UPDATE secrets SET status = 'lost' WHERE id = 1")
    before = site.query("SELECT updated_at FROM secrets WHERE id = 1")
    site.query("UPDATE secrets SET status = 'archived' WHERE id = 1")
    assert site.query("SELECT updated_at FROM secrets WHERE id = 1") > before
