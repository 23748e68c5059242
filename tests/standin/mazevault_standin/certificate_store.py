# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and their authorities in the database."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from psycopg2.extensions import cursor as Cursor

from . import authority
from .authority import Authority, Revocation
from .crypto import Keyring

REASONS = {reason.value: reason for reason in x509.ReasonFlags if reason.value != "removeFromCRL"}


def load_authority(cursor: Cursor, keyring: Keyring, authority_id: int) -> tuple[Authority, int] | None:
    """The authority with its key decrypted, and its CRL number."""
    cursor.execute(
        "SELECT certificate_pem, private_key_sealed, crl_number FROM certificate_authorities WHERE id = %s",
        (authority_id,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    return authority.load(keyring, authority_id, row[0], bytes(row[1])), int(row[2])


def load_authorities(cursor: Cursor, keyring: Keyring) -> dict[int, Authority]:
    cursor.execute("SELECT id, certificate_pem, private_key_sealed FROM certificate_authorities ORDER BY id")
    return {row[0]: authority.load(keyring, row[0], row[1], bytes(row[2])) for row in cursor.fetchall()}


def find(cursor: Cursor, authority_id: int, serial: int) -> tuple[x509.Certificate, Revocation | None] | None:
    cursor.execute(
        "SELECT certificate_pem, revoked_at, revocation_reason FROM certificates"
        " WHERE authority_id = %s AND serial_number = %s",
        (authority_id, f"{serial:x}"),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    revocation = Revocation(serial, row[1], REASONS[row[2]]) if row[1] else None
    return x509.load_pem_x509_certificate(row[0].encode()), revocation


def revocations(cursor: Cursor, authority_id: int) -> Iterator[Revocation]:
    cursor.execute(
        "SELECT serial_number, revoked_at, revocation_reason FROM certificates"
        " WHERE authority_id = %s AND status = 'revoked' ORDER BY id",
        (authority_id,),
    )
    for serial, revoked_at, reason in cursor:
        yield Revocation(int(serial, 16), revoked_at, REASONS[reason])


def revoke(cursor: Cursor, certificate_id: int, reason: str) -> bool:
    """False when it was revoked before or does not exist."""
    cursor.execute(
        "UPDATE certificates SET status = 'revoked', revoked_at = now(), revocation_reason = %s"
        " WHERE id = %s AND status <> 'revoked' RETURNING authority_id",
        (reason, certificate_id),
    )
    row = cursor.fetchone()
    if row is None:
        return False
    cursor.execute("UPDATE certificate_authorities SET crl_number = crl_number + 1 WHERE id = %s", (row[0],))
    return True
