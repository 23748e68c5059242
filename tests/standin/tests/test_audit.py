# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain in the database."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from mazevault_standin import audit
from standin_process import Site


def test_definition_of_the_hash() -> None:
    event = ("2026-01-01T00:00:00.000000Z", 1, "secret.read", "secret", "7", "info", "{}")
    expected = hashlib.sha256((audit.GENESIS + json.dumps(list(event))).encode()).hexdigest()
    assert audit.chain_hash(audit.GENESIS, *event) == expected


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit_logs SET severity = CASE severity WHEN 'info' THEN 'warning' ELSE 'info' END WHERE id = 250",
        "UPDATE audit_logs SET details = '{}' WHERE id = 250",
        "UPDATE audit_logs SET created_at = created_at + interval '1 microsecond' WHERE id = 250",
        "UPDATE audit_logs SET user_id = NULL WHERE id = 250",
        "UPDATE audit_logs SET chain_hash = repeat('0', 64) WHERE id = 250",
        "UPDATE audit_logs SET id = 250000 WHERE id = 250",
    ],
)
def test_a_changed_event_breaks_the_chain(site: Site, damage: str) -> None:
    assert "intact: 500 events" in site.run("verify-audit").stdout
    site.query(damage)
    done = site.run("verify-audit")
    assert done.returncode == 1
    assert "after 249 good events" in done.stderr


def test_a_missing_event_breaks_the_chain(site: Site) -> None:
    site.query("DELETE FROM audit_logs WHERE id = 250")
    assert "broken at event 251" in site.run("verify-audit").stderr


def test_concurrent_events_stay_one_chain(site: Site) -> None:
    with site.service("api") as api, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(api.status, [f"/api/v1/secrets/{1 + n % 60}" for n in range(200)]))
    assert found == [200] * 200
    assert "intact: 700 events" in site.run("verify-audit").stdout
