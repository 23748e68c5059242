# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheme cms needs nothing that FIPS forbids: every openssl here has its FIPS provider, strict, and no other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import compare, fips
from support.by_hand import run_blocks, stock_tools
from support.identities import KINDS, Custodians, make_custodians, make_identity, open_by_hand
from support.modules import run_module
from support.plays import Installation, Play, installed
from support.servers import PgServer, installations

SCRYPT = ("kdf", "-keylen", "32", *(word for option in ("pass:p", "salt:s", "n:16") for word in ("-kdfopt", option)))
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "MD5": ("dgst", "-md5"),
    "X25519, as age has it": ("genpkey", "-algorithm", "X25519"),
    "short RSA": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "scrypt": (*SCRYPT, "-kdfopt", "r:8", "-kdfopt", "p:1", "SCRYPT"),
    "ChaCha20": ("enc", "-chacha20", "-K", "00" * 32, "-iv", "00" * 16),
    "an RSA recipient as openssl takes it": ("cms", "-encrypt", "-aes-256-gcm", "-recip", "{rsa}"),
    "an EC recipient as openssl takes it": ("cms", "-encrypt", "-aes-256-gcm", "-recip", "{ec}"),
}


@dataclass(frozen=True)
class Fips:
    """An installation whose backup.yml ran with such an openssl."""

    openssl: fips.FipsOpenssl
    installation: Installation
    custodians: Custodians
    backup: Play
    signing_key: Path

    @property
    def published(self) -> Path:
        (found,) = (self.installation.root / "sets").iterdir()
        return found


@pytest.fixture(scope="module")
def openssl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fips.FipsOpenssl]:
    try:
        found = fips.install(tmp_path_factory.mktemp("fips"))
    except fips.NotToBeHad as exc:
        pytest.skip(f"no openssl with a FIPS provider: {exc}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
        patch.delenv("OPENSSL_CONF", raising=False)
        yield found


@pytest.fixture(scope="module")
def run(openssl: fips.FipsOpenssl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fips]:
    folder = tmp_path_factory.mktemp("installation")
    with PgServer(installations()[0]) as server, installed(server, folder) as installation:
        custodians = make_custodians(folder / "custodians")
        installation.protection = {
            "recipients_data": [str(one.public) for one in custodians.data],
            "recipients_keys": [str(one.public) for one in custodians.keys],
        }
        # Made by the run itself.
        signing_key = folder / "made-here/host.key"
        backup = installation.play("backup", mazevault_signing_key=str(signing_key))
        yield Fips(openssl, installation, custodians, backup, signing_key)


def own_openssl() -> str:
    """This machine's."""
    return str(shutil.which("openssl", path=os.environ["PATH"].partition(":")[2]))


def test_its_only_providers_are_fips_and_the_one_without_algorithms(openssl: fips.FipsOpenssl) -> None:
    shown = openssl.try_("list", "-providers").stdout.decode()
    assert [line.strip() for line in shown.splitlines() if line.startswith("  ") and line[2] != " "] == ["base", "fips"]
    assert shown.count("status: active") == 2


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_fips_forbids_is_refused_by_it_alone(openssl: fips.FipsOpenssl, what: str, tmp_path: Path) -> None:
    certificates = {kind: make_identity(tmp_path, kind, kind=kind).public for kind in ("rsa", "ec")}
    words = [word.format(**certificates) for word in FORBIDDEN[what]]
    by_own = subprocess.run([own_openssl(), *words], input=b"x", capture_output=True, check=False)
    assert by_own.returncode == 0, by_own.stderr
    assert openssl.try_(*words, data=b"x").returncode != 0


def test_a_backup_needs_no_more(run: Fips) -> None:
    assert run.backup.rc == 0, run.backup.output
    manifest = json.loads((run.published / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["encryption"]["scheme"], manifest["verification"]["verdict"]) == ("cms", "pass")
    assert manifest["verification"]["level"] == "restore"
    (book,) = (run.installation.folder / "home/.mazevault-backup/witness").glob("*.jsonl")
    assert run.published.name in book.read_text(encoding="utf-8")


def test_it_was_this_openssl_that_did_it(run: Fips) -> None:
    calls = run.openssl.calls()
    needed = {
        "keys of the set": "req -x509 -newkey ec",
        "artefacts": "cms -encrypt -binary -outform DER -aes-256-gcm -stream",
        "access": "cms -encrypt -binary -outform DER -aes-256-gcm -in",
        "proofs": "cms -decrypt -binary",
        "the host's key": "genpkey -algorithm EC",
        "signatures": "dgst -sha384 -sign",
        "their check": "dgst -sha384 -verify",
    }
    missing = [name for name, begin in needed.items() if not any(call.startswith(begin) for call in calls)]
    assert missing == []


@pytest.mark.parametrize(("number", "level"), [(0, "read"), (1, "restore")], ids=["RSA", "EC"])
def test_each_kind_of_identity_proves_it(run: Fips, number: int, level: str) -> None:
    params = {
        "backup_root": str(run.installation.root),
        "signing_key": str(run.signing_key),
        "bin_dir": str(run.installation.server.install.bin),
        "identity_file": str(run.custodians.data[number].private),
    }
    done = run_module("backup_verify", {**params, "set": run.published.name, "level": level})
    assert (done.rc, done.result["verdict"], done.result["level"]) == (0, "pass", level), done.result


def test_restore_md_needs_no_more(run: Fips, tmp_path: Path) -> None:
    key, source = tmp_path / "data.key", run.installation.server
    assert open_by_hand(run.published, run.custodians.data[1].private, "data", key).returncode == 0
    tools = stock_tools(tmp_path / "tools", source.install)
    assert (tools / "openssl").resolve() == (run.openssl.bin / "openssl").resolve()
    public = {"MAZEVAULT_HOST_KEY": str(run.signing_key.with_suffix(".pub"))}
    with PgServer(source.install, database="postgres") as fresh:
        done = run_blocks(run.published, fresh, tools, DATA_KEY=str(key), **public)
        assert (done.rc, done.output, done.done) == (0, "", done.blocks)
        assert compare.difference(compare.state_of(source, "mazevault"), compare.state_of(fresh, "mazevault")) == []


def test_new_recipients_need_no_more(run: Fips, tmp_path: Path) -> None:
    new = [make_identity(tmp_path, f"new-{kind}", kind=kind) for kind in ("rsa", "ec")]
    params = {
        "backup_root": str(run.installation.root),
        "class": "data",
        "recipients": [one.text for one in new],
        "identity_file": str(run.custodians.data[0].private),
    }
    done = run_module("recovery_set_access", params)
    assert (done.rc, done.result["changed_sets"]) == (0, [run.published.name]), done.result


@pytest.mark.parametrize("maker", ["fips", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ceremony_needs_no_more(openssl: fips.FipsOpenssl, kind: str, maker: str, tmp_path: Path) -> None:
    """With a passphrase as custodians have one; also of keys that were made elsewhere, with fewer rules."""
    key, certificate, secret = tmp_path / "key", tmp_path / "crt", ("-passin", "pass:correct horse battery")
    made = ("req", "-x509", *KINDS[kind], "-days", "3650", "-subj", "/CN=recovery-data-a", "-keyout", key)
    program = openssl.bin / "openssl" if maker == "fips" else own_openssl()
    words: list[str | Path] = [program, *made, "-out", certificate, "-passout", secret[1]]
    subprocess.run(words, check=True, capture_output=True)
    assert "ENCRYPTED" in key.read_text(encoding="ascii")
    options = {
        "rsa": ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"),
        "ec": ("-keyopt", "ecdh_kdf_md:sha256"),
    }
    wrapping = ("cms", "-encrypt", "-binary", "-outform", "DER", "-aes-256-gcm", "-recip", certificate, *options[kind])
    wrapped = openssl.try_(*wrapping, "-out", tmp_path / "wrapped", data=b"the set's key")
    assert wrapped.returncode == 0, wrapped.stderr
    opening = ("cms", "-decrypt", "-binary", "-inform", "DER", "-in", tmp_path / "wrapped", "-inkey", key, *secret)
    assert openssl.try_(*opening).stdout == b"the set's key"
