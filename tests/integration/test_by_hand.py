# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.md is enough: its blocks, run as they stand with stock tools on another server, bring everything back."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import compare, odd
from support.flow import Flow
from support.servers import PgInstall, PgServer, installations

COREUTILS = [
    "[",
    "b2sum",
    "base64",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "comm",
    "cp",
    "csplit",
    "cut",
    "date",
    "dd",
    "df",
    "dir",
    "dirname",
    "du",
    "echo",
    "env",
    "expand",
    "expr",
    "false",
    "fmt",
    "fold",
    "head",
    "id",
    "install",
    "join",
    "link",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mv",
    "nice",
    "nl",
    "nohup",
    "nproc",
    "od",
    "paste",
    "pr",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "seq",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stdbuf",
    "sum",
    "sync",
    "tac",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "wc",
    "whoami",
    "yes",
]
MARK = "--- that was a block ---"
CLIENTS = ("psql", "pg_restore", "vacuumdb")
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


def stock_tools(folder: Path, install: PgInstall) -> Path:
    """A folder of links to coreutils, bash, zstd and this version's client programs, and to nothing else."""
    folder.mkdir()
    for name in (*COREUTILS, "bash", "zstd"):
        found = shutil.which(name)
        assert found, f"{name} isn't installed"
        (folder / name).symlink_to(found)
    for name in CLIENTS:
        (folder / name).symlink_to(install.program(name))
    return folder


def blocks_of(folder: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", (folder / "RESTORE.md").read_text(encoding="utf-8"), re.M | re.S)


@dataclass(frozen=True)
class ByHand:
    """What somebody saw who typed the blocks, one after the other, into one shell."""

    rc: int
    output: str
    blocks: int
    done: int


def run_blocks(folder: Path, server: PgServer, tools: Path, **more: str) -> ByHand:
    """Run every block as the text says, up to the first that fails."""
    environment = {
        "PATH": str(tools),
        "PGHOST": str(server.socket_directory),
        "PGPORT": str(server.port),
        "PGUSER": server.superuser,
        **more,
    }
    blocks = blocks_of(folder)
    script = "".join(f"{block}\necho {MARK}\n" for block in blocks)
    words = [tools / "bash", "-euo", "pipefail", "-c", script]
    run = subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    return ByHand(
        run.returncode, run.stdout.replace(MARK, "").strip() + run.stderr, len(blocks), run.stdout.count(MARK)
    )


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
