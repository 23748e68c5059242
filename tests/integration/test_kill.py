# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of every process at every step of dump, proof and publication: no damaged set, and the next run heals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger
from support import modules
from support.flow import FULL, HOSTNAME, Flow, sample
from support.servers import PgServer, installations

ROOT = Path(__file__).resolve().parents[2]
STALE = 0.3
SQL = """
CREATE TABLE t (id integer PRIMARY KEY, v text);
INSERT INTO t SELECT i, md5(i::text) || md5((i * 3)::text) FROM generate_series(1, 30000) AS i;
CREATE TABLE u (id integer REFERENCES t, b bytea);
INSERT INTO u SELECT i, sha256(i::text::bytea) FROM generate_series(1, 1000) AS i;
"""


@dataclass(frozen=True)
class Moment:
    """Where to strike: which module, at which step, whom."""

    module: str
    step: str
    victim: str

    def __str__(self) -> str:
        return f"{self.step} kills {self.victim}"


DUMP = (
    "dump: take the snapshot",
    "dump: pg_dump starts",
    "dump: pg_dump runs",
    "dump: pg_dump has ended",
    "dump: read back what was written",
    "dump: flush",
    "dump: report",
    "dump: rename",
    "dump: done",
)
VERIFY = (
    "verify: toc",
    "verify: checksum",
    "verify: read",
    "verify: restore",
    "verify: scratch server",
    "verify: restore into scratch",
    "verify: compare",
    "verify: amcheck",
)
SEAL = (
    "seal: manifest",
    "seal: sums",
    "seal: signature",
    "seal: flush",
    "seal: rename",
    "seal: published",
    "seal: ledger",
)
MOMENTS = (
    *(Moment("pg_dump", step, "self") for step in DUMP),
    *(Moment("pg_dump", step, "server") for step in DUMP[:4]),
    Moment("pg_dump", "dump: pg_dump starts", "pg_dump"),
    Moment("pg_dump", "dump: pg_dump starts", "zstd"),
    *(Moment("backup_verify", step, "self") for step in VERIFY),
    Moment("backup_verify", "verify: read", "zstd"),
    Moment("backup_verify", "verify: read", "pg_restore"),
    Moment("backup_verify", "verify: restore into scratch", "pg_restore"),
    Moment("backup_verify", "verify: restore into scratch", "postgres"),
    Moment("backup_verify", "verify: compare", "postgres"),
    *(Moment("recovery_set", step, "self") for step in SEAL),
)
# One is always between the flush and the rename.
ALWAYS = Moment("recovery_set", "seal: rename", "self")
CHOSEN = sample(MOMENTS, 5, always=[ALWAYS])


@pytest.fixture(scope="module", params=installations() if FULL else installations()[:1], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        started.query(SQL)
        yield started


@pytest.fixture
def flow(server: PgServer, tmp_path: Path) -> Flow:
    return Flow(server, tmp_path / "backups")


def scratch(flow: Flow) -> Path:
    """A place for scratch servers that is this test's alone, and that their account can pass through."""
    folder = (
        Path("/var/tmp") / f"mazevault-kill-{os.getpid()}-{hashlib.sha256(str(flow.root).encode()).hexdigest()[:8]}"
    )
    folder.mkdir(mode=0o711, exist_ok=True)
    return folder


def hashes(top: Path) -> dict[str, str]:
    files = [path for path in sorted(top.rglob("*")) if path.is_file()]
    return {str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def set_names(flow: Flow) -> list[str]:
    return sorted(os.listdir(flow.root / "sets"))


def strike(flow: Flow, moment: Moment, params: dict[str, t.Any], tmp_path: Path) -> modules.Outcome:
    """Run the moment's module and kill whom it names; returns what was left of the module."""
    if moment.victim == "self":
        outcome = modules.run_module(moment.module, params, kill=(moment.step, "self"))
        assert f'"killed_at": "{moment.step}"' in outcome.stderr, (
            f"{moment} was never reached: {outcome.stderr[-2000:]}"
        )
        assert outcome.rc == -9
    elif moment.victim == "server":
        with modules.started(moment.module, params, stop_at=moment.step) as running:
            assert running.wait_stopped(), f"{moment} was never reached"
            flow.server.kill9()
            running.go_on()
            outcome = running.end()
        flow.server.start()
    else:
        marker = tmp_path / "killed.json"
        hook = ("kill_child", {"step": moment.step, "name": moment.victim, "marker": str(marker)})
        outcome = modules.run_module(moment.module, params, hooks=[hook])
        assert json.loads(marker.read_text(encoding="utf-8"))["killed"], f"{moment}: nobody was killed"
    return outcome


def complete_run(flow: Flow, moment: Moment | None, tmp_path: Path) -> tuple[str, modules.Outcome | None]:
    """Open, dump, prove, publish, and strike at the moment: (id of the set, what was left of the struck module)."""
    opened = flow.must("recovery_set", state="open", stale_after=STALE)
    set_id = str(opened["set_id"])
    where = {"backup_root": str(flow.root)}
    steps: list[tuple[str, dict[str, t.Any]]] = [
        ("pg_dump", {**where, **flow.connection, **flow.programs, "set_id": set_id, "compression": "zstd", "jobs": 1}),
        (
            "backup_verify",
            {**where, **flow.programs, "set": set_id, "level": "restore", "jobs": 1, "scratch_dir": str(scratch(flow))},
        ),
        ("recovery_set", {**where, "state": "sealed", "set_id": set_id, "installation": HOSTNAME}),
    ]
    for module, params in steps:
        if moment is not None and moment.module == module:
            return set_id, strike(flow, moment, params, tmp_path)
        done = modules.run_module(module, params)
        assert done.rc == 0, done.result
        if module == "backup_verify":
            assert done.result["verdict"] == "pass", done.result["summary"]
    return set_id, None


@pytest.mark.parametrize("moment", CHOSEN, ids=str)
def test_kill(moment: Moment, flow: Flow, tmp_path: Path, record_property: t.Any) -> None:
    former, _nobody = complete_run(flow, None, tmp_path)
    before = hashes(flow.root / "sets" / former)

    set_id, outcome = complete_run(flow, moment, tmp_path)
    print(f"hit: {moment}")
    record_property("hit", str(moment))
    assert outcome is not None
    if moment.module == "backup_verify" and moment.victim != "self" and outcome.rc == 0:
        assert outcome.result["verdict"] != "pass"

    published = set_names(flow)
    after_rename = moment.module == "recovery_set" and moment.step in SEAL[SEAL.index("seal: published") :]
    assert published == ([former, set_id] if after_rename else [former])
    assert hashes(flow.root / "sets" / former) == before
    for name in published:
        assert flow.verify(name, "checksum")["verdict"] == "pass"

    time.sleep(STALE + 0.1)
    healed, _nobody = complete_run(flow, None, tmp_path)

    assert set_names(flow) == sorted({*published, healed})
    assert hashes(flow.root / "sets" / former) == before
    assert [name for name in os.listdir(flow.root / "staging") if not name.startswith(".")] == []
    entries = _ledger.load(str(flow.root)).vouching
    assert {entry["set_id"] for entry in entries if entry["event"] == "published"} == set(set_names(flow))
    assert flow.server.query(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mazevault.backup%'"
    ) == [(0,)]
    assert not _scratch_servers(scratch(flow))
    scratch(flow).rmdir()  # nothing may be left in it


def _scratch_servers(place: Path) -> set[str]:
    """Process ids and command lines of scratch servers that run in a folder."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{place}/" in line and "postgres" in line:
                found.add(f"{folder.name} {line}")
    return found


def test_every_step_is_struck() -> None:
    """A step that is added to dump, proof or publication has to be added here."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "plugins").rglob("*.py"))
    named = set(re.findall(r'step\(\s*f?"((?:dump|verify|seal): [^"{]+)"', code))
    # Entered only by directory dumps, or after an attempt that met other work.
    special = {"dump: compress", "dump: attempt given up"}
    assert {moment.step for moment in MOMENTS} >= named - special
    assert len(MOMENTS) >= 30
