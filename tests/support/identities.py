# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery identities as a custodian makes them: by openssl or age, on a machine of their own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = {"rsa": ("-newkey", "rsa:3072"), "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384")}


@dataclass(frozen=True)
class Identity:
    """One custodian's: a private key, and the public half that backups know."""

    private: Path
    public: Path

    @property
    def text(self) -> str:
        return self.public.read_text(encoding="ascii").strip()

    @property
    def fingerprint(self) -> str:
        """Of the certificate, as policies have it."""
        words = ("openssl", "x509", "-in", self.public, "-outform", "DER")
        return hashlib.sha256(subprocess.run(words, check=True, capture_output=True).stdout).hexdigest()


@dataclass(frozen=True)
class Custodians:
    """Everybody who can open sets, two a class."""

    scheme: str
    data: tuple[Identity, Identity]
    keys: tuple[Identity, Identity]

    @property
    def protection(self) -> dict[str, t.Any]:
        """What a recovery set is to be opened with."""
        return {
            "encryption": self.scheme,
            "recipients_data": [one.text for one in self.data],
            "recipients_keys": [one.text for one in self.keys],
        }


def make_custodians(folder: Path, scheme: str = "cms") -> Custodians:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [
        make_identity(folder, f"recovery-{name}", scheme, kind)
        for name, kind in (("data-a", "rsa"), ("data-b", "ec"), ("keys-a", "ec"), ("keys-b", "rsa"))
    ]
    return Custodians(scheme, (made[0], made[1]), (made[2], made[3]))


def make_identity(folder: Path, name: str, scheme: str = "cms", kind: str = "ec") -> Identity:
    private, public = folder / f"{name}.key", folder / f"{name}.{'crt' if scheme == 'cms' else 'txt'}"
    if scheme == "age":
        subprocess.run(["age-keygen", "-o", private], check=True, capture_output=True)
        shown = subprocess.run(["age-keygen", "-y", private], check=True, capture_output=True)
        public.write_bytes(shown.stdout)
    else:
        out = ("-noenc", "-keyout", private, "-out", public, "-days", "3650", "-subj", f"/CN={name}")
        subprocess.run(["openssl", "req", "-x509", *KINDS[kind], *out], check=True, capture_output=True)
    private.chmod(0o600)
    return Identity(private, public)


def expired_certificate(folder: Path) -> str:
    """Of somebody whose time is over."""
    key, request = folder / "expired.key", folder / "expired.csr"
    out = ("-noenc", "-keyout", key, "-out", request, "-subj", "/CN=expired")
    subprocess.run(["openssl", "req", "-new", *KINDS["ec"], *out], check=True, capture_output=True)
    signed = ("openssl", "x509", "-req", "-in", request, "-signkey", key, "-days", "-1")
    return subprocess.run(signed, check=True, capture_output=True, encoding="ascii").stdout


def open_by_hand(folder: Path, identity: Path, class_name: str, target: Path) -> subprocess.CompletedProcess[bytes]:
    """As RESTORE.md tells a recipient."""
    words: list[str | Path]
    if (folder / f"access/{class_name}.key.age").exists():
        words = ["age", "-d", "-i", identity, "-o", target, folder / f"access/{class_name}.key.age"]
    else:
        wrapped = folder / f"access/{class_name}.key.cms"
        words = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", wrapped, "-inkey", identity]
        words += ["-out", target]
    done = subprocess.run(words, capture_output=True, check=False)
    if target.exists():
        target.chmod(0o600)
    return done


def schemes() -> list[t.Any]:
    missing = pytest.mark.skipif(shutil.which("age") is None, reason="the program age isn't installed")
    return [pytest.param("cms"), pytest.param("age", marks=missing)]
