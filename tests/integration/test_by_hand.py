# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.md is enough: its blocks, run as they stand with stock tools on another server, bring everything back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import compare, odd
from support.by_hand import run_blocks, stock_tools
from support.flow import Flow
from support.servers import PgServer, installations

ODD_NAME = "a = 'b' \"c\" \\ $d žluť"
SMALL = """
CREATE ROLE "o'dd = \\ owner";
CREATE TABLE one (id serial PRIMARY KEY, t text);
INSERT INTO one (t) SELECT md5(i::text) FROM generate_series(1, 1000) AS i;
CREATE TABLE two (one integer REFERENCES one, b bytea);
INSERT INTO two SELECT id, sha256(t::bytea) FROM one LIMIT 100;
SELECT lo_from_bytea(0, 'large');
ALTER DATABASE :"DBNAME" OWNER TO "o'dd = \\ owner";
ALTER DATABASE :"DBNAME" SET work_mem = '5MB';
ALTER DATABASE :"DBNAME" SET search_path = '';
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
COMMENT ON DATABASE :"DBNAME" IS 'it''s "odd" $1 \\';
"""
CASES = [
    ("mazevault", "custom", "zstd"),
    ("mazevault", "directory", "zstd"),
    ("mazevault", "custom", "gzip"),
    (ODD_NAME, "custom", "zstd"),
    (ODD_NAME, "directory", "zstd"),
]


@pytest.fixture(scope="module", params=installations(), ids=str)
def source(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as server:
        odd.load_odd(server, "mazevault")
        server.create_database_like("template1", ODD_NAME)
        server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname=ODD_NAME, stdin=SMALL)
        yield server


@pytest.mark.parametrize(
    ("database", "form", "packed"), CASES, ids=lambda word: "odd-name" if word == ODD_NAME else word
)
def test_the_blocks_of_restore_md_bring_everything_back(
    source: PgServer, database: str, form: str, packed: str, tmp_path: Path
) -> None:
    flow = Flow(source, tmp_path / "backups", database)
    folder = Path(flow.publish(form, packed)["path"])
    tools = stock_tools(tmp_path / "tools", source.install)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    with PgServer(source.install, database="postgres") as fresh:
        done = run_blocks(folder, fresh, tools)
        assert (done.rc, done.output, done.done) == (0, "", done.blocks)
        # Roles of other databases of the source belong to the set too; `state_of` holds the schema's text.
        assert compare.difference(compare.state_of(source, database), compare.state_of(fresh, database)) == []
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before, "the set is as it was"


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_the_first_block_refuses_a_damaged_set(source: PgServer, form: str, tmp_path: Path) -> None:
    folder = Path(Flow(source, tmp_path / "backups", ODD_NAME).publish(form, "zstd")["path"])
    tools = stock_tools(tmp_path / "tools", source.install)
    victim = max((path for path in folder.rglob("*") if path.suffix == ".zst"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    databases = source.query("SELECT datname FROM pg_database ORDER BY 1")
    done = run_blocks(folder, source, tools)
    assert done.done == 0, "nothing after the first block ran"
    assert done.rc != 0
    assert victim.name in done.output
    assert source.query("SELECT datname FROM pg_database ORDER BY 1") == databases
