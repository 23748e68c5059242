# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation's keys with people and places for both halves of their escrow; looked at by stock tools."""

from __future__ import annotations

import json
import secrets
import subprocess
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from support.identities import Identity, make_identity
from support.modules import Outcome, run_module

TOP = Path(__file__).resolve().parents[2]
TOOL = TOP / "tests/standin/bin/vault-tool"
PEOPLE = ("vault-a", "vault-b", "key-a", "key-b")


@dataclass
class Site:
    """An installation's keys, its backup root, and a place for each half."""

    top: Path
    scheme: str
    people: dict[str, Identity]
    secrets: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.top / "root"

    def place(self, half: str) -> Path:
        return self.top / f"place-{half}"

    def params(self, **more: t.Any) -> dict[str, t.Any]:
        return {
            "backup_root": str(self.root),
            "installation": "prague",
            "env_file": str(self.top / "home/.env"),
            "vault_file": str(self.top / "home/secrets.vault"),
            "key_file": str(self.top / "home/vault.key"),
            "encryption": self.scheme,
            "recipients_vault": [self.people["vault-a"].text, self.people["vault-b"].text],
            "recipients_key": [self.people["key-a"].text, self.people["key-b"].text],
            "places_vault": [str(self.place("vault"))],
            "places_key": [str(self.place("key"))],
            "tool": str(TOOL),
            "signing_key": str(self.top / "signing/host.key"),
            **more,
        }

    def run(self, *, check: bool = False, **more: t.Any) -> Outcome:
        done = run_module("escrow", self.params(**more), check=check, diff=True)
        told = json.dumps(done.result) + done.stderr
        for secret in self.secrets:
            assert secret not in told
        return done

    def keep(self, **more: t.Any) -> dict[str, t.Any]:
        done = self.run(**more)
        assert done.rc == 0, done.result
        return done.result

    def rotate(self) -> None:
        """Another master key, another vault with another passphrase."""
        home = self.top / "home"
        home.mkdir(exist_ok=True)
        master, jwt = secrets.token_hex(32), secrets.token_hex(32)
        (home / ".env").write_text(f"MASTER_KEY={master}\nJWT_SECRET={jwt}\nLOG_LEVEL=info\n")
        for name in ("secrets.vault", "vault.key"):
            (home / name).unlink(missing_ok=True)
        (home / "vault.key").write_text(secrets.token_hex(32) + "\n")
        files: list[str | Path] = ["--vault-file", home / "secrets.vault", "--key-file", home / "vault.key"]
        entries = json.dumps({"MAZEVAULT_MASTER_KEY": master})
        subprocess.run([TOOL, "create", *files], input=entries.encode(), check=True)
        self.secrets += [master, jwt, (home / "vault.key").read_text().strip()]

    def copies(self, half: str, begin: str) -> list[Path]:
        return sorted(path for path in self.place(half).iterdir() if path.name.startswith(begin))

    def open(self, path: Path, who: str) -> dict[str, bytes] | None:
        """By one stock command, and tar; None: this person can't."""
        identity = self.people[who].private
        words: list[str | Path]
        if self.scheme == "age":
            words = ["age", "-d", "-i", identity, path]
        else:
            words = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", path, "-inkey", identity]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode != 0:
            return None
        folder = self.top / f"opened-{secrets.token_hex(4)}"
        folder.mkdir()
        subprocess.run(["tar", "-x", "-C", folder], input=done.stdout, check=True)
        return {found.name: found.read_bytes() for found in folder.iterdir()}


def made_site(top: Path, scheme: str) -> Site:
    people = top / "people"
    people.mkdir()
    found = Site(top, scheme, {name: make_identity(people, name, scheme) for name in PEOPLE})
    for name in ("root", "place-vault", "place-key"):
        (top / name).mkdir(mode=0o700)
    found.rotate()
    return found
