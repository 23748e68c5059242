# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Signatures by openssl (ECDSA P-384, SHA-384): who signed, and whether a key that counts did.

A private key is only ever openssl's to read; this code knows its path.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import shlex
import stat
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, ProcessRunner

SUFFIX = ".sig"
_HEADER, _FOOTER = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_OPENSSL = "Install openssl 3.0 or newer; the key has to be an EC key without a passphrase."
# A key with a passphrase is an error at once, not a question to a terminal.
_NO_PROMPT = ("-passin", "pass:")


def default_folder() -> str:
    """Where keys and policy of this account lie unless parameters say otherwise."""
    return "/etc/mazevault-backup" if os.geteuid() == 0 else os.path.expanduser("~/.mazevault-backup")


def default_key() -> str:
    return os.path.join(default_folder(), "host.key")


def key_id(public: str) -> str:
    """SHA-256 of a public key's DER bytes: what people compare, and what lists of keys name it by.

    Raises:
        BackupError: it isn't a public key in PEM.
    """
    body = [line.strip() for line in public.strip().splitlines() if line.strip()]
    try:
        if len(body) < 3 or body[0] != _HEADER or body[-1] != _FOOTER:
            raise ValueError("no PEM")
        data = base64.b64decode("".join(body[1:-1]), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise BackupError(
            "public key: not one in PEM",
            hint=f"It begins with {_HEADER}; openssl pkey -in KEY -pubout writes it.",
        ) from exc
    return hashlib.sha256(data).hexdigest()


class Signer:
    """A signing key by its path.

    Args:
        key: the private key; made by `ensure` when it isn't there.
        parameter: what an error calls it.
    """

    def __init__(self, key: str, *, parameter: str = "signing_key", processes: ProcessRunner | None = None) -> None:
        self.key = key
        self._parameter = parameter
        self._processes = processes or HostProcesses()
        self._public = ""

    @property
    def public_path(self) -> str:
        """The public half for people, beside the key."""
        return f"{self.key[:-4] if self.key.endswith('.key') else self.key}.pub"

    def exists(self) -> bool:
        return os.path.lexists(self.key)

    def ensure(self) -> bool:
        """Make the key pair unless it is there; whether it was made.

        Raises:
            BackupError: the key can't be used, or others may read it.
        """
        made = not self.exists()
        if made:
            self._make()
        self._check()
        if not os.path.exists(self.public_path):
            write_file(self.public_path, self.public(), mode=0o644)
        return made

    def public(self) -> str:
        """The public half in PEM: derived from the key, else read from the file beside it; empty without either."""
        if not self._public:
            if self.exists():
                self._check()
                done = self._processes.run(["openssl", "pkey", "-in", self.key, *_NO_PROMPT, "-pubout"])
                self._public = done.check(f"{self._parameter}: {self.key}", hint=_OPENSSL).stdout
            else:
                with contextlib.suppress(FileNotFoundError), open(self.public_path, encoding="ascii") as stream:
                    self._public = stream.read()
        return self._public

    def sign(self, path: str) -> str:
        """Write `path`.sig, flushed and checked; its path."""
        signature = path + SUFFIX
        with open(path, "rb") as stream:
            data = stream.read()
        write_file(signature, self.sign_bytes(data))
        return signature

    def sign_bytes(self, data: bytes) -> bytes:
        """The signature of `data` (DER); it is verified before it is returned."""
        self.ensure()
        with tempfile.TemporaryDirectory(prefix="mazevault-sign-") as folder:
            out = os.path.join(folder, "signature")
            argv = ["openssl", "dgst", "-sha384", "-sign", self.key, *_NO_PROMPT, "-out", out]
            self._processes.run(argv, stdin=data).check(
                f"{self._parameter}: {self.key}: can't sign", hint="It has to be an EC key without a passphrase."
            )
            with open(out, "rb") as stream:
                signature = stream.read()
        if not verify_bytes(data, signature, [self.public()], processes=self._processes):
            raise BackupError(
                f"{self._parameter}: {self.key}: what it signed doesn't verify",
                hint="The key or openssl is broken: replace them.",
            )
        return signature

    def _check(self) -> None:
        info = os.lstat(self.key)
        if not stat.S_ISREG(info.st_mode):
            wrong, hint = "not a file", "Name the file of a private key."
        elif info.st_mode & 0o077:
            wrong = f"others may read or write it (mode {stat.S_IMODE(info.st_mode):04o})"
            hint = f"Find out who did, then chmod 600 {shlex.quote(self.key)}; a key that others had proves nothing."
        elif info.st_uid not in (0, os.geteuid()):
            wrong, hint = f"belongs to user id {info.st_uid}", "Give it to the account that makes the backups."
        else:
            return
        raise BackupError(f"{self._parameter}: {self.key}: {wrong}", hint=hint)

    def _make(self) -> None:
        folder = os.path.dirname(self.key)
        if not os.path.isdir(folder):
            try:
                os.makedirs(folder, mode=0o755, exist_ok=True)
                # Public halves and the policy lie here too, for everybody to read.
                os.chmod(folder, 0o755)
            except OSError as exc:
                raise BackupError(
                    f"{self._parameter}: {self.key}: its folder can't be made: {exc.strerror}",
                    hint="Run with become, or name a path that this account may write.",
                ) from exc
        number, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(self.key)}.", dir=folder)
        os.close(number)
        try:
            argv = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", temporary]
            self._processes.run(argv).check(f"{self._parameter}: {self.key}: can't be made", hint=_OPENSSL)
            os.chmod(temporary, 0o600)
            fsync_path(temporary)
            # A link never replaces: of two runs that make a key at once, one wins and both use that one.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.key)
        finally:
            os.unlink(temporary)
        fsync_path(folder)


def verify_bytes(
    data: bytes, signature: bytes, keys: t.Iterable[str], *, processes: ProcessRunner | None = None
) -> str | None:
    """The id of the key (PEM) that signed `data`, or None."""
    runner = processes or HostProcesses()
    with tempfile.TemporaryDirectory(prefix="mazevault-verify-") as folder:
        name = os.path.join(folder, "signature")
        with open(name, "wb") as stream:
            stream.write(signature)
        for number, public in enumerate(keys):
            key = os.path.join(folder, f"key{number}.pem")
            with open(key, "w", encoding="ascii", errors="replace") as text:
                text.write(public)
            if runner.run(["openssl", "dgst", "-sha384", "-verify", key, "-signature", name], stdin=data).rc == 0:
                return key_id(public)
    return None


def verify_file(path: str, keys: t.Iterable[str], *, processes: ProcessRunner | None = None) -> str | None:
    """The id of the key that made `path`.sig for what is in `path` now, or None (also where there is no signature)."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        with open(path + SUFFIX, "rb") as stream:
            signature = stream.read()
    except FileNotFoundError:
        return None
    return verify_bytes(data, signature, keys, processes=processes)


def check_command(key: str | None = None) -> str:
    """What a person types in a set's folder to check who made it.

    Args:
        key: where the public key lies that came on the card or out of the policy, never one from the set. None: the
            shell variable MAZEVAULT_HOST_KEY says where, and is asked for where it isn't set.
    """
    where = (
        '"${MAZEVAULT_HOST_KEY:?name the file of the public key, from the card or the policy, never from this folder}"'
    )
    given = shlex.quote(key) if key else where
    return f"openssl dgst -sha384 -verify {given} -signature SHA256SUMS{SUFFIX} SHA256SUMS"
