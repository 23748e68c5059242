# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is key material and what isn't: names and values of settings, texts without them, files that hold some."""

from __future__ import annotations

import os
import re
import stat
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._env_file import Settings, statements
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK

# Parts of a name that tell of a value to keep secret, unless its end says that it is something else.
_TELLING = re.compile(
    r"(?:^|_)(?:KEYS?|[A-Z]*(?:APIKEY|MASTERKEY|SECRET|PASSWD|PASSWORD|PASSPHRASE|TOKEN)S?|PASS|PWD|CREDENTIALS?|PIN"
    r"|SALT|PEPPER|SEED|PRIVATE|SIGNING|JWT)(?:_|\d|$)"
)
_HARMLESS = re.compile(
    r"_(?:FILES?|PATHS?|DIR|FOLDER|ENABLED|DISABLED|TTL|EXPIRY|EXPIRES|EXPIRATION|LENGTH|SIZE|BITS|ALGORITHM|ALG|TYPE"
    r"|ISSUER|AUDIENCE|ROTATION|DAYS|HOURS|MINUTES|SECONDS|INTERVAL|COUNT|LABEL|HEADER|ENDPOINT)$"
)
# user:password@ in an address, or password=... in a connection string.
_IN_ADDRESS = re.compile(r"://[^\s/@:]*:([^\s/@]+)@|(?:^|\s)password=('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)
_REFERENCE = re.compile(r"""["']?\$\{?[A-Za-z_]\w*(?:\}|:?[?][^}]*\})?["']?\Z""")
# Shorter values occur by chance in any text, and so do words: a password `mazevault` isn't one wherever that stands.
_LEAST_LENGTH = 8
_WORD = re.compile(r"[A-Za-z]?[a-z]{0,15}|[A-Z]{0,16}")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|AGE-SECRET-KEY-1")
_KEY_SUFFIXES = (".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk")
_KEYSTORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")


def is_key_name(name: str) -> bool:
    """Whether a setting of this name holds something to keep secret."""
    upper = re.sub(r"[^A-Z0-9]+", "_", name.upper())
    return bool(_TELLING.search(upper)) and not _HARMLESS.search(upper)


def secrets_in(value: str) -> list[str]:
    """Passwords in addresses and connection strings; a reference to a setting is none."""
    inside = ((found[1] or found[2]).strip("'") for found in _IN_ADDRESS.finditer(value))
    return [password for password in inside if password and not _REFERENCE.match(password)]


def secret_values(settings: Settings) -> dict[str, str]:
    """Values to keep secret: setting's name -> value; names of passwords in an address are told apart by `/`."""
    found = {name: value for name, value in settings.values.items() if value and is_key_name(name)}
    for name, value in settings.values.items():
        if name not in found:
            found.update({f"{name}/{number}": inside for number, inside in enumerate(secrets_in(value))})
    return found


@dataclass(frozen=True)
class Prepared:
    """A text without key material, and the names of the settings whose values were taken out."""

    text: str
    names: tuple[str, ...]


_COMMENTED = re.compile(r"(?m)^([ \t]*#[ \t#]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*[=:][ \t]*)(\S.*)$")
# name: value, - NAME=value, "name": "value"; a value that refers to a setting says nothing.
_ENTRY = re.compile(
    r"""(?m)^(?P<head>[ \t]*(?:-[ \t]+)?["']?(?P<name>[A-Za-z_][\w.-]*)["']?[ \t]*[:=][ \t]*)"""
    r"""(?P<value>[^\s#].*?)[ \t]*$"""
)
_BLOCK = re.compile(r"[|>][+-]?\d*\Z")


def without_keys(text: str, mark: str, secrets: t.Iterable[str]) -> Prepared:
    """The text of a `.env` with a mark in place of each secret value; comments and order stay.

    Args:
        secrets: values that may stand anywhere, also of other files.
    """
    pieces, names, last = [], [], 0
    for statement in statements(text):
        written = text[statement.begin : statement.end]
        if statement.name is None or is_key_name(statement.name) or secrets_in(written):
            pieces += [text[last : statement.begin], mark if written else ""]
            last = statement.end
            names += [statement.name] if statement.name and written else []
    pieces.append(text[last:])
    done = _COMMENTED.sub(
        lambda found: f"{found[1]}{mark}" if is_key_name(found[2]) or secrets_in(found[3]) else found[0],
        "".join(pieces),
    )
    return Prepared(_without(done, mark, secrets), tuple(dict.fromkeys(names)))


def config_without_keys(text: str, mark: str, secrets: t.Iterable[str]) -> Prepared:
    """The same for a compose file, or another text of names and values."""
    names: list[str] = []

    def entry(found: re.Match[str]) -> str:
        value = found["value"]
        if _REFERENCE.match(value) or _BLOCK.match(value):
            return found[0]
        if is_key_name(found["name"]) or secrets_in(value):
            names.append(found["name"])
            quote = value[0] if value[0] in "'\"" and value.endswith(value[0]) else ""
            return f"{found['head']}{quote}{mark}{quote}"
        return found[0]

    return Prepared(_without(_ENTRY.sub(entry, text), mark, secrets), tuple(dict.fromkeys(names)))


def looked_for(secrets: t.Iterable[str]) -> list[str]:
    """Those values that give key material away wherever they stand, longest first."""
    telling = {secret for secret in secrets if len(secret) >= _LEAST_LENGTH and not _WORD.fullmatch(secret)}
    return sorted(telling, key=len, reverse=True)


def _without(text: str, mark: str, secrets: t.Iterable[str]) -> str:
    for secret in looked_for(secrets):
        text = text.replace(secret, mark)
    return text


@dataclass
class Sorted:
    """Files that hold key material, with the reason for each, and all that were looked through."""

    keys: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


def sort_files(tops: t.Iterable[str], secrets: t.Iterable[str]) -> Sorted:
    """Look through files and folders; links are not followed, what can't be read is an error.

    Args:
        secrets: values that make a file key material.
    """
    wanted = [secret.encode() for secret in looked_for(secrets)]
    found = Sorted()
    for top in tops:
        for path in _files(top):
            found.paths.append(path)
            why = _why(path, wanted)
            if why:
                found.keys[path] = why
    return found


def links_into(tops: t.Iterable[str], folder: str) -> bool:
    """Whether a symlink in one of the folders, or one of them itself, leads into another folder."""
    inside = os.path.realpath(folder) + os.sep
    for top in tops:
        if os.path.islink(top) and os.path.realpath(top).startswith(inside):
            return True
        for where, folders, names in os.walk(os.path.realpath(top), onerror=_raise):
            for name in (*folders, *names):
                path = os.path.join(where, name)
                if os.path.islink(path) and os.path.realpath(path).startswith(inside):
                    return True
    return False


def _files(top: str) -> t.Iterator[str]:
    if stat.S_ISREG(os.lstat(top).st_mode):
        yield top
        return
    for folder, folders, names in os.walk(top, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


def _raise(error: OSError) -> None:
    raise error


def _why(path: str, secrets: t.Sequence[bytes]) -> str:
    if path.lower().endswith(_KEY_SUFFIXES):
        return "its name"
    overlap = max([64, *(len(secret) for secret in secrets)])
    window = b""
    with open(path, "rb") as stream:
        first = True
        while chunk := stream.read(CHUNK):
            if first and chunk.startswith(_KEYSTORES):
                return "a key store"
            first = False
            window = window[-overlap:] + chunk
            if _PRIVATE_KEY.search(window):
                return "a private key"
            if any(secret in window for secret in secrets):
                return "a secret value"
    return ""
