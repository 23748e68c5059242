# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run, one set with every component: who may open what, what verify says of it, and what it gives back by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from support.by_hand import run_blocks, stock_tools
from support.host_files import ENV, SECRETS, furnish
from support.identities import Custodians, make_custodians
from support.keys import signing_key
from support.modules import run_module
from support.plays import Installation, Play, installed
from support.servers import PgServer, installations

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/schemas/manifest-1.schema.json").read_text(encoding="utf-8")
)
COMPONENTS = {"postgres", "config", "tls", "volumes"}


@dataclass
class Whole:
    """A published set, its installation, and who can open it."""

    installation: Installation
    custodians: Custodians
    play: Play
    again: Play

    @property
    def home(self) -> Path:
        return self.installation.root.parent

    @property
    def path(self) -> Path:
        return sorted((self.installation.root / "sets").iterdir())[0]

    @property
    def manifest(self) -> dict[str, t.Any]:
        return dict(json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))

    def opened(self, class_name: str, target: Path) -> Path:
        """A set's key of a class, as a custodian opens it where the identity is."""
        identity = self.custodians.data[0] if class_name == "data" else self.custodians.keys[1]
        words = ["-inform", "DER", "-in", f"access/{class_name}.key.cms", "-inkey", identity.private, "-out", target]
        subprocess.run(["openssl", "cms", "-decrypt", "-binary", *words], cwd=self.path, check=True)
        target.chmod(0o600)
        return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with PgServer(installations()[0]) as server, installed(server, folder) as installation:
        custodians = make_custodians(folder / "custodians")
        installation.protection = {
            "recipients_data": [str(one.public) for one in custodians.data],
            "recipients_keys": [str(one.public) for one in custodians.keys],
            "volumes_paths": [str(installation.root.parent / "uploads")],
        }
        furnish(installation.root.parent)
        preview = installation.play("backup", "--check", "--diff")
        assert preview.rc == 0, preview.output
        assert not installation.root.exists()
        play = installation.play("backup", "-vvv", "--diff")
        assert play.rc == 0, play.output
        yield Whole(installation, custodians, play, preview)


def test_one_change_one_set_with_all_of_it(whole: Whole) -> None:
    assert whole.play.changed == ["Recovery set | Publish"]
    manifest = whole.manifest
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)
    assert set(manifest["components"]) == COMPONENTS
    assert set(manifest["verification"]["components"]) == COMPONENTS
    assert (manifest["verification"]["verdict"], manifest["verification"]["level"]) == ("pass", "restore")
    classes = {entry["path"]: entry["class"] for entry in manifest["artefacts"] if entry["format"] == "tar"}
    assert classes == {
        "config/config.tar.zst": "data",
        "config/config-keys.tar.zst": "keys",
        "tls/tls.tar.zst": "data",
        "tls/tls-keys.tar.zst": "keys",
        "volumes/volumes.tar.zst": "data",
    }


def test_the_manifest_tells_when_certificates_end(whole: Whole) -> None:
    (one,) = whole.manifest["certificates"]
    certificate = whole.home / "certs/server.crt"
    words = ["openssl", "x509", "-in", certificate, "-noout", "-enddate", "-dateopt", "iso_8601"]
    said = subprocess.run(words, check=True, capture_output=True, encoding="ascii").stdout
    assert one["not_after"] == said.strip().removeprefix("notAfter=").replace(" ", "T").replace("Z", ".000000Z")
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"],
        check=True,
        capture_output=True,
        encoding="ascii",
    ).stdout
    assert one["sha256"] == shown.strip().rpartition("=")[2].replace(":", "").lower()


def test_by_hand_with_both_keys(whole: Whole, tmp_path: Path) -> None:
    install = whole.installation.server.install
    restored = tmp_path / "restored"
    restored.mkdir()
    keys = {f"{name.upper()}_KEY": str(whole.opened(name, tmp_path / name)) for name in ("data", "keys")}
    with PgServer(install, database="postgres") as fresh:
        tools = stock_tools(tmp_path / "tools", install)
        done = run_blocks(whole.path, fresh, tools, RESTORED=str(restored), **keys)
        assert (done.rc, done.output, done.done) == (0, "", done.blocks)
        count = "SELECT count(*) FROM secrets"
        assert fresh.query(count, dbname="mazevault") == whole.installation.server.query(count)
    home = str(whole.home).lstrip("/")
    # The block of key material comes last, so the true settings lie over those with marks.
    assert (restored / "config" / home / ".env").read_text(encoding="utf-8") == ENV
    for component, name in (
        ("config", "config/nginx.conf"),
        ("config", "config/jobs.conf"),
        ("tls", "certs/server.key"),
    ):
        assert (restored / component / home / name).read_bytes() == (whole.home / name).read_bytes()
    key = (restored / "tls" / home / "certs/server.key").stat()
    assert key.st_mode & 0o7777 == 0o600
    upload = restored / "volumes" / home / "uploads"
    assert (upload / "deep/report.pdf").read_bytes() == (whole.home / "uploads/deep/report.pdf").read_bytes()
    assert os.readlink(upload / "link") == "deep/report.pdf"


def test_who_may_open_data_finds_no_key(whole: Whole, tmp_path: Path) -> None:
    install = whole.installation.server.install
    restored = tmp_path / "restored"
    restored.mkdir()
    with PgServer(install, database="postgres") as fresh:
        key = str(whole.opened("data", tmp_path / "data"))
        tools = stock_tools(tmp_path / "tools", install)
        done = run_blocks(whole.path, fresh, tools, RESTORED=str(restored), DATA_KEY=key)
        assert (done.rc, done.done) == (0, done.blocks), done.output
    settings = (restored / "config" / str(whole.home).lstrip("/") / ".env").read_text(encoding="utf-8")
    (generation,) = whole.manifest["key_generations"]
    assert "IMAGE_TAG=1.0.17\n" in settings and len(re.findall(f"@generation:{generation}", settings)) >= 3
    files = [path for path in restored.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) >= 5
    content = b"".join(path.read_bytes() for path in files)
    assert b"PRIVATE KEY" not in content
    for name, value in SECRETS.items():
        assert value.encode() not in content, name


def test_no_secret_in_what_was_said(whole: Whole) -> None:
    said = whole.play.output + whole.again.output
    assert "config-keys" in said
    for name, value in SECRETS.items():
        assert value not in said, name


def verify(whole: Whole, **extra: t.Any) -> Play:
    return whole.installation.play("verify", **extra)


def test_a_data_identity_proves_all_but_what_it_may_not_open(whole: Whole) -> None:
    done = verify(whole, mazevault_identity_file=str(whole.custodians.data[1].private))
    assert done.rc == 0, done.output
    proof = [found for found in done.of("backup_verify") if "level" in found][-1]
    assert (proof["verdict"], proof["level"]) == ("pass", "restore")
    assert set(proof["components"]) == COMPONENTS
    closed = [one for one in proof["checks"] if one["name"] == "config/config-keys.tar.zst: restore"]
    assert closed and "before it was published" in closed[0]["observed"]


def test_without_an_identity_it_is_unproven_not_passed(whole: Whole) -> None:
    done = verify(whole)
    assert done.rc != 0
    proof = [found for found in done.of("backup_verify") if "level" in found][-1]
    assert (proof["verdict"], proof["level"]) == ("unproven", "checksum")
    assert "volumes/volumes.tar.zst" in str(proof["checks"])


def test_one_component_proves_no_set(whole: Whole) -> None:
    """A partial proof, however good, is no proof of the set."""
    root = whole.installation.root
    params = {"backup_root": str(root), "set": "latest", "level": "checksum", "components": ["config"]}
    done = run("backup_verify", params)
    assert (done["verdict"], done["components"]) == ("pass", ["config"])
    assert not any(name.startswith("checksums") for name in (one["name"] for one in done["checks"]))
    refused = run("backup_verify", {**params, "components": ["vault"]}, fails=True)
    assert "components: vault: not in" in refused["msg"]


def run(module: str, params: dict[str, t.Any], *, fails: bool = False) -> dict[str, t.Any]:
    done = run_module(module, {"signing_key": signing_key(), **params})
    assert bool(done.rc) == fails, done.result
    return done.result


def test_a_run_that_looks_for_changes_publishes_what_changed_and_nothing_else(whole: Whole) -> None:
    root = whole.installation.root
    before = sorted(path.name for path in (root / "sets").iterdir())
    ledger = (root / "ledger.jsonl").read_bytes()
    nothing = whole.installation.play("backup", mazevault_reason="on_change")
    assert (nothing.rc, nothing.changed) == (0, []), nothing.output
    assert "Nothing changed" in nothing.output
    assert sorted(path.name for path in (root / "sets").iterdir()) == before
    assert (root / "ledger.jsonl").read_bytes() == ledger
    assert list((root / "staging").glob("[!.]*")) == []
    (whole.home / "config/nginx.conf").write_text("server { listen 8443; }\n", encoding="utf-8")
    something = whole.installation.play("backup", mazevault_reason="on_change")
    assert (something.rc, something.changed) == (0, ["Recovery set | Publish"]), something.output
    (new,) = {path.name for path in (root / "sets").iterdir()} - set(before)
    manifest = json.loads((root / "sets" / new / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["components"] == ["config", "tls"]
    # The newest set holds no database, and the newest database is still the one that a restore takes.
    identity = str(whole.custodians.data[0].private)
    restore = whole.installation.play("restore_database", "--check", mazevault_identity_file=identity)
    assert restore.rc == 0, restore.output
    chosen = [found["selected"]["set_id"] for found in restore.of("recovery_set_info") if "selected" in found]
    assert chosen == [before[-1]]


@pytest.mark.parametrize("name", ["config/config.tar.zst", "config/config-keys.tar.zst", "volumes/volumes.tar.zst"])
def test_one_flipped_bit_in_any_archive_fails(whole: Whole, name: str) -> None:
    victim = next(whole.path.glob(f"{name}.*"))
    content = victim.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 4
    victim.write_bytes(changed)
    try:
        done = run(
            "backup_verify",
            {"backup_root": str(whole.installation.root), "set": whole.path.name, "level": "checksum"},
        )
    finally:
        victim.write_bytes(content)
    assert done["verdict"] == "fail"
    assert f"{name}: checksums" in [one["name"] for one in done["checks"] if one["verdict"] == "fail"]
