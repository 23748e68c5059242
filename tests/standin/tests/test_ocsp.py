# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCSP responder, asked by openssl."""

from __future__ import annotations

import base64
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from standin_process import Service, Site


@pytest.fixture
def responder(site: Site) -> Iterator[Service]:
    with site.service("ocsp") as service:
        yield service


def pem_files(site: Site, certificate_id: int) -> tuple[Path, Path]:
    issuer, leaf = site.directory / "ca.pem", site.directory / "leaf.pem"
    issuer.write_text(site.query("SELECT certificate_pem FROM certificate_authorities")[0][0])
    leaf.write_text(site.query("SELECT certificate_pem FROM certificates WHERE id = %s", certificate_id)[0][0])
    return issuer, leaf


def openssl(site: Site, responder: Service, certificate_id: int, *options: str) -> subprocess.CompletedProcess[str]:
    issuer, leaf = pem_files(site, certificate_id)
    argv: list[str | Path] = [
        "openssl",
        "ocsp",
        "-issuer",
        issuer,
        *options,
        "-cert",
        leaf,
        "-url",
        responder.url,
        "-CAfile",
        issuer,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("options", [(), ("-sha256",), ("-no_nonce",)], ids=str)
@pytest.mark.parametrize(("certificate_id", "status"), [(1, "good"), (6, "revoked")])
def test_openssl_accepts(
    site: Site, responder: Service, certificate_id: int, status: str, options: tuple[str, ...]
) -> None:
    done = openssl(site, responder, certificate_id, *options)
    assert done.returncode == 0, done.stderr
    assert "Response verify OK" in done.stderr
    assert f"leaf.pem: {status}" in done.stdout
    assert ("keyCompromise" in done.stdout) == (status == "revoked")
    assert "WARNING" not in done.stderr


def test_openssl_verifies_the_certificate(site: Site) -> None:
    issuer, leaf = pem_files(site, 2)
    subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", issuer, leaf], check=True, capture_output=True)


def test_a_revocation_is_seen_at_once(site: Site, responder: Service) -> None:
    assert "good" in openssl(site, responder, 3).stdout
    with site.service("api") as api:
        assert api.request("/api/v1/certificates/3/revoke", method="POST", body={}).status == 200
    assert "revoked" in openssl(site, responder, 3).stdout


def test_get(site: Site, responder: Service) -> None:
    issuer, leaf = (x509.load_pem_x509_certificate(path.read_bytes()) for path in pem_files(site, 1))
    request = (
        ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256()).build().public_bytes(Encoding.DER)
    )
    reply = responder.request("/" + urllib.parse.quote(base64.b64encode(request).decode(), safe=""))
    assert reply.headers["Content-Type"] == "application/ocsp-response"
    answer = ocsp.load_der_ocsp_response(reply.body)
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD


def test_what_it_does_not_know(site: Site, responder: Service) -> None:
    site.query("DELETE FROM certificates WHERE id = 1 RETURNING certificate_pem")
    issuer, leaf = (x509.load_pem_x509_certificate(path.read_bytes()) for path in pem_files(site, 2))
    other = ocsp.OCSPRequestBuilder().add_certificate_by_hash(b"a" * 20, b"b" * 20, 7, hashes.SHA1()).build()
    mine = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()
    for body, status in (
        (other.public_bytes(Encoding.DER), ocsp.OCSPResponseStatus.UNAUTHORIZED),
        (b"garbage", ocsp.OCSPResponseStatus.MALFORMED_REQUEST),
        (mine.public_bytes(Encoding.DER), ocsp.OCSPResponseStatus.SUCCESSFUL),
    ):
        reply = responder.request("/", method="POST", body=body)
        assert ocsp.load_der_ocsp_response(reply.body).response_status is status
    assert responder.status("/unknown") == 404


def test_probes(responder: Service) -> None:
    assert (responder.status("/live"), responder.status("/ready")) == (200, 200)
    health = responder.request("/health").data
    assert health["components"] == {"database": "connected", "signing_key": "loaded", "ca_certificates": 1}


def test_not_ready_with_a_wrong_master_key(site: Site) -> None:
    with site.service("ocsp", MAZEVAULT_MASTER_KEY="another") as responder:
        assert (responder.status("/live"), responder.status("/ready")) == (200, 503)
        health = responder.request("/health").data
        assert health["components"] == {"database": "connected", "signing_key": "not loaded", "ca_certificates": 0}
        assert openssl(site, responder, 1).returncode != 0


def test_without_a_database(empty_site: Site) -> None:
    with empty_site.service("ocsp", DATABASE_URL="", DB_CONNECTION="postgres://a@127.0.0.1:9/b") as responder:
        assert (responder.status("/live"), responder.status("/ready")) == (200, 503)
        assert responder.request("/health").data["components"]["database"] == "disconnected"


def test_start_and_stop_are_prompt(site: Site) -> None:
    service = site.service("ocsp")
    assert service.start() < 2
    assert service.status("/ready") == 200
    assert service.stop() < 1
