# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes through pg_dump's pipes arrives whole, whoever is slow, dies, or lies."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _pipes
from ansible_collections.mazevault.backup.plugins.module_utils._pipeline import Pipeline
from ansible_collections.mazevault.backup.plugins.module_utils._process import PIPE, HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Sink
from support.flow import Flow
from support.modules import run_module
from support.servers import PgServer, installations

MB = 1 << 20
SQL = "CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n"


def pipeline(target: Path, *scripts: str) -> tuple[Pipeline, Sink]:
    processes = HostProcesses()
    children = [
        processes.start(["/bin/sh", "-c", script], stdin=PIPE if number else None, stdout=PIPE)
        for number, script in enumerate(scripts)
    ]
    sink = Sink(str(target))
    return Pipeline(children, sink), sink


def finish(running: Pipeline) -> list[int]:
    end = time.monotonic() + 60
    while not running.poll() and not running.failed():
        assert time.monotonic() < end
        time.sleep(0.01)
    codes = [result.rc for result in running.results()]
    running.stop()
    return codes


@pytest.mark.parametrize("wide", [True, False], ids=["wide", "narrow"])
@pytest.mark.parametrize("slow", ["", "sleep 0.3;"], ids=["quick", "slow"])
def test_everything_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: bool, slow: str) -> None:
    if not wide:
        monkeypatch.setattr(_pipes, "_F_SETPIPE_SZ", -1)  # what no kernel knows
    data = os.urandom(5 * MB + 7)
    (tmp_path / "data").write_bytes(data)
    running, sink = pipeline(
        tmp_path / "out", f"dd if={tmp_path}/data bs=4k 2>/dev/null", f"{slow} tr '\\000-\\377' '\\001-\\377\\000'"
    )
    assert finish(running) == [0, 0]
    changed = bytes((byte + 1) % 256 for byte in data)
    assert (tmp_path / "out").read_bytes() == changed
    assert running.plaintext_sha256() == hashlib.sha256(data).hexdigest()
    assert sink.sha256 == hashlib.sha256(changed).hexdigest()
    assert running.error is None


def test_one_program(tmp_path: Path) -> None:
    running, sink = pipeline(tmp_path / "out", "printf abc")
    assert finish(running) == [0]
    assert running.plaintext_sha256() == sink.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_whose_fault_it_is(tmp_path: Path) -> None:
    """The program that failed comes first, and nobody waits for it."""
    assert finish(pipeline(tmp_path / "one", "yes", "exit 7")[0])[0] == 7
    assert finish(pipeline(tmp_path / "two", "echo begun; exit 5", "cat")[0])[0] == 5
    full, _sink = pipeline(tmp_path / "no" / "folder", "yes", "cat")
    finish(full)
    assert full.error is not None
    assert "folder" in full.error.msg


def test_a_compressor_that_changes_the_data(tmp_path: Path) -> None:
    """The plaintext's sum is of what pg_dump wrote, so what zstd made of it is proven by unpacking it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    zstd = programs / "zstd"
    # One digit of the data, as often as it occurs: neither a size nor a number of rows tells.
    zstd.write_text(
        f'#!/bin/sh\ncase "$*" in *-d*) exec {shutil.which("zstd")} "$@";; esac\n'
        f'sed "s/6512bd43d9caa6e02c990b0a82652dca/6512bd43d9caa6e02c990b0a82652dcb/" | {shutil.which("zstd")} "$@"\n',
        encoding="utf-8",
    )
    zstd.chmod(0o755)
    with PgServer(installations()[0]) as server:
        server.query(SQL)
        flow = Flow(server, tmp_path / "backups")
        for lying, verdict in ((False, "pass"), (True, "fail")):
            env = {"PATH": f"{programs}:{os.environ['PATH']}"} if lying else {}
            with flow.staging("set") as set_id:
                params = {"backup_root": str(flow.root), **flow.connection, **flow.programs, "set_id": set_id}
                done = run_module("pg_dump", params, env=env)
                assert done.rc == 0, done.result
                found = {level: flow.verify(set_id, level)["verdict"] for level in ("checksum", "read")}
                assert found == {"checksum": "pass", "read": verdict}
