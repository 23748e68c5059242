# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data generator."""

from __future__ import annotations

import hashlib
import json
import stat

import pytest
from cryptography import x509

from mazevault_standin.errors import UsageError
from mazevault_standin.seed import Plan
from standin_process import Site

# Not the seed's: the token is random, and so is the key check's nonce.
TABLES = (
    "projects",
    "users",
    "secrets",
    "secret_versions",
    "certificates",
    "certificate_authorities",
    "audit_logs",
)


def digests(site: Site) -> dict[str, str]:
    return {
        table: site.query(f"SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM {table} p")[0][0] for table in TABLES
    }


def test_small(site: Site) -> None:
    names = ("organisations", "projects", "secrets", "certificates", "certificate_authorities", "audit_logs")
    counts = [site.query(f"SELECT count(*) FROM {name}")[0][0] for name in names]
    assert counts == [2, 6, 60, 12, 1, 500]
    assert site.query("SELECT count(DISTINCT current_version), max(current_version) FROM secrets") == [(4, 4)]
    done = site.run("verify-secrets", "--all-versions")
    assert done.returncode == 0, done.stderr
    size = site.query(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert 300_000 < size[0][0] < 2_500_000


def test_token(site: Site) -> None:
    path = site.directory / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stored = site.query("SELECT token_sha256 FROM api_tokens WHERE id = 1")[0][0]
    assert bytes(stored) == hashlib.sha256(site.token.encode()).digest()


def test_the_same_seed_gives_the_same_rows(site: Site) -> None:
    first = digests(site)
    for seed, same in (("1", True), ("2", False)):
        site.query("DROP SCHEMA public CASCADE")
        site.query("CREATE SCHEMA public")
        assert site.run("seed", "--seed", seed, "--token-file", str(site.directory / "t")).returncode == 0
        assert (digests(site) == first) is same


def test_sequences_go_on(site: Site) -> None:
    for table, last in (("secrets", 60), ("audit_logs", 500), ("users", 12)):
        assert site.query(f"SELECT nextval(pg_get_serial_sequence('{table}', 'id'))") == [(last + 1,)]


def test_only_into_an_empty_database(site: Site) -> None:
    done = site.run("seed", "--token-file", str(site.directory / "again"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (site.directory / "again").exists()


def test_larger(empty_site: Site) -> None:
    token_file = str(empty_site.directory / "t")
    done = empty_site.run("seed", "--size", "20MB", "--token-file", token_file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    tables = ("audit_logs", "secret_versions", "certificates")
    sizes = [empty_site.query(f"SELECT pg_total_relation_size('{table}')")[0][0] / 20e6 for table in tables]
    assert sizes == pytest.approx([0.6, 0.3, 0.1], abs=0.05)
    assert empty_site.run("verify-secrets").stdout.strip() == f"decrypted {rows['secrets']}, failed 0"
    assert empty_site.run("verify-audit").returncode == 0
    ca, leaf = (
        x509.load_pem_x509_certificate(empty_site.query(f"SELECT certificate_pem FROM {table} LIMIT 1")[0][0].encode())
        for table in ("certificate_authorities", "certificates")
    )
    leaf.verify_directly_issued_by(ca)


@pytest.mark.parametrize("size", ["", "2 GB", "2TB", "-1MB", "large"])
def test_sizes_it_does_not_know(size: str) -> None:
    with pytest.raises(UsageError):
        Plan.of(size)
