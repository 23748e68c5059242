# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify.yml with a prover: a host that may open sets proves one, and its signed record counts where the set lies."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.host_files import SECRETS, furnish
from support.identities import Custodians, make_custodians
from support.modules import Outcome, run_module
from support.plays import HOSTNAME, Installation, Play, installed, tree_state
from support.servers import PgServer, installations

PROVER = "prover1"


@dataclass
class Site:
    """An installation with an encrypted set, and a prover that the control node reaches."""

    installation: Installation
    custodians: Custodians
    prover: Path
    policy: Path
    more: dict[str, t.Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.installation.root

    @property
    def set_id(self) -> str:
        return max(path.name for path in (self.root / "sets").iterdir())

    @property
    def host_key(self) -> Path:
        return self.policy.parent / "host.key"

    def play(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        """With both hosts in the inventory, each with what is its own."""
        installation = self.installation
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        mine = {**local, **installation.variables(), "mazevault_signing_key": str(self.host_key)}
        theirs = {
            **local,
            "mazevault_identity_file": str(self.custodians.data[0].private),
            "mazevault_backup_root": str(self.prover / "work"),
            "mazevault_signing_key": str(self.prover / "host.key"),
            "mazevault_postgres_bin_dir": str(installation.server.install.bin),
            **self.more,
        }
        hosts = {"mazevault": {"hosts": {HOSTNAME: mine}}, "provers": {"hosts": {PROVER: theirs}}}
        path = installation.folder / "inventory.json"
        path.write_text(json.dumps(hosts), encoding="utf-8")
        env = {"TMPDIR": str(self.between)}
        return installation.place.run(playbook, path, *arguments, extra=extra, env=env)

    @property
    def between(self) -> Path:
        """Where the control node puts what it hands on."""
        folder = self.installation.folder / "between"
        folder.mkdir(exist_ok=True)
        return folder

    def pin(self, *keys: Path) -> None:
        content = {"verification_keys": [path.read_text(encoding="ascii") for path in keys]}
        params = {"state": "pinned", "content": content, "signing_key": str(self.host_key)}
        assert [run_module("backup_policy", params).result["changed"] for _twice in range(2)] == [True, False]

    def records(self) -> list[Path]:
        return sorted((self.root / "records" / self.set_id).glob("*.json"))

    def take(self, record: bytes, signature: bytes, *, set_id: str = "") -> Outcome:
        params = {
            "backup_root": str(self.root),
            "signing_key": str(self.host_key),
            "set": set_id or self.set_id,
            "record": base64.b64encode(record).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
        return run_module("recovery_set_record", params)

    def signed(self, record: bytes) -> bytes:
        """As the prover, or whoever has its key, would sign that."""
        words = ["openssl", "dgst", "-sha384", "-sign", str(self.prover / "host.key")]
        return subprocess.run(words, input=record, check=True, capture_output=True).stdout


def make_key(folder: Path) -> Path:
    folder.mkdir(parents=True)
    key, public = folder / "host.key", folder / "host.pub"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)], check=True)
    return public


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("prover")
    with PgServer(installations()[0]) as server, installed(server, folder) as installation:
        custodians = make_custodians(folder / "custodians")
        installation.protection = {
            "recipients_data": [str(one.public) for one in custodians.data],
            "recipients_keys": [str(one.public) for one in custodians.keys],
        }
        furnish(installation.root.parent)
        for name in ("prover", "pinned"):
            make_key(folder / name)
        found = Site(installation, custodians, folder / "prover", folder / "pinned/policy.json")
        done = found.play("backup")
        assert done.rc == 0, done.output
        yield found


def test_a_prover_that_the_policy_does_not_name_proves_nothing(site: Site) -> None:
    before = tree_state(site.root / "sets")
    done = site.play("verify", mazevault_prover=PROVER, mazevault_verify_level="read")
    assert done.rc != 0
    assert f"{site.set_id}: unproven: {PROVER}: signature: of no key that counts here" in done.output
    assert "; level read was last proven at 20" in done.output
    assert [json.loads(path.read_text())["level"] for path in site.records()] == ["checksum"], "the host's own alone"
    assert tree_state(site.root / "sets") == before
    assert list(site.between.iterdir()) == []


def test_its_signed_record_counts_where_the_set_lies(site: Site) -> None:
    site.pin(site.prover / "host.pub")
    before = tree_state(site.root / "sets")
    done = site.play("verify", "-vvv", mazevault_prover=PROVER)
    assert (done.rc, done.changed) == (0, []), done.output
    assert tree_state(site.root / "sets") == before
    (proof,) = [path for path in site.records() if json.loads(path.read_text())["level"] == "restore"]
    # By stock programs: the prover has signed it, and it is about these bytes.
    words = ["openssl", "dgst", "-sha384", "-verify", str(site.prover / "host.pub"), "-signature", f"{proof}.sig"]
    assert subprocess.run([*words, str(proof)], capture_output=True, check=False).returncode == 0
    sums = subprocess.run(
        ["sha256sum", site.root / "sets" / site.set_id / "SHA256SUMS"], check=True, capture_output=True
    )
    told = json.loads(proof.read_text())
    assert told["sums_sha256"].encode() == sums.stdout.split()[0]
    closed = [one for one in told["checks"] if one["name"] == "config/config-keys.tar.zst: checksums"]
    assert [one["verdict"] for one in closed] == ["pass"]
    assert {"postgres", "config", "tls"} <= set(told["components"])
    # Nothing stays where it has no business; on the prover, its own record does.
    assert list(site.between.iterdir()) == []
    work = site.prover / "work" / HOSTNAME
    assert list((work / "sets").iterdir()) == [] and list((work / "staging").glob("[!.]*")) == []
    assert (work / "records" / site.set_id / proof.name.replace(proof.name.split(".")[1] + ".", "")).exists()
    for name, value in SECRETS.items():
        assert value not in done.output, name
    # Status and retention see it, and the ledger vouches for it.
    params = {"backup_root": str(site.root), "signing_key": str(site.host_key)}
    (seen,) = run_module("recovery_set_info", params).result["sets"]
    assert (seen["verdict"], seen["level"], seen["proven_at"]) == ("pass", "restore", told["at"])
    assert run_module("ledger_verify", {**params, "without_witness": True}).result["verdict"] == "pass"


def test_what_was_tampered_with_is_not_proven(site: Site) -> None:
    """Sums that were fixed after the bytes: the control node knows what was published."""
    folder = site.root / "sets" / site.set_id
    sums = (folder / "SHA256SUMS").read_bytes()
    (folder / "SHA256SUMS").write_bytes(sums + b"\n")
    try:
        done = site.play("verify", mazevault_prover=PROVER)
    finally:
        (folder / "SHA256SUMS").write_bytes(sums)
    assert done.rc != 0 and f"{PROVER}: SHA256SUMS isn't the one that was published" in done.output
    assert list(site.between.iterdir()) == []


def test_one_that_is_away_or_has_no_identity_says_so(site: Site) -> None:
    # Nothing listens on the discard port of this machine.
    site.more = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    try:
        away = site.play("verify", mazevault_prover=PROVER)
    finally:
        site.more = {}
    assert away.rc != 0 and f"unproven: {PROVER}: it can't be reached" in away.output, away.output
    assert "; level restore was last proven at 20" in away.output


def test_who_has_the_data_is_no_prover(site: Site) -> None:
    checked = site.play("verify", "--check", mazevault_prover=PROVER)
    assert checked.of("ledger_verify"), checked.output
    assert not [task for task in checked.tasks if task.name.startswith("Prover |")], "a check hands nothing on"
    itself = site.play("verify", mazevault_prover=HOSTNAME)
    assert itself.rc != 0 and "an installation itself" in itself.failures[0].msg


def test_forged_records_are_not_taken(site: Site) -> None:
    proof = next(path for path in site.records() if json.loads(path.read_text())["level"] == "restore")
    data, signature = proof.read_bytes(), Path(f"{proof}.sig").read_bytes()
    before = tree_state(site.root)
    again = site.take(data, signature)
    assert (again.rc, again.result["record"], again.result["level"]) == (0, str(proof), "restore")
    assert tree_state(site.root) == before, "it is here already"
    wrong = site.take(data.replace(b'"pass"', b'"fail"'), signature)
    assert wrong.rc != 0 and wrong.result["msg"].startswith("signature: of no key that counts here")
    other = {"set_id": "mazevault_20200101_000000"}
    for changed, reason in (
        (other, "it is about mazevault_20200101_000000"),
        ({"sums_sha256": "0" * 64}, "it was made of other bytes"),
        ({"sums_sha256": None}, "it was made of other bytes"),
        ({"kind": "pin"}, "a pin of version 1"),
        ({"verdict": "good"}, "no verdict"),
        ({"at": "2999-01-01T00:00:00.000000Z"}, "still to come"),
        ({"at": "../../../etc/passwd"}, "not one of a proof"),
        ({"at": None}, "not one of a proof"),
    ):
        record = json.dumps({**json.loads(data), **changed}).encode()
        done = site.take(record, site.signed(record))
        assert done.rc != 0 and reason in done.result["msg"], done.result
    assert tree_state(site.root) == before
