# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration, certificates and volumes come back out of an encrypted set: beside what is in use, or in its place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.modules import component_restore
from support import jobs
from support.fake_docker import FakeDocker, container
from support.host_files import ENV, SECRETS, furnish
from support.identities import Custodians, make_custodians, make_identity
from support.jobs import Job, public_variables
from support.keys import signing_key
from support.modules import Outcome, run_module
from support.plays import HOSTNAME, Place, Play, tree_state
from support.trees import ROOT

VOLUME = "mazevault_backend_data"
KEYS = ("config", "tls")


def listing(top: Path) -> list[str]:
    """What the system's own programs say of a tree: kinds, modes, owners, times of files, links, and contents."""
    said = "%P %y %m %U:%G %l\n" if ROOT else "%P %y %m %l\n"
    find = ["find", ".", "-mindepth", "1"]
    names = subprocess.run([*find, "-printf", said], cwd=top, check=True, capture_output=True, encoding="utf-8").stdout
    files = [*find, "-type", "f"]
    times = subprocess.run([*files, "-printf", "%P %s %T@\n"], cwd=top, check=True, capture_output=True, text=True)
    sums = subprocess.run(
        [*files, "-exec", "sha256sum", "{}", "+"], cwd=top, check=True, capture_output=True, text=True
    )
    return sorted(f"{names}{times.stdout}{sums.stdout}".splitlines())


@dataclass
class Stack:
    """A host with a compose stack, by an engine that isn't one, and a set of its files."""

    folder: Path
    custodians: Custodians
    fake: FakeDocker
    before: dict[str, list[str]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "opt/mazevault"

    @property
    def volume(self) -> Path:
        return self.folder / f"volumes/{VOLUME}/_data"

    @property
    def root(self) -> Path:
        return self.home / "backups"

    @property
    def set_path(self) -> Path:
        return max((self.root / "sets").iterdir())

    @property
    def places(self) -> dict[str, Path]:
        """What was saved, by name in the archives."""
        home = str(self.home).lstrip("/")
        return {
            **{f"config/{home}/{name}": self.home / name for name in ("config", ".env", "docker-compose.yml")},
            f"tls/{home}/certs": self.home / "certs",
            f"volumes/volumes/{VOLUME}": self.volume,
        }

    @property
    def identities(self) -> dict[str, str]:
        """As an operator brings them for one restore."""
        return {
            "mazevault_identity_file": str(self.custodians.data[1].private),
            "mazevault_files_keys_identity_file": str(self.custodians.keys[0].private),
        }

    def variables(self) -> dict[str, t.Any]:
        return {
            "mazevault_home": str(self.home),
            "mazevault_signing_key": signing_key(),
            "mazevault_runtime": "docker",
            "mazevault_postgres_runtime": "host",
            "mazevault_recipients_data": [str(one.public) for one in self.custodians.data],
            "mazevault_recipients_keys": [str(one.public) for one in self.custodians.keys],
        }

    @property
    def path(self) -> str:
        return f"{self.fake.folder}:{os.environ['PATH']}"

    def play(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        place = Place(self.folder)
        inventory = place.write_inventory({HOSTNAME: self.variables()})
        return place.run(playbook, inventory, *arguments, extra=extra, env={"PATH": self.path})

    def restore(self, *arguments: str, **extra: t.Any) -> Play:
        return self.play("restore_files", *arguments, **{**self.identities, **extra})

    def module(self, component: str, **params: t.Any) -> Outcome:
        given = {
            "backup_root": str(self.root),
            "component": component,
            "identity_file": self.identities["mazevault_identity_file"],
            "keys_identity_file": self.identities["mazevault_files_keys_identity_file"],
            **params,
        }
        return run_module("component_restore", given, diff=True)

    def now(self) -> dict[str, list[str]]:
        return {name: listing(path) for name, path in self.places.items() if path.is_dir()}

    def ruin(self) -> None:
        """A bad day: files changed, gone, given away, and one that nobody knew of."""
        (self.home / ".env").write_text("MASTER_KEY=wrong\n")
        (self.home / "config/nginx.conf").unlink()
        (self.home / "certs/server.key").chmod(0o644)
        (self.volume / "deep/report.pdf").write_bytes(b"encrypted by somebody else")
        (self.volume / "link").unlink()
        (self.volume / "READ_ME_TO_PAY").write_text("bitcoin")
        shutil.rmtree(self.volume / "empty")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    home = folder / "opt/mazevault"
    home.mkdir(parents=True, mode=0o755)
    furnish(home)
    found = Stack(folder, make_custodians(folder / "custodians"), FakeDocker(folder / "bin"))
    found.volume.parent.mkdir(parents=True)
    (home / "uploads").rename(found.volume)
    (found.volume / "empty").mkdir(mode=0o2750)
    os.link(found.volume / "deep/report.pdf", found.volume / "same report.pdf")
    with (found.volume / "sparse").open("wb") as stream:
        stream.truncate(3 << 20)
    if ROOT:
        os.chown(home / "certs/server.key", 70, 70)
        os.chown(found.volume, 1001, 1002)
    backend = container("backend", "ghcr.io/axiemirror/mazevault-backend:1.0.17", folder=str(home), volume=VOLUME)
    backend["Mounts"][0]["Source"] = str(found.volume)
    found.fake.state["containers"] = [backend]
    found.fake.write()
    done = found.play("backup", mazevault_components="config,tls,volumes")
    assert done.rc == 0, done.output
    found.before = found.now()
    yield found


def beside(stack: Stack) -> Path:
    return stack.root / "restored" / stack.set_path.name


def test_beside_what_is_in_use(stack: Stack) -> None:
    live = tree_state(stack.home / "config"), tree_state(stack.volume), tree_state(stack.root)
    preview = stack.restore("--check", "--diff")
    assert preview.rc == 0, preview.output
    assert len(preview.changed) == 3 and "Nothing was changed. To do it, type:" in preview.output
    assert (tree_state(stack.home / "config"), tree_state(stack.volume), tree_state(stack.root)) == live
    done = stack.restore("-vvv", "--diff")
    assert (done.rc, done.changed) == (0, preview.changed), done.output
    assert (tree_state(stack.home / "config"), tree_state(stack.volume)) == live[:2]
    top = beside(stack)
    assert {path.stat().st_mode & 0o7777 for path in (top.parent, top, *top.iterdir())} == {0o700}
    assert {name: listing(top / name) for name in stack.before} == stack.before
    env = top / "config" / str(stack.home).lstrip("/") / ".env"
    assert env.read_text(encoding="utf-8") == ENV and listing(env.parent.parent / "mazevault/config")
    key = top / "tls" / str(stack.home).lstrip("/") / "certs/server.key"
    assert key.stat().st_mode & 0o7777 == 0o600 and (not ROOT or (key.stat().st_uid, key.stat().st_gid) == (70, 70))
    assert os.stat(top / f"volumes/volumes/{VOLUME}/sparse").st_blocks < 100
    for play in (preview, done):
        for name, value in SECRETS.items():
            assert value not in play.output, name
    promised = yaml.safe_load(component_restore.RETURN)
    for result in done.of("component_restore"):
        told = {name for name in result if not name.startswith("_ansible")}
        assert told - {"changed", "diff", "invocation", "warnings"} == promised.keys()
        assert all(place.keys() == promised["targets"]["contains"].keys() for place in result["targets"])
    again = stack.restore()
    assert (again.rc, again.changed) == (0, []), again.output
    # Whoever changed something there gets the set's again, and keeps his own.
    env.write_text("mine\n")
    third = stack.module("config").result
    assert third["changed"] and third["differences"][0].endswith(".env: contents"), third
    kept = Path(third["targets"][0]["kept"])
    assert env.read_text(encoding="utf-8") == ENV
    assert (kept / str(stack.home).lstrip("/") / ".env").read_text() == "mine\n"
    shutil.rmtree(top.parent)


def test_in_its_place(stack: Stack) -> None:
    stack.ruin()
    ruined = tree_state(stack.home / "config"), tree_state(stack.volume), (stack.home / ".env").read_bytes()
    inside = {"mazevault_files_mode": "in_place"}
    preview = stack.restore("--check", "--diff", **inside)
    assert preview.rc == 0, preview.output
    assert f"-e mazevault_confirm={HOSTNAME}" in preview.output
    refused = stack.module("config", in_place=True, inventory_hostname=HOSTNAME)
    assert refused.rc != 0 and f"mazevault_confirm={HOSTNAME}" in refused.result["msg"]
    assert (tree_state(stack.home / "config"), tree_state(stack.volume), (stack.home / ".env").read_bytes()) == ruined
    done = stack.restore(**inside, mazevault_confirm=HOSTNAME)
    assert (done.rc, done.changed) == (0, preview.changed), done.output
    assert (stack.home / ".env").read_text(encoding="utf-8") == ENV
    assert (stack.home / ".env").stat().st_mode & 0o7777 == 0o600
    # What wasn't there when the set was made stays, for somebody to look at.
    assert (stack.volume / "READ_ME_TO_PAY").read_text() == "bitcoin"
    (stack.volume / "READ_ME_TO_PAY").unlink()
    assert stack.now() == stack.before
    kept = [place["kept"] for found in done.of("component_restore") for place in found["targets"] if place["kept"]]
    assert any(
        (Path(path) / ".env").read_text() == "MASTER_KEY=wrong\n" for path in kept if Path(path, ".env").exists()
    )
    pdf = next(Path(path) / "deep/report.pdf" for path in kept if Path(path, "deep").exists())
    assert pdf.read_bytes() == b"encrypted by somebody else"
    again = stack.restore(**inside, mazevault_confirm=HOSTNAME)
    assert (again.rc, again.changed) == (0, []), again.output
    told = [json.loads(path.read_text()) for path in (stack.root / "evidence").glob("files_*.json")]
    assert {one["component"] for one in told if one["in_place"]} == {"config", "tls", "volumes"}
    assert not any(value in json.dumps(told) for value in SECRETS.values())


def test_without_the_keys_nothing_real_is_replaced_by_marks(stack: Stack, tmp_path: Path) -> None:
    refused = stack.module("config", keys_identity_file=None)
    assert refused.rc != 0 and refused.result["msg"].startswith("keys_identity_file: missing: mazevault_")
    wrong = stack.module("config", keys_identity_file=str(stack.custodians.data[0].private))
    assert wrong.rc != 0 and "doesn't open" in wrong.result["msg"]
    closed = stack.module("config", identity_file=None)
    assert closed.rc != 0 and "its key isn't here" in closed.result["msg"]
    less = {"keys_identity_file": None, "accept": ["without_keys"]}
    done = stack.module("config", target=str(tmp_path / "looked at"), **less).result
    home = str(stack.home).lstrip("/")
    assert done["marked"] == [f"{home}/.env"] and f"{home}/config/jobs.conf" in done["missing"]
    text = (tmp_path / "looked at" / home / ".env").read_text(encoding="utf-8")
    assert "@generation:" in text and not any(value in text for value in SECRETS.values())
    (stack.home / "config/nginx.conf").write_text("changed\n")
    before = (stack.home / ".env").read_bytes()
    confirmed = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME, "in_place": True}
    done = stack.module("config", **less, **confirmed).result
    assert done["changed"] and f"{home}/.env" in done["missing"] and done["marked"] == []
    assert (stack.home / ".env").read_bytes() == before
    assert stack.now() == stack.before


def test_what_was_tampered_with_is_refused(stack: Stack, tmp_path: Path) -> None:
    """One bit of an archive, or somebody else's signature: nothing is written, wherever it was to go."""
    root = tmp_path / "root"
    shutil.copytree(stack.root, root, symlinks=True)
    victim = next(root.glob(f"sets/{stack.set_path.name}/tls/tls-keys.tar.zst.*"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = stack.module("tls", backup_root=str(root), target=str(tmp_path / "to"))
    assert done.rc != 0 and "tls-keys.tar.zst" in done.result["msg"] and ": changed" in done.result["msg"]
    other = stack.module("config", backup_root=str(root), target=str(tmp_path / "to"), installation="vault2")
    assert other.rc != 0 and f"belongs to {HOSTNAME}, not to vault2" in other.result["msg"]
    (root / f"sets/{stack.set_path.name}/SHA256SUMS.sig").write_bytes(b"not one")
    unsigned = stack.module("config", backup_root=str(root), set=stack.set_path.name, target=str(tmp_path / "to"))
    assert unsigned.rc != 0 and "signature" in unsigned.result["msg"]
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("step", ["restore: unpack", "restore: put in place", "restore: in place"])
def test_a_killed_run_is_finished_by_the_next(stack: Stack, step: str) -> None:
    stack.ruin()
    params = {
        "backup_root": str(stack.root),
        "component": "volumes",
        "identity_file": stack.identities["mazevault_identity_file"],
        "in_place": True,
        "places": {f"volumes/{VOLUME}": str(stack.volume)},
        "confirm": HOSTNAME,
        "inventory_hostname": HOSTNAME,
    }
    killed = run_module("component_restore", params, kill=(step, "self"))
    assert killed.rc == -signal.SIGKILL, killed.result
    for component in ("volumes", "config", "tls"):
        done = run_module("component_restore", {**params, "component": component, **keys_of(stack, component)})
        assert done.rc == 0, done.result
    (stack.volume / "READ_ME_TO_PAY").unlink()
    assert stack.now() == stack.before
    assert list(stack.volume.parent.glob(".*")) == [] and list(stack.home.parent.glob(".*")) == []
    (last,) = (json.loads(line) for line in (stack.root / "ledger.jsonl").read_text().splitlines()[-1:])
    assert last["event"] in ("restore files", "restore files began")


def keys_of(stack: Stack, component: str) -> dict[str, str]:
    identity = stack.identities["mazevault_files_keys_identity_file"]
    return {"keys_identity_file": identity} if component in KEYS else {}


def test_a_new_identity_of_class_keys_brings_an_old_set_back(stack: Stack, tmp_path: Path) -> None:
    """A custodian leaves: the set's key is encrypted to his successor; the set stays as it is, byte for byte."""
    new = make_identity(tmp_path, "keys-c")
    before = tree_state(stack.root / "sets")
    mine = {"keys_identity_file": str(new.private), "target": str(tmp_path / "to")}
    refused = stack.module("tls", **mine)
    assert refused.rc != 0 and "doesn't open" in refused.result["msg"], "positive control"
    wrapping = {
        "backup_root": str(stack.root),
        "class": "keys",
        "recipients": [stack.custodians.keys[1].text, new.text],
        "identity_file": str(stack.custodians.keys[0].private),
    }
    assert run_module("recovery_set_access", wrapping).result["changed_sets"] == [stack.set_path.name]
    done = stack.module("tls", **mine)
    assert done.rc == 0, done.result
    home = str(stack.home).lstrip("/")
    assert (tmp_path / "to" / home / "certs/server.key").read_bytes() == (stack.home / "certs/server.key").read_bytes()
    assert tree_state(stack.root / "sets") == before
    assert run_module("recovery_set_access", wrapping).result["changed"] is False


def test_a_volume_that_nobody_finds_is_asked_for(stack: Stack) -> None:
    done = stack.module("volumes", in_place=True, confirm=HOSTNAME, inventory_hostname=HOSTNAME)
    assert done.rc != 0 and f"places: volumes/{VOLUME}: no such volume" in done.result["msg"]


def test_as_a_survey_asks_for_it(stack: Stack) -> None:
    (stack.home / "config/nginx.conf").write_text("changed\n")
    answers: dict[str, t.Any] = {
        **dict.fromkeys((name for name in public_variables() if name.startswith("mazevault_files_")), ""),
        **stack.identities,
        "mazevault_restore_set": "latest",
        "mazevault_components": "config, tls",
        "mazevault_files_mode": "in_place",
        "mazevault_files_places": json.dumps({"somewhere/else": "/nowhere"}),
        "mazevault_files_target": None,
        "mazevault_confirm": HOSTNAME,
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"mazevault": {"hosts": {HOSTNAME: {**local, **stack.variables()}}}}

    def run(**more: t.Any) -> Job:
        return jobs.run(stack.folder, inventory, "restore_files", {**answers, **more}, env={"PATH": stack.path})

    job = run()
    assert (job.status, job.changed) == ("successful", 1), job.output[-3000:]
    assert stack.now() == stack.before
    wrong = run(mazevault_files_mode="over")
    assert wrong.status == "failed" and "mazevault_files_mode: over: unknown" in wrong.failures[0]
    wrong = run(mazevault_components="postgres")
    assert wrong.status == "failed" and "postgres: not made of files" in wrong.failures[0]
