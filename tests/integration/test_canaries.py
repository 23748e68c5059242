# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole run shows of an installation's secrets: nothing to anybody, and to each custodian what is theirs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.canaries import Search, files_below, planted
from support.flow import HOSTNAME, Flow
from support.identities import Identity, open_by_hand
from support.planted import COMPONENTS, Guarded, guarded
from support.plays import Play
from support.servers import installations

STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=execve,execveat", "-s", "100000", "-v", "-o")


def why_no_trace() -> str:
    """Why no program can be traced here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace isn't installed (scripts/setup-test-host.sh)"
    done = subprocess.run([*STRACE, "/dev/null", "true"], capture_output=True, encoding="utf-8", check=False)
    return f"strace may not trace here: {done.stderr.strip()[-200:]}" if done.returncode else ""


NO_TRACE = why_no_trace()
traced = pytest.mark.skipif(bool(NO_TRACE), reason=NO_TRACE or "it can be traced")


@dataclass(frozen=True)
class Run:
    """A whole backup.yml, each program that it started written down."""

    site: Guarded
    play: Play
    trace: Path

    @property
    def published(self) -> Path:
        (found,) = (self.site.installation.root / "sets").iterdir()
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("installation")
    with guarded(installations()[0], folder) as site:
        trace = folder / "trace"
        play = site.play(prefix=() if NO_TRACE else (*STRACE, str(trace)))
        yield Run(site, play, trace)


def test_it_was_a_whole_run_that_shows_what_it_can(run: Run) -> None:
    assert run.play.rc == 0, run.play.output
    manifest = json.loads((run.published / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["verification"]["verdict"], manifest["verification"]["level"]) == ("pass", "restore")
    assert manifest["components"] == sorted(COMPONENTS)
    assert manifest["encryption"]["scheme"] == "cms"
    names = [path.name for top in run.site.left() for path in files_below(top)]
    assert "invocation" in run.play.output and "AnsiballZ_pg_dump.py" in names, "-vvv, and the modules' files are kept"
    assert {f"{HOSTNAME}.jsonl", "START-HERE.txt", "ledger.jsonl", "ansible.log"} <= set(names)
    assert "pg_export_snapshot" in run.site.installation.server.log.read_text(encoding="utf-8"), "statements are kept"


def test_what_it_left_shows_nothing(run: Run) -> None:
    assert run.site.search.tree(*run.site.left()) == []


@pytest.mark.parametrize("place", ["sets", "home/.mazevault-backup", "output.txt", "ansible.log"])
def test_it_would_have_been_found(run: Run, place: str, tmp_path: Path) -> None:
    """The control: the same search, one canary more."""
    source = run.site.installation.root / place if place == "sets" else run.site.folder / place
    copy = tmp_path / "copy"
    (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    victim = max((path for path in files_below(copy) if path.is_file()), key=lambda path: path.stat().st_size)
    secret = run.site.planted.keys[0]
    victim.write_bytes(victim.read_bytes() + json.dumps({"password": secret.text}).encode())
    assert {find.canary for find in run.site.search.tree(copy)} == {secret.name}


@traced
def test_no_program_got_one_by_word_or_environment(run: Run) -> None:
    lines = run.trace.read_text(encoding="utf-8", errors="surrogateescape")
    programs = {Path(path).name for path in re.findall(r'execve(?:at)?\("([^"]+)"', lines)}
    assert {"ansible-playbook", "pg_dump", "pg_restore", "postgres", "openssl", "zstd"} <= programs
    assert str(run.site.installation.passfile) in lines, "the password goes by reference"
    assert f'"TMPDIR={run.site.temporary}"' in lines, "environments are written down"
    assert run.site.search.text(lines, "trace") == []


@traced
@pytest.mark.parametrize("how", ["environment", "word", "word of a child's child"])
def test_the_trace_would_have_shown_it(how: str, tmp_path: Path) -> None:
    secret, trace = planted("secret"), tmp_path / "trace"
    words = {
        "environment": ["env", f"PGPASSWORD={secret.text}", "sh", "-c", "unset HOME; exec true"],
        "word": ["true", f"--password={secret.text}"],
        "word of a child's child": ["python3", "-c", GRANDCHILD, secret.value.hex()],
    }[how]
    subprocess.run([*STRACE, trace, *words], check=True)
    lines = [line for line in trace.read_text(encoding="utf-8").splitlines() if "/true" in line.partition(",")[0]]
    found = Search([secret]).text("\n".join(lines), "trace")
    assert {find.spelling for find in found} == {"raw"}


# What is hidden from the first two comes out in the third.
GRANDCHILD = """
import subprocess, sys
inner = "import os, sys; os.execvp('true', ['true', bytes.fromhex(sys.argv[1]).decode()])"
subprocess.run([sys.executable, "-c", inner, sys.argv[1]], check=True)
"""


def opened(folder: Path, identity: Identity, class_name: str, target: Path) -> list[str]:
    """Everything that an identity's key of a class opens, whatever the manifest says; names of what it doesn't."""
    key = target / "key"
    target.mkdir()
    assert open_by_hand(folder, identity.private, class_name, key).returncode == 0
    closed = []
    for path in sorted(folder.rglob("*.cms")):
        relative = path.relative_to(folder)
        if relative.parts[0] == "access":
            continue
        words: list[str | Path] = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", path]
        done = subprocess.run([*words, "-inkey", key], capture_output=True, check=False)
        if done.returncode:
            closed.append(str(relative))
            continue
        whole = target / re.sub(r"\.\d{5}\.cms$", "", str(relative))
        whole.parent.mkdir(parents=True, exist_ok=True)
        with whole.open("ab") as stream:
            stream.write(done.stdout)
    key.unlink()
    return closed


def test_who_opens_the_data_sees_the_data_and_no_key(run: Run, tmp_path: Path) -> None:
    closed = opened(run.published, run.site.custodians.data[0], "data", tmp_path / "opened")
    assert all(name.startswith(("tls/", "config/", "volumes/")) for name in closed), closed
    assert (tmp_path / "opened/manifest.private.json").stat().st_size > 1000
    seen = {find.canary for find in run.site.search.tree(tmp_path / "opened")}
    assert seen == run.site.planted.expected


def test_files_of_class_keys_open_for_their_custodians_alone(run: Run, tmp_path: Path) -> None:
    site, home = run.site, run.site.installation.root.parent
    flow = Flow(site.installation.server, tmp_path / "backups", protection=site.custodians.protection)
    outcomes = []
    with flow.staging("set") as set_id:
        place = {"set_id": set_id}
        passfile = {"passfile": str(site.installation.passfile)}
        outcomes.append(flow.must("pg_dump", **flow.connection, **flow.programs, **place, **passfile))
        paths = [{"path": f"{home}/{name}"} for name in (".env", "certs", "config", "scripts", "uploads/report.txt")]
        outcomes.append(flow.must("files_backup", **place, component="tls", paths=paths[:2], **{"class": "keys"}))
        outcomes.append(flow.must("files_backup", **place, component="config", paths=paths[2:]))
        components = ["config", "postgres", "tls"]
        sealed = flow.must("recovery_set", state="sealed", **place, installation=HOSTNAME, components=components)
    assert site.search.text(json.dumps([*outcomes, sealed]), "results") == []
    assert site.search.tree(flow.root) == []
    folder = Path(sealed["path"])
    closed = opened(folder, site.custodians.data[1], "data", tmp_path / "data")
    assert {name.partition("/")[0] for name in closed} == {"tls"}
    seen = {find.canary for find in site.search.tree(tmp_path / "data")}
    assert seen == {canary.name for canary in (*site.planted.rows, *site.planted.settings)}
    opened(folder, site.custodians.keys[0], "keys", tmp_path / "keys")
    seen = {find.canary for find in site.search.tree(tmp_path / "keys")}
    assert {"MASTER_KEY", "JWT_SECRET", "SMTP_PASSWORD", "POSTGRES_PASSWORD", "TLS key"} <= seen
    assert seen.isdisjoint(canary.name for canary in site.planted.rows)
