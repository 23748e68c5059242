# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API while its database goes away, comes back, or is another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from standin_process import Service, Site
from support import servers

PATHS = ("/api/v1/secrets", "/api/v1/secrets/1", "/api/v1/audit-logs/", "/api/v1/ca/1/crl", "/api/v1/health")
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s' AND pid <> pg_backend_pid()"


def name_of(site: Site) -> str:
    return site.url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def api(site: Site) -> Iterator[Service]:
    with site.service("api") as service:
        yield service


def statuses(api: Service) -> set[int]:
    return {api.status(path) for path in PATHS}


def test_ended_sessions(api: Service, site: Site, admin: Callable[[str], object]) -> None:
    for _try in range(3):
        assert statuses(api) == {200}
        admin(END % name_of(site))
    assert statuses(api) == {200}


def test_renamed_away_and_back(api: Service, site: Site, admin: Callable[[str], object]) -> None:
    name = name_of(site)
    assert statuses(api) == {200}
    admin(END % name)
    admin(f"ALTER DATABASE {name} RENAME TO {name}_aside")
    try:
        assert statuses(api) == {503}
        assert set(api.request("/api/v1/secrets").data) == {"error", "details"}
        assert api.request("/api/v1/health").data["components"]["database"] == "unhealthy"
        assert api.status("/api/v1/health/database") == 503
    finally:
        admin(f"ALTER DATABASE {name}_aside RENAME TO {name}")
    assert statuses(api) == {200}


def test_replaced_by_another(api: Service, site: Site, admin: Callable[[str], object]) -> None:
    name = name_of(site)
    made = api.request("/api/v1/secrets", method="POST", body={"project_id": 1, "key": "late", "value": "v"})
    assert made.status == 201
    admin(END % name)
    admin(f"ALTER DATABASE {name} RENAME TO {name}_before")
    admin(f"CREATE DATABASE {name}")
    try:
        # Empty: there is no table to ask.
        assert api.status("/api/v1/secrets") == 503
        assert site.run("seed", "--token-file", str(site.directory / "token2")).returncode == 0
        token = (site.directory / "token2").read_text().strip()
        assert api.status("/api/v1/secrets") == 401
        assert api.request("/api/v1/secrets/1", token=token).status == 200
        assert api.request("/api/v1/secrets/61", token=token).status == 404
    finally:
        admin(f"DROP DATABASE {name}_before WITH (FORCE)")


def test_server_restart(site: Site, postgres: servers.PgServer) -> None:
    with site.service("api") as api, site.service("ocsp") as ocsp:
        postgres.stop()
        assert statuses(api) == {503}
        assert (ocsp.status("/live"), ocsp.status("/ready"), ocsp.status("/health")) == (200, 503, 503)
        postgres.start()
        assert statuses(api) == {200}
        assert ocsp.status("/ready") == 200


def test_waits_for_the_database_at_start(site: Site, admin: Callable[[str], object]) -> None:
    name = name_of(site)
    admin(f"ALTER DATABASE {name} RENAME TO {name}_aside")
    api = site.service("api")
    api.start(healthy=False)
    time.sleep(0.7)
    assert api.status("/api/v1/health") == 0
    admin(f"ALTER DATABASE {name}_aside RENAME TO {name}")
    while api.status("/api/v1/health") != 200:
        time.sleep(0.05)
    assert api.stop() < 1


def test_acknowledged_writes_survive_ended_sessions(api: Service, site: Site, admin: Callable[[str], object]) -> None:
    def write(number: int) -> int | None:
        body = {"project_id": 1, "key": f"written-{number}", "value": f"value {number}"}
        reply = api.request("/api/v1/secrets", method="POST", body=body)
        assert reply.status in (201, 503)
        return int(reply.data["id"]) if reply.status == 201 else None

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write, number) for number in range(120)]
        for _try in range(5):
            time.sleep(0.1)
            admin(END % name_of(site))
        acknowledged = {number: write.result() for number, write in enumerate(writes)}
    kept = {number: secret for number, secret in acknowledged.items() if secret is not None}
    assert len(kept) > 20
    for number, secret in kept.items():
        assert api.request(f"/api/v1/secrets/{secret}").data["value"] == f"value {number}"
    assert site.run("verify-audit").returncode == 0


def test_nothing_secret_is_printed(api: Service, site: Site) -> None:
    value = api.request("/api/v1/secrets/1").data["value"]
    site.query("ALTER TABLE audit_logs RENAME TO hidden")
    assert api.status("/api/v1/secrets/1") == 503
    api.stop()
    assert "/api/v1/secrets/1 503" in api.output
    for canary in (value, site.token, site.master_key):
        assert canary not in api.output
