# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Keyed fingerprints of key material: "the same as last time" without a value that could be found by guessing.

Only what a machine made has a fingerprint. What a person may have chosen could be guessed by whoever gets the
fingerprint and the key that it was made with, so nothing is kept of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import os
import re
import secrets
import shlex
import stat
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path

NAME = "fingerprint.key"
LEAST_BITS = 128
_KEY = re.compile(rb"[0-9a-f]{64}\n?\Z")
_HEX = re.compile(r"(?:[0-9a-f]+|[0-9A-F]+)\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+\Z")
_LETTERS = {"small": 26, "capital": 26, "digit": 10, "other": 2}
# Enough to tell a pattern by.
_LOOKED_AT = 1024


def is_strong(value: str) -> bool:
    """Whether a value looks as if a machine had drawn it from 2^128 or more.

    In doubt it doesn't: to be called weak costs a copy too many, to be called strong a fingerprint that can be guessed.
    """
    text = "".join(value.split()).rstrip("=")[:_LOOKED_AT]
    if _HEX.match(text):
        letters, least_changes, least_variety = 16, 0.15, 8
    elif _BASE64.match(text):
        letters = sum(_LETTERS[kind] for kind in {_kind(letter) for letter in text})
        least_changes, least_variety = 0.4, 12
    else:
        return False
    # Words that people join have many of these, and say nothing more by them.
    joined = text.replace("-", "").replace("_", "")
    return (
        len(text) * math.log2(letters) >= LEAST_BITS
        and len(set(text)) >= least_variety
        and len(text) - len(joined) <= len(text) / 8
        and _changes(joined) >= least_changes
        and not _repeats(text)
    )


def is_strong_file(content: bytes) -> bool:
    """The same for a file: text by its letters, anything else by its length and variety (a ciphertext has both)."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return len(content) >= LEAST_BITS // 4 and len(set(content)) >= 16
    return is_strong(text)


def _kind(letter: str) -> str:
    return "small" if letter.islower() else "capital" if letter.isupper() else "digit" if letter.isdigit() else "other"


def _changes(text: str) -> float:
    """The share of neighbours that are of different kinds: what people type stays with one for longer than chance."""
    kinds = [_kind(letter) for letter in text]
    return sum(a != b for a, b in zip(kinds, kinds[1:])) / max(len(kinds) - 1, 1)


def _repeats(text: str) -> bool:
    """Whether it is a piece of text again and again, or goes up or down letter by letter."""
    steps = [ord(b) - ord(a) for a, b in zip(text, text[1:])]
    ordered = sum(step in (-1, 0, 1) for step in steps) > len(steps) / 2
    return ordered or any(text[n:] == text[:-n] for n in range(1, len(text) // 2 + 1))


class FingerprintKey:
    """A host's random key by its path; made by `ensure` when it isn't there.

    Losing it costs one generation too many, and nothing else: sets and escrow go by generations' ids.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._key = b""

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def ensure(self) -> bool:
        """Make the key unless it is there; whether it was made.

        Raises:
            BackupError: it can't be used, or others may read it.
        """
        made = not self.exists()
        if made:
            self._make(secrets.token_hex(32))
        self._key = self._read()
        return made

    @property
    def key_id(self) -> str:
        """Tells one key from another and says nothing of it."""
        return self._keyed(b"id")[:16]

    def of_value(self, name: str, value: str) -> str:
        return self._keyed(b"value\0" + name.encode() + b"\0" + value.encode("utf-8", "surrogateescape"))

    def of_file(self, name: str, content: bytes) -> str:
        return self._keyed(b"file\0" + name.encode() + b"\0" + content)

    def _keyed(self, data: bytes) -> str:
        self._key = self._key or self._read()
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()

    def _read(self) -> bytes:
        info = os.lstat(self.path)
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077 or info.st_uid not in (0, os.geteuid()):
            raise BackupError(
                f"{NAME}: {self.path}: others may read or write it, or it is no file"
                f" (mode {stat.S_IMODE(info.st_mode):04o}, user {info.st_uid})",
                hint=f"Find out who did; then rm {shlex.quote(self.path)}. The next run makes another one.",
            )
        with open(self.path, "rb") as stream:
            data = stream.read(80)
        if not _KEY.match(data):
            raise BackupError(
                f"{NAME}: {self.path}: not 64 hexadecimal digits",
                hint=f"It is damaged: rm {shlex.quote(self.path)}. The next run makes another one.",
            )
        return bytes.fromhex(data.decode("ascii").strip())

    def _make(self, digits: str) -> None:
        folder = os.path.dirname(self.path)
        number, temporary = tempfile.mkstemp(prefix=f".{NAME}.", dir=folder)
        try:
            with os.fdopen(number, "w", encoding="ascii") as stream:
                stream.write(digits + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o600)
            # A link never replaces: of two runs that make a key at once, both use that of the first.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.path)
        finally:
            os.unlink(temporary)
        fsync_path(folder)


def strong_and_weak(
    values: t.Mapping[str, str], files: t.Mapping[str, bytes]
) -> tuple[dict[str, t.Callable[[FingerprintKey], str]], list[str]]:
    """(how to make the fingerprint of each name that may have one, names of all others).

    Empty values and files are no key material; a name that both have is a value's.
    """
    strong: dict[str, t.Callable[[FingerprintKey], str]] = {}
    weak: list[str] = []
    for name, content in sorted(files.items()):
        if content and is_strong_file(content):
            strong[name] = _file_maker(name, content)
        elif content:
            weak.append(name)
    for name, value in sorted(values.items()):
        if value and is_strong(value):
            strong[name] = _value_maker(name, value)
        elif value:
            weak.append(name)
    return strong, sorted(weak)


def _file_maker(name: str, content: bytes) -> t.Callable[[FingerprintKey], str]:
    return lambda key: key.of_file(name, content)


def _value_maker(name: str, value: str) -> t.Callable[[FingerprintKey], str]:
    return lambda key: key.of_value(name, value)
