# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for vault-tool: names and values in one file, opened by a passphrase file.

The real tool's format is not documented; this one only shares its ciphers and its command line.
File: magic, iterations, lanes, memory in KiB (big-endian 32 bit each), salt, nonce, AES-256-GCM
ciphertext of a JSON object. All before the ciphertext is associated data.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import struct
import sys
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .errors import StandinError, UsageError

MAGIC = b"MVSTANDIN-VAULT1"
PARAMETERS = struct.Struct(">III")
SALT_BYTES, NONCE_BYTES = 16, 12
HEADER_BYTES = len(MAGIC) + PARAMETERS.size + SALT_BYTES + NONCE_BYTES
ITERATIONS, LANES, MEMORY_KIB = 2, 1, 8192
LIMITS = (16, 16, 1 << 20)


class CannotOpen(StandinError):
    exit_code = 1


def _derive(passphrase: bytes, salt: bytes, iterations: int, lanes: int, memory: int) -> AESGCM:
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory)
    return AESGCM(kdf.derive(passphrase))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def read_passphrase(path: Path) -> bytes:
    passphrase = _read(path).rstrip(b"\r\n")
    if not passphrase:
        raise UsageError(f"{path} holds no passphrase")
    return passphrase


def seal(entries: dict[str, str], passphrase: bytes) -> bytes:
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    header = MAGIC + PARAMETERS.pack(ITERATIONS, LANES, MEMORY_KIB) + salt + nonce
    cipher = _derive(passphrase, salt, ITERATIONS, LANES, MEMORY_KIB)
    return header + cipher.encrypt(nonce, json.dumps(entries).encode(), header)


def unseal(sealed: bytes, passphrase: bytes) -> dict[str, str]:
    if len(sealed) <= HEADER_BYTES or not sealed.startswith(MAGIC):
        raise UsageError("this is not a vault file, or it is cut off")
    header = sealed[:HEADER_BYTES]
    numbers = PARAMETERS.unpack_from(header, len(MAGIC))
    if any(not 1 <= number <= limit for number, limit in zip(numbers, LIMITS, strict=True)):
        raise UsageError("the vault file is damaged: impossible Argon2id parameters")
    salt, nonce = header[-SALT_BYTES - NONCE_BYTES : -NONCE_BYTES], header[-NONCE_BYTES:]
    try:
        plaintext = _derive(passphrase, salt, *numbers).decrypt(nonce, sealed[HEADER_BYTES:], header)
    except (InvalidTag, ValueError):
        raise CannotOpen("the vault does not open: wrong key or damaged file") from None
    return {str(name): str(value) for name, value in json.loads(plaintext).items()}


def _write_private(path: Path, data: bytes) -> None:
    """Mode 0600, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _create(vault: Path, key: Path, text: str) -> None:
    try:
        entries = json.loads(text)
    except ValueError:
        raise UsageError("create wants a JSON object of names and values on stdin") from None
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise UsageError("create wants a JSON object of names and values on stdin")
    try:
        if not key.exists():
            _write_private(key, secrets.token_urlsafe(32).encode() + b"\n")
        _write_private(vault, seal(entries, read_passphrase(key)))
    except OSError as error:
        raise UsageError(f"cannot write: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    helps = {
        "list": "print the names, one a line",
        "create": "read a JSON object from stdin; a missing key file is made",
        "get": "print one value",
    }
    for action, text in helps.items():
        sub = actions.add_parser(action, help=text)
        sub.add_argument("--vault-file", type=Path, required=True)
        sub.add_argument("--key-file", type=Path, required=True)
        if action == "get":
            sub.add_argument("name")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "create":
        _create(arguments.vault_file, arguments.key_file, sys.stdin.read())
        return 0
    entries = unseal(_read(arguments.vault_file), read_passphrase(arguments.key_file))
    if arguments.action == "list":
        for name in sorted(entries):
            print(name)
    elif arguments.name in entries:
        print(entries[arguments.name])
    else:
        raise CannotOpen(f"the vault holds no {arguments.name}")
    return 0
