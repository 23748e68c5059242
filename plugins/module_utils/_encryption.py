# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Encryption by stock programs alone: OpenSSL's CMS (AES-256-GCM), or age.

A set's bytes are encrypted to a key pair of the set; its private half is encrypted to the recipients. Keys are files,
and programs are told their names.
"""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime

SCHEMES = ("cms", "age", "none")
CLASSES = ("data", "keys")
# `openssl cms -decrypt` holds all of a file in memory, and fails over 1.6 GB: so it gets parts of this many bytes.
PART_BYTES = 32 << 20
_CMS_ENCRYPT = ("cms", "-encrypt", "-binary", "-outform", "DER", "-aes-256-gcm")
_CMS_DECRYPT = ("cms", "-decrypt", "-binary", "-inform", "DER")
# What OpenSSL takes by itself (PKCS#1 v1.5, SHA-1) isn't allowed in FIPS mode.
_KEY_OPTIONS = {
    "rsa": ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"),
    "ec": ("-keyopt", "ecdh_kdf_md:sha256"),
}
_LEAST_BITS = {"rsa": 2048, "ec": 256}
_AGE_RECIPIENT = re.compile(r"age1[0-9a-z]{20,200}\Z")
_HOST = HostRuntime()


@dataclass(frozen=True)
class SetKey:
    """A set's key pair of one class.

    Attributes:
        public: file with the certificate (`cms`) or the recipient (`age`).
        private: file with the private half, in memory; empty where nobody has opened it.
        descriptor: of this process, where the private half is in no file that has a name.
    """

    scheme: str
    public: str
    private: str = ""
    descriptor: int = -1

    @property
    def is_open(self) -> bool:
        return bool(self.private) or self.descriptor >= 0

    @property
    def private_path(self) -> str:
        """What programs that this process starts find the private half by."""
        return self.private if self.descriptor < 0 else f"/proc/{os.getpid()}/fd/{self.descriptor}"


@dataclass(frozen=True)
class Recipient:
    """Somebody who can open sets: a certificate, or age's line.

    Attributes:
        name: the certificate's subject; age's recipients have only themselves.
        fingerprint: SHA-256 of the certificate; age's recipients are their own.
        kind: `rsa`, `ec` or `age`.
    """

    text: str
    name: str
    fingerprint: str
    kind: str

    def described(self) -> dict[str, str]:
        return {"name": self.name, "fingerprint": self.fingerprint}


def suffix(scheme: str) -> str:
    return "" if scheme == "none" else f".{scheme}"


def part_name(path: str, number: int, scheme: str) -> str:
    """Of the `number`th part of an artefact; age needs no parts."""
    return f"{path}.{number:05d}.cms" if scheme == "cms" else f"{path}{suffix(scheme)}"


def encrypting(key: SetKey, target: str, *, empty: bool = False) -> list[str]:
    """The command that encrypts its input to a new file.

    Args:
        empty: there will be no input; openssl can't stream nothing.
    """
    if key.scheme == "age":
        return [_HOST.program("age"), "-e", "-R", key.public, "-o", target]
    to_set = ("-recip", key.public, *_KEY_OPTIONS["ec"])
    return [_HOST.program("openssl"), *_CMS_ENCRYPT, *([] if empty else ["-stream"]), "-out", target, *to_set]


def decrypting(key: SetKey, source: str) -> list[str]:
    """The command that writes what is in a file to its output."""
    if key.scheme == "age":
        return [_HOST.program("age"), "-d", "-i", key.private_path, source]
    return [_HOST.program("openssl"), *_CMS_DECRYPT, "-in", source, "-recip", key.public, "-inkey", key.private_path]


def start(argv: list[str], *, stdin: int | None = None, stdout: int | None = None) -> Child:
    return _HOST.processes.start(argv, stdin=stdin, stdout=stdout)


def read_recipient(text: str, scheme: str, *, parameter: str) -> Recipient:
    """Check one recipient.

    Raises:
        BackupError: not of this scheme, not readable, expired, of a kind or size that can't be used.
    """
    text = text.strip()
    if scheme == "age":
        if not _AGE_RECIPIENT.match(text):
            raise BackupError(
                f"{parameter}: {text[:40]!r}: not a recipient of age",
                hint="Give a line that begins with age1, or set the encryption to cms for certificates.",
            )
        return Recipient(text, text, text, "age")
    if "PRIVATE KEY" in text:
        raise BackupError(
            f"{parameter}: a private key is among the recipients",
            hint="It belongs to nobody but its owner: give the certificate (BEGIN CERTIFICATE), and make a new key.",
        )
    if not text.startswith("-----BEGIN CERTIFICATE-----"):
        raise BackupError(
            f"{parameter}: {text[:40]!r}: not a certificate in PEM form",
            hint="Give certificates (BEGIN CERTIFICATE), or set the encryption to age for age's recipients.",
        )
    shown = _openssl(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-fingerprint", "-sha256"], text, parameter)
    name = re.search(r"(?m)^subject=\s*(.*)$", shown)
    digest = re.search(r"(?im)^sha256 Fingerprint=([0-9A-F:]+)$", shown)
    if name is None or digest is None:
        raise BackupError(f"{parameter}: openssl says nothing of this certificate: {shown[:80]}")
    if _HOST.processes.run([_HOST.program("openssl"), "x509", "-noout", "-checkend", "0"], stdin=text.encode()).rc:
        raise BackupError(
            f"{parameter}: {name[1]}: this certificate has expired",
            hint="Give the recipient's new one; with a longer life, for sets are kept long.",
        )
    kind = _kind(_openssl(["x509", "-noout", "-pubkey"], text, parameter), name[1], parameter)
    return Recipient(text, name[1], digest[1].replace(":", "").lower(), kind)


def _openssl(arguments: list[str], text: str, parameter: str) -> str:
    done = _HOST.processes.run([_HOST.program("openssl"), *arguments], stdin=text.encode(), timeout=30)
    return done.check(parameter, hint="Give a certificate as `openssl x509` reads it.").stdout


def _kind(public_key: str, name: str, parameter: str) -> str:
    shown = _openssl(["pkey", "-pubin", "-noout", "-text"], public_key, parameter)
    bits = re.search(r"Public-Key: \((\d+) bit\)", shown)
    kind = "rsa" if "Modulus:" in shown else "ec" if "ASN1 OID:" in shown else ""
    if not kind or bits is None or int(bits[1]) < _LEAST_BITS[kind]:
        raise BackupError(
            f"{parameter}: {name}: {shown.splitlines()[0] if shown else 'its key'} can't be used to encrypt to",
            hint="Use RSA of 3072 bits or more, or an elliptic curve such as P-384.",
        )
    return kind


def make_key(scheme: str, *, private: str, public: str, name: str) -> SetKey:
    """Make a key pair: `private` is to be in memory, `public` in the set."""
    if scheme == "age":
        _HOST.processes.run([_HOST.program("age-keygen"), "-o", private]).check("encryption: age")
        shown = _HOST.processes.run([_HOST.program("age-keygen"), "-y", private]).check("encryption: age")
        write_file(public, shown.stdout)
    else:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-noenc"]
        out = ["-keyout", private, "-out", public]
        _HOST.processes.run(
            [_HOST.program("openssl"), "req", "-x509", *curve, *out, "-days", "36500", "-subj", f"/CN={name}"]
        ).check("encryption: cms", hint="OpenSSL 3.0 or newer is needed (RHEL 9).")
    os.chmod(private, 0o600)
    return SetKey(scheme, public, private)


def wrap(source: str, target: str, recipients: t.Sequence[Recipient], scheme: str, *, work: str) -> None:
    """Encrypt a small file to recipients, each of whom can open it alone.

    Args:
        work: folder for the recipients' certificates, which openssl reads from files.
    """
    if scheme == "age":
        words = [word for recipient in recipients for word in ("-r", recipient.text)]
        _HOST.processes.run([_HOST.program("age"), "-e", *words, "-o", target, source]).check("recipients")
        return
    words = []
    for number, recipient in enumerate(recipients):
        path = os.path.join(work, f"recipient-{number}.crt")
        write_file(path, f"{recipient.text}\n")
        words += ["-recip", path, *_KEY_OPTIONS[recipient.kind]]
    _HOST.processes.run([_HOST.program("openssl"), *_CMS_ENCRYPT, "-in", source, "-out", target, *words]).check(
        "recipients"
    )


def unwrap(source: str, public: str, identity: str, scheme: str) -> SetKey:
    """Open what `wrap` made, with the private key of one of the recipients; it stays in this process's memory.

    Raises:
        BackupError: it isn't one of theirs.
    """
    # No name, no file: it is gone with this process, however that ends.
    key = SetKey(scheme, public, descriptor=os.memfd_create("set key"))
    target = key.private_path
    if scheme == "age":
        argv = [_HOST.program("age"), "-d", "-i", identity, "-o", target, source]
    else:
        argv = [_HOST.program("openssl"), *_CMS_DECRYPT, "-in", source, "-inkey", identity, "-out", target]
    done = _HOST.processes.run(argv)
    if done.rc != 0:
        raise BackupError(
            f"identity_file: {identity}: doesn't open {source}: {failure('open', done).msg}",
            hint="Use the identity of one of the recipients that the manifest names, of the right class.",
        )
    return key


def belongs(key: SetKey) -> bool:
    """Whether the private half is that of the public one."""
    if key.scheme == "age":
        shown = _HOST.processes.run([_HOST.program("age-keygen"), "-y", key.private_path])
        with open(key.public, encoding="ascii", errors="replace") as stream:
            return shown.rc == 0 and shown.stdout.split() == stream.read().split()
    private = _HOST.processes.run([_HOST.program("openssl"), "pkey", "-in", key.private_path, "-pubout"])
    public = _HOST.processes.run([_HOST.program("openssl"), "x509", "-in", key.public, "-noout", "-pubkey"])
    return private.rc == public.rc == 0 and private.stdout.strip() == public.stdout.strip()
