# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the HTTP API answers."""

from __future__ import annotations

import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mazevault_standin import authority
from mazevault_standin.ratelimit import RateLimiter
from mazevault_standin.web import HttpError
from standin_process import Service, Site, run


@pytest.fixture
def api(site: Site) -> Iterator[Service]:
    with site.service("api") as service:
        yield service


def test_start_and_stop_are_prompt(site: Site) -> None:
    service = site.service("api")
    assert service.start() < 2
    assert service.request("/api/v1/secrets").status == 200
    assert service.stop() < 1
    assert service.process is not None and service.process.returncode == 0


def test_a_delayed_start_can_be_stopped(site: Site) -> None:
    service = site.service("api", MAZEVAULT_STARTUP_DELAY="20")
    service.start(healthy=False)
    time.sleep(0.7)
    assert service.status("/api/v1/health") == 0
    assert service.stop() < 1


def test_a_wrong_master_key_refuses_the_start(site: Site) -> None:
    done = site.run("api", MAZEVAULT_MASTER_KEY="another")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "wrong master key" in done.stderr
    assert "another" not in done.stderr


def test_ciphertext_without_key_check_refuses_the_start(site: Site) -> None:
    site.query("DELETE FROM key_checks")
    assert site.run("api").returncode == 3


@pytest.mark.parametrize("name", ["DATABASE_URL", "MAZEVAULT_MASTER_KEY", "MAZEVAULT_JWT_KEY"])
def test_what_must_be_set(site: Site, name: str) -> None:
    done = site.run("api", **{name: ""})
    assert done.returncode == 2
    assert name in done.stderr


def test_no_database_at_start() -> None:
    env = {"DATABASE_URL": "postgres://a@127.0.0.1:9/b", "MAZEVAULT_MASTER_KEY": "k", "MAZEVAULT_JWT_KEY": "j"}
    assert run("api", env={**env, "MAZEVAULT_DATABASE_WAIT": "0.3"}).returncode == 5


def test_a_broken_url_is_not_repeated() -> None:
    done = run("verify-audit", env={"DATABASE_URL": "postgres//user:hunter2@host/db"})
    assert done.returncode == 2
    assert "hunter2" not in done.stderr


def test_health(api: Service, site: Site) -> None:
    body = api.request("/api/v1/health", token="").data
    assert body["status"] == "healthy"
    assert body["components"] == {"database": "healthy", "redis": "not_configured", "ocsp": "not_configured"}
    database = api.request("/api/v1/health/database", token="").data
    assert database["latency_ms"] > 0
    assert database["connections"]["max"] == 100
    assert api.request("/api/v1/health/system", token="").status == 401
    system = api.request("/api/v1/health/system").data
    expected = {"total_secrets": 60, "total_certificates": 12, "active_agents": 0, "active_users": 11}
    assert system["statistics"] == expected
    assert {"status", "expires_at", "tier"} <= set(system["license"])


def test_health_of_the_neighbours(site: Site) -> None:
    with site.service("ocsp") as ocsp, site.service("api", OCSP_URL=ocsp.url) as api:
        assert api.request("/api/v1/health").data["components"]["ocsp"] == "healthy"
        ocsp.stop()
        reply = api.request("/api/v1/health")
        assert (reply.status, reply.data["components"]["ocsp"]) == (200, "unhealthy")
    lonely = site.service("api", REDIS_URL="redis://127.0.0.1:9")
    lonely.start(healthy=False)
    try:
        while not (status := lonely.status("/api/v1/health")):
            time.sleep(0.05)
        assert status == 503
        assert lonely.request("/api/v1/health").data["status"] == "unhealthy"
    finally:
        lonely.stop()


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_token_is_needed(api: Service, token: str) -> None:
    for path in ("/projects", "/secrets", "/secrets/1", "/certificates", "/audit-logs/", "/health/system"):
        reply = api.request(f"/api/v1{path}", token=token)
        assert reply.status == 401
        assert set(reply.data) == {"error", "details"}


def test_revoked_and_expired_tokens(api: Service, site: Site) -> None:
    site.query("UPDATE api_tokens SET expires_at = now() - interval '1 s' WHERE id = 1")
    assert api.status("/api/v1/secrets") == 401
    site.query("UPDATE api_tokens SET expires_at = NULL, status = 'revoked' WHERE id = 1")
    assert api.status("/api/v1/secrets") == 401


def test_pages_hold_no_values(api: Service) -> None:
    seen = []
    for offset in range(0, 70, 25):
        page = api.request(f"/api/v1/secrets?limit=25&offset={offset}").data
        assert page["total"] == 60
        seen += page["data"]
    assert [record["id"] for record in seen] == list(range(1, 61))
    columns = {"id", "project_id", "key", "environment", "status", "version", "created_at", "updated_at"}
    assert set(seen[0]) == columns
    mine = api.request("/api/v1/secrets?project_id=3&limit=1000").data
    assert {record["project_id"] for record in mine["data"]} == {3}
    assert mine["total"] == len(mine["data"]) == 10
    assert api.status("/api/v1/secrets?limit=1001") == 400
    assert len(api.request("/api/v1/projects").data["data"]) == 6


def test_every_secret_decrypts_and_each_read_is_audited(api: Service, site: Site) -> None:
    before = site.query("SELECT count(*) FROM audit_logs")[0][0]
    for secret_id in range(1, 61):
        record = api.request(f"/api/v1/secrets/{secret_id}").data
        assert 12 <= len(record["value"]) <= 2000
        assert record["status"] == "active"
        assert record["version"] >= 1
    events = site.query("SELECT action, entity_id FROM audit_logs WHERE id > %s ORDER BY id", before)
    assert events == [("secret.read", str(secret_id)) for secret_id in range(1, 61)]
    assert site.run("verify-audit").returncode == 0
    assert api.status("/api/v1/secrets/61") == 404
    assert api.status("/api/v1/nothing") == 404


def test_damaged_ciphertext(api: Service, site: Site) -> None:
    site.query("UPDATE secret_versions SET ciphertext = overlay(ciphertext PLACING '\\x00'::bytea FROM 14)")
    reply = api.request("/api/v1/secrets/5")
    assert reply.status == 500
    assert set(reply.data) == {"error", "details"}
    done = site.run("verify-secrets")
    assert (done.returncode, done.stdout.strip()) == (1, "decrypted 0, failed 60")
    site.query("DELETE FROM secret_versions")
    assert api.status("/api/v1/secrets/5") == 500


def test_writers(api: Service, site: Site) -> None:
    value = "canary-\u017elu\u0165ou\u010dk\u00fd"
    body = {"project_id": 1, "key": "new", "value": value}
    made = api.request("/api/v1/secrets", method="POST", body=body)
    assert made.status == 201
    assert made.data["id"] == 61
    assert api.request("/api/v1/secrets/61").data["value"] == value
    assert api.request("/api/v1/secrets/61", method="PUT", body={"value": value * 2}).data == {"id": 61, "version": 2}
    read = api.request("/api/v1/secrets/61").data
    assert (read["value"], read["version"]) == (value * 2, 2)
    assert api.request("/api/v1/secrets", method="POST", body=body).status == 409
    bad_values: list[object] = [{"value": ""}, {"value": "a" * 65537}, {"value": 1}, {}, [], b"{"]
    for wrong in bad_values:
        assert api.request("/api/v1/secrets/61", method="PUT", body=wrong).status == 400
    changes: list[dict[str, object]] = [{"project_id": 99}, {"key": "x", "environment": "moon"}, {"key": "k" * 300}]
    for change in changes:
        assert api.request("/api/v1/secrets", method="POST", body={**body, **change}).status == 400
    assert api.request("/api/v1/secrets/99", method="PUT", body={"value": "v"}).status == 404
    api.stop()
    assert "canary" not in api.output
    assert site.token not in api.output
    assert site.run("verify-audit").returncode == 0
    assert site.run("verify-secrets", "--all-versions").returncode == 0


def test_certificates_revocation_and_crl(api: Service) -> None:
    listed = api.request("/api/v1/certificates").data
    assert listed["total"] == 12
    assert sum(record["status"] == "revoked" for record in listed["data"]) == 2
    record = api.request("/api/v1/certificates/1").data
    certificate = x509.load_pem_x509_certificate(record["certificate_pem"].encode())
    assert f"{certificate.serial_number:x}" == record["serial_number"]
    before = x509.load_der_x509_crl(api.request("/api/v1/ca/1/crl", token="").body)
    assert before.get_revoked_certificate_by_serial_number(certificate.serial_number) is None
    assert len(before) == 2
    assert api.request("/api/v1/certificates/1/status").data["status"] == "active"
    revoke = {"path": "/api/v1/certificates/1/revoke", "method": "POST"}
    assert api.request(**revoke, body={"reason": "because"}).status == 400
    assert api.request(**revoke, body={"reason": "superseded"}).status == 200
    assert api.request(**revoke, body={}).status == 409
    status = api.request("/api/v1/certificates/1/status").data
    assert (status["status"], status["revocation_reason"]) == ("revoked", "superseded")
    after = x509.load_der_x509_crl(api.request("/api/v1/ca/1/crl").body)
    assert after.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    number = x509.CRLNumber
    assert (
        after.extensions.get_extension_for_class(number).value.crl_number
        > before.extensions.get_extension_for_class(number).value.crl_number
    )
    assert api.status("/api/v1/certificates/13") == api.status("/api/v1/ca/2/crl") == 404


def test_audit_log_is_a_bare_array(api: Service) -> None:
    page = api.request("/api/v1/audit-logs/?limit=10&offset=5").data
    assert [event["id"] for event in page] == list(range(495, 485, -1))
    assert {"user_id", "action", "entity_type", "entity_id", "severity", "details", "created_at"} < set(page[0])


def test_rate_limit(site: Site) -> None:
    with site.service("api", MAZEVAULT_RATE_LIMIT="") as api:
        first = api.request("/api/v1/projects")
        assert first.headers["X-RateLimit-Limit"] == "100"
        assert first.headers["X-RateLimit-Remaining"] == "99"
        assert [api.status("/api/v1/projects") for _try in range(99)] == [200] * 99
        late = api.request("/api/v1/projects")
        assert late.status == 429
        assert 0 < int(late.headers["Retry-After"]) <= 60
        assert api.status("/api/v1/health") == api.status("/api/v1/health/system") == 200


def test_rate_limit_windows() -> None:
    now = [0.0]
    limiter = RateLimiter(2, clock=lambda: now[0])
    for _window in range(3):
        limiter.admit(1)
        limiter.admit(1)
        with pytest.raises(HttpError):
            limiter.admit(1)
        assert limiter.admit(2)["X-RateLimit-Remaining"] == "1"
        now[0] += 60
    assert RateLimiter(0).admit(1) == {}


def test_tls(site: Site, tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    made = authority.create("Test", "localhost", now, now + timedelta(days=1), os.urandom)
    cert, key = tmp_path / "server.crt", tmp_path / "server.key"
    cert.write_text(authority.pem(made.certificate))
    key.write_bytes(made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    extra = {"MAZEVAULT_TLS_ENABLED": "true", "MAZEVAULT_TLS_CERT": str(cert), "MAZEVAULT_TLS_KEY": str(key)}
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    service = site.service("api", **extra)
    service.start(healthy=False)
    url = f"https://127.0.0.1:{service.port}/api/v1/health"
    try:
        while "listening" not in service.output:
            time.sleep(0.05)
        # A client that never shakes hands holds nobody up.
        with (
            socket.create_connection(("127.0.0.1", service.port)),
            urllib.request.urlopen(url, context=context, timeout=2) as reply,
        ):
            assert reply.status == 200
    finally:
        assert service.stop() < 1
