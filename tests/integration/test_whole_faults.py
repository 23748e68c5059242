# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run with files in both classes, killed or out of space at any step: no half set, no key in plain, and it heals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import modules
from support.flow import FULL, HOSTNAME
from support.host_files import SECRETS, furnish
from support.identities import Custodians, make_custodians
from support.keys import signing_key
from support.modules import Outcome, run_module
from support.plays import tree_state
from support.trees import ROOT

FILES = (
    "files: look",
    "files: tar starts",
    "files: tar runs",
    "files: read back what was written",
    "files: report",
    "files: rename",
    "files: done",
)
VERIFY = ("verify: toc", "verify: checksum", "verify: read", "verify: restore", "verify: config/config-keys.tar.zst")
SEAL = (
    "seal: manifest",
    "seal: sums",
    "seal: signature",
    "seal: flush",
    "seal: rename",
    "seal: published",
    "seal: ledger",
)
PROVEN = {"verdict": "pass", "level": "restore", "wanted": "restore", "components": ["config"]}
# What runs, and the steps that it enters.
RUN = {"data": FILES, "keys": FILES, "proof": VERIFY, "seal": SEAL}


@dataclass(frozen=True)
class Fault:
    """Where it strikes; what: `kill`, or `full` for a disk without room."""

    part: str
    step: str
    what: str

    def __str__(self) -> str:
        return f"{self.part}, {self.step}, {self.what}"


FAULTS = [Fault(part, step, what) for what in ("kill", "full") for part, steps in RUN.items() for step in steps]
# One is always where key material is unpacked, and one between the flush and the rename.
ALWAYS = [
    Fault("proof", "verify: config/config-keys.tar.zst", "kill"),
    Fault("seal", "seal: rename", "kill"),
    Fault("seal", "seal: manifest", "full"),
]
CHOSEN = FAULTS if FULL else [*ALWAYS, *random.Random(5).sample([one for one in FAULTS if one not in ALWAYS], 3)]


@dataclass(frozen=True)
class Site:
    """A host's files, a backup root on a file system of its own, and who may read its sets."""

    home: Path
    disk: Path
    custodians: Custodians

    @property
    def root(self) -> Path:
        return self.disk / "backups"

    def module(self, name: str, **params: t.Any) -> dict[str, t.Any]:
        done = run_module(name, {"backup_root": str(self.root), "signing_key": signing_key(), **params})
        assert done.rc == 0, done.result
        return done.result

    def sets(self) -> list[str]:
        return sorted(os.listdir(self.root / "sets"))

    def run(self, fault: Fault | None = None) -> tuple[str, Outcome | None]:
        """Open, save, prove, publish: (id of the set, what was left of the part that the fault struck)."""
        set_id = str(self.module("recovery_set", state="open", **self.custodians.protection)["set_id"])
        here = {"set_id": set_id, "component": "config"}
        found = self.module(
            "key_material",
            **here,
            paths=[{"path": str(self.home / "config")}],
            settings=[str(self.home / ".env")],
            texts=[str(self.home / "docker-compose.yml")],
        )
        save = {"backup_root": str(self.root), **here}
        sign = {"backup_root": str(self.root), "signing_key": signing_key()}
        for part, name, params in (
            ("data", "files_backup", {**save, "paths": found["data"], "excludes": found["excludes"]}),
            ("keys", "files_backup", {**save, "paths": found["keys"], "name": "config-keys", "class": "keys"}),
            ("proof", "backup_verify", {**sign, "set": set_id, "level": "restore", "reserve": "0"}),
            ("seal", "recovery_set", {**sign, "state": "sealed", "set_id": set_id, "installation": HOSTNAME,
                                      "components": ["config"], "verification": PROVEN}),
        ):  # fmt: skip
            given = {**params, "reserve": "0"} if name == "files_backup" else params
            if fault is not None and fault.part == part:
                return set_id, self.strike(name, given, fault)
            done = run_module(name, given)
            assert done.rc == 0, done.result
            if part == "proof":
                assert done.result["verdict"] == "pass", done.result["summary"]
        return set_id, None

    def age(self, set_id: str) -> None:
        """Let a run's last sign of life be of an hour ago."""
        before = time.time() - 3600
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.root / "staging" / set_id / "heartbeat", (before, before))

    def strike(self, name: str, params: dict[str, t.Any], fault: Fault) -> Outcome:
        if fault.what == "kill":
            killed = run_module(name, params, kill=(fault.step, "self"))
            assert killed.rc == -signal.SIGKILL, f"{fault} was never reached: {killed.stderr[-2000:]}"
            return killed
        with modules.started(name, params, stop_at=fault.step) as running:
            assert running.wait_stopped(), f"{fault} was never reached"
            with full(self.disk):
                running.go_on()
                while running.wait_stopped(timeout=240):  # a step that each archive enters
                    running.go_on()
                return running.end()


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
    with filler.open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(64))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(disk)]
    if not ROOT or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        (disk / "backups").mkdir(mode=0o700)
        (folder / "home").mkdir()
        furnish(folder / "home")
        (folder / "home/config/picture.png").write_bytes(random.Random(1).randbytes(100_000))
        made = Site(folder / "home", disk, make_custodians(folder / "custodians"))
        made.run()
        yield made
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def in_memory(site: Site) -> set[str]:
    """What runs of this root have in memory, and what anybody's proofs unpack there."""
    names = {name for place in ("/run", "/dev/shm") if os.path.isdir(place) for name in os.listdir(place)}
    known = set(os.listdir(site.root / "staging")) if (site.root / "staging").exists() else set()
    ours = re.compile(r"mazevault-(?:(mazevault_\d{8}_\d{6})-|scratch-proof-)")
    told = set((site.root / "ledger.jsonl").read_text().split('"')) if (site.root / "ledger.jsonl").exists() else set()
    return {name for name in names if (found := ours.match(name)) and (not found[1] or found[1] in known | told)}


def stays_in_memory(site: Site, seconds: float = 60) -> set[str]:
    """What is still there after that time; proofs of other tests come and go."""
    deadline, left = time.monotonic() + seconds, in_memory(site)
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left &= in_memory(site)
    return left


def plain_below(top: Path) -> list[str]:
    """Files of the disk with a secret in plain."""
    files = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    wanted = [value.encode() for value in SECRETS.values()]
    return [str(path) for path in files if any(value in path.read_bytes() for value in wanted)]


@pytest.mark.parametrize("fault", CHOSEN, ids=str)
def test_never_a_half_set(site: Site, fault: Fault) -> None:
    former = site.sets()[-1]
    before, sets = tree_state(site.root / "sets" / former), site.sets()
    set_id, left = site.run(fault)
    assert left is not None
    whole = set_id in site.sets()
    if fault.what == "kill":
        assert whole == (fault.part == "seal" and fault.step in SEAL[SEAL.index("seal: published") :])
    else:
        # Where nothing more had to be written, there was no fault.
        assert whole == (fault.part == "seal" and (left.rc == 0 or fault.step in ("seal: published", "seal: ledger")))
        assert left.rc == 0 or "No space left" in left.result["msg"] or "disk full" in left.result["msg"], left.result
        if not whole:
            site.module("recovery_set", state="aborted", set_id=set_id)
    assert site.sets() == sorted([*sets, set_id] if whole else sets)
    assert plain_below(site.disk) == []
    site.age(set_id)
    healed, _nothing = site.run()
    assert [name for name in os.listdir(site.root / "staging") if not name.startswith(".")] == []
    assert stays_in_memory(site) == set()
    assert tree_state(site.root / "sets" / former) == before
    for name in {former, set_id, healed} & set(site.sets()):
        proof = site.module("backup_verify", set=name, level="checksum")
        assert proof["verdict"] == "pass", (name, proof["summary"])
    lines = [json.loads(line) for line in (site.root / "ledger.jsonl").read_text().splitlines()]
    entered = {line["set_id"] for line in lines if line["event"] == "published"}
    assert entered == set(site.sets())
    (site.root / "sets" / healed / "manifest.json").stat()


def test_every_step_is_struck() -> None:
    """A step that is added to the saving of files has to be added here."""
    code = "".join(path.read_text() for path in (Path(__file__).resolve().parents[2] / "plugins").rglob("*.py"))
    named = set(re.findall(r'step\(\s*f?"((?:files|seal): [^"{]+)"', code))
    # Only after an attempt that met moving files.
    assert {fault.step for fault in FAULTS} >= named - {"files: attempt given up"}
