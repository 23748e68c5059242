# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test data by COPY: the same for the same seed and master key, of any size."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import re
import secrets
import typing as t
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from psycopg2.extensions import cursor as Cursor

from . import audit, authority, config, migrate
from .authority import Authority
from .crypto import Keyring
from .database import Database, check_master_key
from .errors import UsageError

# Fixed, so that a seed gives the same rows on any day.
BASE = datetime(2026, 1, 1)
NULL = "\\N"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
# Measured bytes a row costs in the database, indexes included.
AUDIT_BYTES, VERSION_BYTES, CERTIFICATE_BYTES = 430, 8000, 1150
VALUE_POOL = 1 << 22
TABLES = (
    "organisations",
    "projects",
    "users",
    "roles",
    "api_tokens",
    "secrets",
    "secret_versions",
    "certificate_authorities",
    "certificates",
    "audit_logs",
)


@dataclass(frozen=True)
class Plan:
    projects: int
    users: int
    secrets: int
    shortest: int
    longest: int
    certificates: int
    keys: int
    audit_rows: int

    @classmethod
    def of(cls, size: str) -> Plan:
        if size == "small":
            return cls(6, 12, 60, 12, 2000, 12, 12, 500)
        match = re.fullmatch(r"(\d+)([KMG]B)", size)
        if not match:
            raise UsageError("size is 'small' or like 100MB, 2GB")
        total = int(match[1]) * UNITS[match[2]]
        return cls(
            projects=max(6, total // 20_000_000),
            users=50,
            # Each secret has one to four versions.
            secrets=max(60, int(total * 0.3 / VERSION_BYTES / 2.5)),
            shortest=2000,
            longest=12_000,
            certificates=max(12, int(total * 0.1 / CERTIFICATE_BYTES)),
            keys=64,
            audit_rows=max(500, int(total * 0.6 / AUDIT_BYTES)),
        )


class _Lines(io.TextIOBase):
    """What COPY reads from: a generator that looks like a file."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def read(self, size: int | None = -1) -> str:
        size = size or -1
        parts, length = [], 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if 0 <= size <= length:
                break
        return "".join(parts)


def _copy(cursor: Cursor, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
    lines = ("\t".join(map(str, row)) + "\n" for row in rows)
    cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", t.cast(t.TextIO, _Lines(lines)), 1 << 18)


def _bytes(data: bytes) -> str:
    return "\\\\x" + data.hex()


def _text(text: str) -> str:
    return text.replace("\n", "\\n")


class Generator:
    def __init__(self, plan: Plan, seed: int, keyring: Keyring, token: str) -> None:
        self._plan = plan
        self._random = random.Random(seed)
        self._keyring = keyring
        self._token = token
        self._versions = [self._random.randint(1, 4) for _secret in range(plan.secrets)]

    def fill(self, cursor: Cursor) -> None:
        self._accounts(cursor)
        self._secrets(cursor)
        self._certificates(cursor)
        _copy(
            cursor,
            "audit_logs",
            "id, created_at, user_id, action, entity_type, entity_id, severity, details, chain_hash",
            self._audit_rows(),
        )

    def _accounts(self, cursor: Cursor) -> None:
        plan = self._plan
        _copy(cursor, "organisations", "id, name, created_at", [(1, "Aster Works", BASE), (2, "Borealis Ltd", BASE)])
        projects = ((n, 1 + n % 2, f"project-{n:04d}", BASE, BASE) for n in range(1, plan.projects + 1))
        _copy(cursor, "projects", "id, organisation_id, name, created_at, updated_at", projects)
        users = (
            (n, 1 + n % 2, f"user{n:03d}@example.test", "disabled" if n % 10 == 0 else "active", BASE, BASE)
            for n in range(1, plan.users + 1)
        )
        _copy(cursor, "users", "id, organisation_id, email, status, created_at, updated_at", users)
        _copy(cursor, "roles", "id, name", enumerate(("admin", "operator", "auditor", "developer"), 1))
        _copy(cursor, "user_roles", "user_id, role_id", ((n, 1 + (n - 1) % 4) for n in range(1, plan.users + 1)))
        other = [_bytes(self._random.randbytes(32)) for _token in range(2)]
        tokens = [
            (1, 1, "seed", _bytes(hashlib.sha256(self._token.encode()).digest()), "active", BASE, NULL),
            (2, 1, "old", other[0], "revoked", BASE, NULL),
            (3, 2, "expired", other[1], "active", BASE, BASE + timedelta(days=1)),
        ]
        _copy(cursor, "api_tokens", "id, user_id, name, token_sha256, status, created_at, expires_at", tokens)

    def _secrets(self, cursor: Cursor) -> None:
        projects = self._plan.projects
        rows = (
            (n, 1 + n % projects, f"secret-{n:06d}", ("production", "staging", "development")[n % 3], count, BASE, BASE)
            for n, count in enumerate(self._versions, 1)
        )
        columns = "id, project_id, key, environment, current_version, created_at, updated_at"
        _copy(cursor, "secrets", columns, rows)
        columns = "id, secret_id, version, wrapped_dek, ciphertext, created_by, created_at"
        _copy(cursor, "secret_versions", columns, self._version_rows())

    def _version_rows(self) -> Iterator[tuple[object, ...]]:
        plan, draw = self._plan, self._random
        pool = base64.b64encode(draw.randbytes(VALUE_POOL * 3 // 4))
        row_id = 0
        for secret_id, count in enumerate(self._versions, 1):
            for version in range(1, count + 1):
                row_id += 1
                length = draw.randint(plan.shortest, plan.longest)
                begin = draw.randrange(VALUE_POOL - length)
                value = pool[begin : begin + length]
                sealed = self._keyring.seal_secret(value, secret_id, version, draw.randbytes)
                wrapped, ciphertext = _bytes(sealed.wrapped_dek), _bytes(sealed.ciphertext)
                yield row_id, secret_id, version, wrapped, ciphertext, 1 + secret_id % plan.users, BASE

    def _certificates(self, cursor: Cursor) -> None:
        end = BASE + timedelta(days=20 * 365)
        issuer = authority.create("Aster Works", "Aster Works Issuing CA", BASE, end, self._random.randbytes)
        sealed = self._keyring.seal_private_key(authority.key_der(issuer.key), "authority:1", self._random.randbytes)
        row = (1, 1, "Aster Works Issuing CA", _text(authority.pem(issuer.certificate)), _bytes(sealed), BASE)
        columns = "id, organisation_id, common_name, certificate_pem, private_key_sealed, created_at"
        _copy(cursor, "certificate_authorities", columns, [row])
        columns = (
            "id, project_id, authority_id, common_name, serial_number, certificate_pem, private_key_sealed, status,"
            " expiry_date, revoked_at, revocation_reason, created_at, updated_at"
        )
        _copy(cursor, "certificates", columns, self._certificate_rows(issuer))

    def _certificate_rows(self, issuer: Authority) -> Iterator[tuple[object, ...]]:
        plan, draw = self._plan, self._random
        keys = [authority.new_key(draw.randbytes) for _key in range(plan.keys)]
        ders = [authority.key_der(key) for key in keys]
        every = 6 if plan.certificates < 100 else 100
        for n in range(1, plan.certificates + 1):
            name, serial = f"host-{n:06d}.example.test", authority.new_serial(draw.randbytes)
            end = BASE + timedelta(days=draw.randint(3 * 365, 10 * 365))
            certificate = authority.issue(issuer, name, keys[n % plan.keys], serial, BASE, end)
            key = self._keyring.seal_private_key(ders[n % plan.keys], f"certificate:{n}", draw.randbytes)
            revoked = ("revoked", end, BASE + timedelta(days=7), "keyCompromise")
            fate = revoked if n % every == 0 else ("active", end, NULL, NULL)
            pem = _text(authority.pem(certificate))
            yield n, 1 + n % plan.projects, 1, name, f"{serial:x}", pem, _bytes(key), *fate, BASE, BASE

    def _audit_rows(self) -> Iterator[tuple[object, ...]]:
        plan, draw = self._plan, self._random
        kinds = (
            ("secret.read", "secret", plan.secrets, "info"),
            ("secret.read", "secret", plan.secrets, "info"),
            ("secret.update", "secret", plan.secrets, "info"),
            ("certificate.issue", "certificate", plan.certificates, "info"),
            ("auth.login", "user", plan.users, "info"),
            ("auth.login_failed", "user", plan.users, "warning"),
            ("policy.change", "project", plan.projects, "critical"),
        )
        head, moment = audit.GENESIS, BASE - timedelta(days=180)
        step = timedelta(days=170) / plan.audit_rows
        for event_id in range(1, plan.audit_rows + 1):
            moment += step
            number = draw.getrandbits(160)
            action, entity_type, count, severity = kinds[number % len(kinds)]
            details = (
                f'{{"request_id": "{number:040x}", "ip": "10.{number >> 8 & 255}.{number >> 16 & 255}.7",'
                f' "user_agent": "mazevault-agent/1.0.17 (linux; amd64)", "session": "{number * 2654435761:050x}"}}'
            )
            event = (audit.timestamp(moment), 1 + number % plan.users, action, entity_type, str(1 + number % count))
            head = audit.chain_hash(head, *event, severity, details)
            yield event_id, *event, severity, details, head


def run(*, size: str, seed: int, token_file: Path) -> dict[str, int]:
    """Fill an empty database; the token is random and only in its file."""
    plan = Plan.of(size)
    keyring = Keyring(config.master_key())
    database = Database(config.database_url(), name="mazevault-seed")
    migrate.upgrade(database, config.release_schema())
    token = f"mvt_{secrets.token_urlsafe(32)}"
    with database.transaction() as cursor:
        migrate.check(cursor)
        cursor.execute("SELECT EXISTS (SELECT FROM organisations)")
        if (row := cursor.fetchone()) and row[0]:
            raise UsageError("the database holds data already; seed wants an empty one")
        check_master_key(cursor, keyring)
        Generator(plan, seed, keyring, token).fill(cursor)
        counts = {}
        for table in TABLES:
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")
            row = cursor.fetchone()
            counts[table] = int(row[0]) if row else 0
        _write_token(token_file, token)
    with database.transaction() as cursor:
        cursor.execute("ANALYZE")
    return counts


def _write_token(path: Path, token: str) -> None:
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
            stream.write(token + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
