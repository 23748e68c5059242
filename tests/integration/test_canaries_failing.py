# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that go wrong show nothing either: programs that spill all they know, rows that servers quote, a killed run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import jobs
from support.canaries import Canary, Search, planted
from support.flow import Flow, count
from support.modules import run_module
from support.planted import Guarded, guarded
from support.plays import HOSTNAME, Play
from support.servers import PgServer, installations

MARK = "what-it-knows"
SPILL = """#!/bin/sh
case "$*" in {when}) ;; *) exec {real} "$@" ;; esac
echo 'error: {mark}' "$*" "$(env | tr '\\n' ' ')" >&2
env >&2
exit 1
"""
# With noise that pushes the dump through the pipes; then it waits to be killed.
HANGING = """#!/bin/sh
case "$*" in *--version*) exec {real} "$@" ;; esac
{real} "$@"
head -c 12000000 /dev/urandom
touch {marker}
exec sleep 300
"""
BROKEN = """
CREATE TABLE parents (name text PRIMARY KEY);
CREATE TABLE children (name text REFERENCES parents);
SET session_replication_role = replica;
INSERT INTO children VALUES ({row});
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(installations()[0], tmp_path_factory.mktemp("installation")) as found:
        yield found


def replaced(site: Guarded, name: str, script: str, **words: t.Any) -> Path:
    """A folder of the server's programs, or of openssl alone, with another one under this name."""
    folder = site.scratch / f"bin-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    real = site.installation.server.install.bin / name
    if real.exists():
        for program in real.parent.iterdir():
            (folder / program.name).symlink_to(program)
        (folder / name).unlink()
    else:
        real = Path(str(shutil.which(name)))
    (folder / name).write_text(script.format(real=real, **words))
    (folder / name).chmod(0o755)
    return folder


def broken_by(row: Canary) -> str:
    return BROKEN.format(row="'" + row.text.replace("'", "''") + "'")


def shows_nothing(site: Guarded, play: Play) -> None:
    assert site.search.text(play.output, "output") == []
    assert site.search.tree(*site.left()) == []
    assert [path for path in (site.installation.root / "staging").iterdir() if not path.name.startswith(".")] == []


class Failure(t.NamedTuple):
    """A program that fails and tells all it knows, when it is called so."""

    program: str
    when: str
    variables: dict[str, t.Any]


FAILURES = {
    "seal": Failure("openssl", "'dgst -sha384 -sign'*", {"mazevault_verify_level": "toc"}),
    "dump": Failure("pg_dump", "*--format*", {}),
    "proof": Failure("pg_restore", "*--dbname*", {}),
}


@pytest.mark.parametrize("step", list(FAILURES)[: count(1, len(FAILURES))])
def test_a_step_that_fails(site: Guarded, step: str) -> None:
    failing = FAILURES[step]
    programs = replaced(site, failing.program, SPILL, when=failing.when, mark=MARK)
    if failing.program == "openssl":
        done = site.play(env={"PATH": f"{programs}:{os.environ['PATH']}"}, **failing.variables)
    else:
        done = site.play(mazevault_postgres_bin_dir=str(programs), **failing.variables)
    assert done.rc != 0
    assert MARK in done.output and "LC_ALL=C" in done.output, "the control: what it knows is shown"
    shows_nothing(site, done)


def test_a_server_that_refuses_the_password(site: Guarded) -> None:
    wrong = planted("wrong password")
    passfile = site.folder / "wrong"
    passfile.touch(0o600)
    passfile.write_text(f"*:*:*:*:{wrong.text}\n", encoding="utf-8")
    server = site.installation.server
    place = {"host": server.host, "port": server.port, "user": server.superuser, "database": server.database}
    params = {**place, "passfile": str(passfile), "bin_dir": str(server.install.bin)}
    done = run_module("pg_dump", {**params, "dest": str(site.temporary / "new")}, diff=True)
    assert done.rc != 0 and "refused the password" in done.result["msg"]
    shown = json.dumps(done.result) + done.stderr
    assert Search([wrong, *site.planted.all]).text(shown, "result") == []
    assert Search([wrong, *site.planted.all]).tree(*site.left()) == []


def test_a_row_that_the_server_quotes_in_a_job_of_awx(site: Guarded) -> None:
    """A foreign key that nobody kept: the scratch server refuses it, and names the row."""
    row = next(canary for canary in site.planted.rows if canary.name == "row")
    server = site.installation.server
    server.query("ALTER SYSTEM RESET log_statement")
    server.query("SELECT pg_reload_conf()")
    server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname=server.database, stdin=broken_by(row))
    local = {"ansible_connection": "local", "ansible_python_interpreter": shutil.which("python3")}
    inventory = {"mazevault": {"hosts": {HOSTNAME: {**local, **site.variables()}}}}
    try:
        job = jobs.run(site.folder, inventory, "backup", {}, "--diff", env=site.environment())
    finally:
        server.query("DROP TABLE children, parents")
    assert job.status == "failed"
    assert "children_name_fkey" in job.output, "the control: the server's word is there"
    assert [path.name for path in site.folder.glob("tmp*/artifacts")] == ["artifacts"]
    assert site.search.text(job.output, "output") == []
    assert site.search.tree(*site.left()) == []


def test_a_restore_that_meets_such_a_row(site: Guarded) -> None:
    row = next(canary for canary in site.planted.rows if canary.name == "row")
    server = site.installation.server
    with PgServer(server.install) as other:
        other.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname="mazevault", stdin=broken_by(row))
        flow = Flow(other, site.folder / "tmp/backups")
        wanted = flow.publish()["set_id"]
        with flow.staging("restore") as staging:
            done = flow.try_restore(wanted, staging)
    assert done.rc != 0
    shown = json.dumps(done.result) + done.stderr
    assert "children_name_fkey" in shown and "Key (name)" in shown, "the control: the server's word is there"
    assert site.search.text(shown, "result") == []
    shutil.rmtree(flow.root)


def written_in_staging(root: Path) -> int:
    """Bytes of the dump that have reached the disk."""
    found = (root / "staging").glob("*/set/.postgres.part/*.cms")
    return sum(path.stat().st_size for path in found)


def test_a_run_that_is_killed_in_the_dump(site: Guarded) -> None:
    marker, root = site.scratch / "dumped", site.installation.root
    programs = replaced(site, "pg_dump", HANGING, marker=shlex.quote(str(marker)))
    try:
        with site.started(mazevault_postgres_bin_dir=str(programs)) as running:
            deadline = time.monotonic() + 120
            while not (marker.exists() and written_in_staging(root) > 1 << 20):
                assert time.monotonic() < deadline and running.process.poll() is None, "it never dumped"
                time.sleep(0.05)
            running.kill()
        assert written_in_staging(root) > 1 << 20, "the control: it was writing"
        assert site.search.tree(*site.left()) == []
    finally:
        # Its keys are in memory until the next run.
        params = {"backup_root": str(root), "stale_after": 0.2, **site.custodians.protection}
        opened = run_module("recovery_set", {**params, "state": "open"}).result
        run_module("recovery_set", {"backup_root": str(root), "state": "aborted", "set_id": opened.get("set_id")})
    assert len(opened["removed"]) == 1
