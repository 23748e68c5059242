# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key hierarchy without a database."""

from __future__ import annotations

import dataclasses

import pytest

from mazevault_standin.crypto import DecryptionError, Keyring, SealedSecret

KEYRING = Keyring("base64:bm90IGRlY29kZWQ=")


def test_a_secret_opens_only_in_its_place() -> None:
    sealed = KEYRING.seal_secret(b"value", 7, 2)
    assert KEYRING.open_secret(sealed, 7, 2) == b"value"
    for secret_id, version in ((7, 1), (8, 2)):
        with pytest.raises(DecryptionError):
            KEYRING.open_secret(sealed, secret_id, version)


def test_each_version_has_its_own_data_key() -> None:
    first, second = KEYRING.seal_secret(b"value", 1, 1), KEYRING.seal_secret(b"value", 1, 1)
    assert first.wrapped_dek != second.wrapped_dek
    with pytest.raises(DecryptionError):
        KEYRING.open_secret(SealedSecret(first.wrapped_dek, second.ciphertext), 1, 1)


@pytest.mark.parametrize("part", ["wrapped_dek", "ciphertext"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:20] + b"\0" + data[21:], lambda _data: b""]
)
def test_damage_is_found(part: str, damage: object) -> None:
    assert callable(damage)
    sealed = KEYRING.seal_secret(b"value" * 10, 1, 1)
    with pytest.raises(DecryptionError):
        KEYRING.open_secret(dataclasses.replace(sealed, **{part: damage(getattr(sealed, part))}), 1, 1)


def test_the_master_key_is_opaque() -> None:
    sealed = KEYRING.seal_private_key(b"der", "authority:1")
    assert KEYRING.open_private_key(sealed, "authority:1") == b"der"
    # The same bytes once decoded, but another string.
    with pytest.raises(DecryptionError):
        Keyring("bm90IGRlY29kZWQ=").open_private_key(sealed, "authority:1")


def test_key_check() -> None:
    check = KEYRING.seal_check()
    assert KEYRING.accepts(check)
    assert not Keyring("other").accepts(check)
    assert not KEYRING.accepts(check[:-1])
