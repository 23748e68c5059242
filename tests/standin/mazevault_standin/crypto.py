# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key hierarchy: master key, wrapping keys, one data key per secret version."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Entropy = Callable[[int], bytes]
NONCE_BYTES = 12
KEY_BYTES = 32
CHECK_TEXT = b"mazevault stand-in key check"


class DecryptionError(Exception):
    """Wrong key, wrong place or damaged ciphertext: AES-GCM cannot tell which."""


@dataclass(frozen=True)
class SealedSecret:
    wrapped_dek: bytes
    ciphertext: bytes


def _seal(cipher: AESGCM, plaintext: bytes, associated: bytes, entropy: Entropy) -> bytes:
    nonce = entropy(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, associated)


def _open(cipher: AESGCM, sealed: bytes, associated: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError) as error:
        raise DecryptionError(f"{associated.decode()} does not decrypt") from error


class Keyring:
    """All that is derived from the master key, an opaque string."""

    def __init__(self, master_key: str) -> None:
        def derived(purpose: str) -> AESGCM:
            info = f"mazevault stand-in {purpose}".encode()
            return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(master_key.encode()))

        self._wrapping = derived("data key wrapping")
        self._private_keys = derived("private keys")
        self._check = derived("key check")

    def seal_secret(self, value: bytes, secret_id: int, version: int, entropy: Entropy = os.urandom) -> SealedSecret:
        associated = f"secret:{secret_id}:{version}".encode()
        dek = entropy(KEY_BYTES)
        return SealedSecret(
            _seal(self._wrapping, dek, associated, entropy), _seal(AESGCM(dek), value, associated, entropy)
        )

    def open_secret(self, sealed: SealedSecret, secret_id: int, version: int) -> bytes:
        associated = f"secret:{secret_id}:{version}".encode()
        return _open(AESGCM(_open(self._wrapping, sealed.wrapped_dek, associated)), sealed.ciphertext, associated)

    def seal_private_key(self, der: bytes, owner: str, entropy: Entropy = os.urandom) -> bytes:
        """Owner is, for example, authority:1 or certificate:7."""
        return _seal(self._private_keys, der, owner.encode(), entropy)

    def open_private_key(self, sealed: bytes, owner: str) -> bytes:
        return _open(self._private_keys, sealed, owner.encode())

    def seal_check(self) -> bytes:
        return _seal(self._check, CHECK_TEXT, b"check", os.urandom)

    def accepts(self, sealed_check: bytes) -> bool:
        try:
            return _open(self._check, sealed_check, b"check") == CHECK_TEXT
        except DecryptionError:
            return False
