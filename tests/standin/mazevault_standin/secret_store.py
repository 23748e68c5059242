# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and their versions in the database."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from .crypto import DecryptionError, Keyring, SealedSecret


@dataclass(frozen=True)
class Tally:
    decrypted: int
    failed_ids: tuple[int, ...]


def insert_version(
    cursor: Cursor, keyring: Keyring, secret_id: int, version: int, value: str, user_id: int | None
) -> None:
    sealed = keyring.seal_secret(value.encode(), secret_id, version)
    cursor.execute(
        "INSERT INTO secret_versions (secret_id, version, wrapped_dek, ciphertext, created_by)"
        " VALUES (%s, %s, %s, %s, %s)",
        (secret_id, version, sealed.wrapped_dek, sealed.ciphertext, user_id),
    )


def create(
    cursor: Cursor, keyring: Keyring, *, project_id: int, key: str, environment: str, value: str, user_id: int | None
) -> int:
    cursor.execute(
        "INSERT INTO secrets (project_id, key, environment) VALUES (%s, %s, %s) RETURNING id",
        (project_id, key, environment),
    )
    row = cursor.fetchone()
    assert row is not None
    insert_version(cursor, keyring, int(row[0]), 1, value, user_id)
    return int(row[0])


def add_version(cursor: Cursor, keyring: Keyring, secret_id: int, value: str, user_id: int | None) -> int | None:
    """The new version's number, or None when there is no such secret."""
    cursor.execute(
        "UPDATE secrets SET current_version = current_version + 1 WHERE id = %s RETURNING current_version",
        (secret_id,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    insert_version(cursor, keyring, secret_id, int(row[0]), value, user_id)
    return int(row[0])


def verify(connection: Connection, keyring: Keyring, *, all_versions: bool) -> Tally:
    """Decrypt in place, without the API; values are forgotten at once."""
    source = (
        "SELECT secret_id, version, wrapped_dek, ciphertext FROM secret_versions"
        if all_versions
        else "SELECT id, version, wrapped_dek, ciphertext FROM current_secrets"
    )
    decrypted, failed = 0, []
    with connection, connection.cursor(name="secrets") as cursor:
        cursor.itersize = 1000
        cursor.execute(source)
        for secret_id, version, wrapped_dek, ciphertext in cursor:
            try:
                sealed = SealedSecret(bytes(wrapped_dek or b""), bytes(ciphertext or b""))
                keyring.open_secret(sealed, secret_id, version)
                decrypted += 1
            except DecryptionError:
                failed.append(int(secret_id))
    return Tally(decrypted, tuple(failed))
