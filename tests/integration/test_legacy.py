# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps that others made: restorable, unproven until proven, and never trusted with the live server."""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import subprocess
import tempfile
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import compare, odd
from support.flow import FULL, Flow
from support.modules import run_module
from support.servers import PgInstall, PgServer, installations

STAMP = "20260210_020000"
SQL = """
CREATE ROLE app LOGIN;
CREATE SCHEMA vault AUTHORIZATION app;
CREATE TABLE vault.secrets (id serial PRIMARY KEY, name text UNIQUE NOT NULL, value bytea);
INSERT INTO vault.secrets (name, value) SELECT md5(i::text), sha256(i::text::bytea) FROM generate_series(1, 2000) AS i;
CREATE TABLE vault.audit (id bigint GENERATED ALWAYS AS IDENTITY, secret integer REFERENCES vault.secrets, what text);
INSERT INTO vault.audit (secret, what) SELECT id, E'it''s\\todd\\n' || name FROM vault.secrets LIMIT 500;
CREATE VIEW vault.names AS SELECT name FROM vault.secrets;
CREATE MATERIALIZED VIEW vault.counted AS SELECT count(*) AS n FROM vault.audit;
ALTER TABLE vault.secrets OWNER TO app;
GRANT SELECT ON vault.names TO PUBLIC;
SELECT lo_from_bytea(4711, 'a large object');
COMMENT ON DATABASE mazevault IS 'the one';
ALTER DATABASE mazevault SET work_mem = '5MB';
"""
DAMAGE = """
DROP VIEW vault.names;
DROP MATERIALIZED VIEW vault.counted;
DROP TABLE vault.audit;
DELETE FROM vault.secrets WHERE id % 2 = 0;
CREATE TABLE vault.left_by_the_intruder (a integer);
SELECT lo_unlink(4711);
"""


@dataclass(frozen=True)
class Site:
    """A server with a small database, as it was and as others dumped it."""

    flow: Flow
    state: compare.State
    folder: Path

    @property
    def server(self) -> PgServer:
        return self.flow.server


@pytest.fixture(scope="module", params=installations(), ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        started.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=SQL)
        yield started


@pytest.fixture(scope="module")
def state(server: PgServer) -> compare.State:
    return compare.state_of(server, "mazevault")


@pytest.fixture
def site(server: PgServer, state: compare.State, tmp_path: Path) -> Site:
    folder = tmp_path / "old backups"
    folder.mkdir()
    return Site(Flow(server, tmp_path / "backups"), state, folder)


def by_the_specification(server: PgServer, folder: Path) -> Path:
    """The specification's own command line."""
    path = folder / f"mazevault_{STAMP}.sql.gz"
    with path.open("wb") as out:
        program = server.install.program("pg_dump")
        argv = [program, "-U", server.superuser, "-d", "mazevault", "--format=custom", "--compress=9"]
        subprocess.run(argv, env=server.environment(), stdout=out, check=True)
    return path


def plain_sql(server: PgServer, folder: Path) -> Path:
    path = folder / "dump.sql"
    server.run("pg_dump", "-f", path)
    return path


def by_the_vendor(server: PgServer, folder: Path) -> Path:
    path = folder / "db_backup.sql.gz"
    path.write_bytes(gzip.compress(plain_sql(server, folder).read_bytes()))
    return path


def plain_zstd(server: PgServer, folder: Path) -> Path:
    path = folder / "dump without a suffix"
    subprocess.run(["zstd", "-q", plain_sql(server, folder), "-o", path], check=True)
    return path


def tar(server: PgServer, folder: Path) -> Path:
    path = folder / "dump.tar"
    server.run("pg_dump", "-Ft", "-f", path)
    return path


def directory(server: PgServer, folder: Path) -> Path:
    path = folder / "dump.d"
    server.run("pg_dump", "-Fd", "-f", path)
    return path


FORMS = [by_the_specification, by_the_vendor, plain_sql, plain_zstd, tar, directory]


def verify(site: Site, path: Path, level: str) -> dict[str, t.Any]:
    done = run_module("backup_verify", {**site.flow.programs, "set": str(path), "level": level})
    assert done.rc == 0, (done.result, done.stderr)
    return done.result


@pytest.mark.parametrize("make", FORMS, ids=lambda make: make.__name__)
def test_a_dump_of_others_is_unproven_and_restores(site: Site, make: Callable[[PgServer, Path], Path]) -> None:
    path = make(site.server, site.folder)
    for level, verdict in (("toc", "pass"), ("checksum", "unproven"), ("read", "unproven"), ("restore", "unproven")):
        found = verify(site, path, level)
        assert (found["verdict"], found["level"]) == (verdict, "toc"), found
        assert found["record"] is None

    site.server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=DAMAGE)
    assert compare.difference(site.state, compare.state_of(site.server, "mazevault")) != []
    restored, swapped = site.flow.restore_and_swap(str(path))
    assert restored["verdict"] == "unproven", "nothing says what had to be there"
    assert compare.difference(site.state, compare.state_of(site.server, "mazevault")) == []
    kept = site.server.query("SELECT count(*) FROM vault.left_by_the_intruder", dbname=swapped["kept"])
    assert kept == [(0,)], "what was live is still there"
    site.server.drop_database(swapped["kept"])


@pytest.mark.parametrize("make", [by_the_specification, by_the_vendor], ids=lambda make: make.__name__)
@pytest.mark.parametrize("install", installations(), ids=str)
def test_odd_things_come_back_from_dumps_of_others(
    install: PgInstall, make: Callable[[PgServer, Path], Path], tmp_path: Path
) -> None:
    with PgServer(install) as server:
        odd.load_odd(server, "mazevault")
        server.query("DROP TABLE public.huge")  # --compress=9 would take most of the test's time for it
        before = compare.state_of(server, "mazevault")
        path = make(server, tmp_path)
        server.query('DROP SCHEMA "odd names" CASCADE')
        Flow(server, tmp_path / "backups").restore_and_swap(str(path))
        assert compare.difference(before, compare.state_of(server, "mazevault")) == []


def live(site: Site) -> compare.State:
    with contextlib.closing(site.server.connect("mazevault")) as conn:
        return compare.snapshot_of(conn)


def refused(site: Site, path: Path) -> str:
    """Try to restore; nothing of the live server may have changed, and the error is returned."""
    databases, before = site.flow.databases(), live(site)
    with site.flow.staging("restore") as set_id:
        done = site.flow.try_restore(str(path), set_id)
    assert done.rc != 0 and done.result, (done.result, done.stderr)
    assert site.flow.databases() == databases
    assert compare.difference(before, live(site)) == []
    assert "Traceback" not in done.stderr
    return str(done.result["msg"])


@pytest.mark.parametrize("make", [plain_sql, by_the_vendor, plain_zstd], ids=lambda make: make.__name__)
def test_a_cut_plain_dump_is_refused_before_the_live_server_is_touched(
    site: Site, make: Callable[[PgServer, Path], Path]
) -> None:
    path = make(site.server, site.folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert verify(site, path, "read")["verdict"] == "fail"
    before = site.server.log.stat().st_size
    site.server.query("ALTER SYSTEM SET log_statement = 'ddl'")
    site.server.query("SELECT pg_reload_conf()")
    site.server.query("CREATE TABLE control (a integer)")
    site.server.query("DROP TABLE control")
    said = refused(site, path)
    assert str(path) in said
    site.server.query("ALTER SYSTEM RESET log_statement")
    site.server.query("SELECT pg_reload_conf()")
    statements = re.findall(r"statement: (\w+ \w+)", site.server.log.read_bytes()[before:].decode())
    # "ddl" is logged, so this is all that was made or changed meanwhile: the control, and what the comparison makes.
    assert statements == ["CREATE TABLE", "DROP TABLE", "ALTER SYSTEM"]


def test_a_plain_dump_cut_between_two_tables_is_refused(site: Site) -> None:
    path = plain_sql(site.server, site.folder)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("\n\\.\n") + 4], encoding="utf-8")
    assert "the closing line of the dump is missing" in refused(site, path)


def shell_commands(hit: Path) -> dict[str, str]:
    return {
        "bare": f"\\! touch '{hit}'\n",
        "after a restrict of its own": f"\\unrestrict abc\n\\! touch '{hit}'\n",
        "in a pair of its own": f"\\restrict abc\n\\unrestrict abc\n\\! touch '{hit}'\n",
        "in backquotes of a restrict": f"\\restrict `touch '{hit}'`\n",
        "in backquotes behind a query": f"SELECT 1 \\unrestrict `touch '{hit}'`\n",
        "in backquotes behind a backslash": f"\\\\unrestrict `touch '{hit}'`\n",
        "in backquotes after a token": f"\\unrestrict abc `touch '{hit}'`\n",
        "in backquotes": f"\\unrestrict `touch '{hit}'`\n",
        "in a variable": f"\\set x `touch '{hit}'`\n",
        "as the output": f"SELECT 1 \\g | touch '{hit}'\n",
        "as a program to copy": f"\\copy (SELECT 1) TO PROGRAM 'touch {hit}'\n",
        "by a file": f"\\i '{hit}.sql'\n",
    }


WAYS = list(shell_commands(Path("/")))
PLACES = ["head", "middle", "tail"]


@pytest.mark.parametrize(
    ("way", "place"),
    [(way, place) for way in WAYS for place in PLACES if FULL or place == "middle" or way == "bare"],
    ids=lambda word: word.replace(" ", "_"),
)
def test_shell_commands_in_a_plain_dump_never_run(site: Site, open_folder: Path, way: str, place: str) -> None:
    hit = open_folder / "hit"
    (open_folder / "hit.sql").write_text(f"\\! touch '{hit}'\n", encoding="utf-8")
    path = plain_sql(site.server, site.folder)
    text, line = path.read_text(encoding="utf-8"), shell_commands(hit)[way]
    middle = text.index("\nCREATE VIEW") + 1
    restrict = text.index("\\restrict")
    text = {
        "head": text[:restrict] + line + text[restrict:],
        "middle": text[:middle] + line + text[middle:],
        "tail": text + line,
    }[place]
    path.write_text(text, encoding="utf-8")
    said = refused(site, path)
    assert not hit.exists(), said


def test_psql_alone_would_run_the_shell_command(site: Site, tmp_path: Path) -> None:
    """The positive control: without the collection's own \\restrict the command runs."""
    hit = tmp_path / "hit"
    script = tmp_path / "control.sql"
    script.write_text(shell_commands(hit)["bare"], encoding="utf-8")
    site.server.run("psql", "-X", "-f", script)
    assert hit.exists()


EVIL = """
CREATE FUNCTION public.evil() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  COPY (SELECT pg_catalog.current_setting('data_directory')) TO PROGRAM '{program}';
  RETURN 1;
END
$$;
CREATE MATERIALIZED VIEW public.m AS SELECT public.evil() AS e;
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that servers, which run as another account, can write to."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="mvhit-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_dump_of_others_runs_in_a_throw_away_server_first(site: Site, open_folder: Path, form: str) -> None:
    program = f"cat >> {open_folder}/log; test ! -e {open_folder}/fail"
    log = open_folder / "log"
    site.server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=EVIL.format(program=program))
    try:
        path = (
            by_the_specification(site.server, site.folder) if form == "custom" else plain_sql(site.server, site.folder)
        )
    finally:
        site.server.run("psql", "-X", "-q", stdin="DROP MATERIALIZED VIEW public.m; DROP FUNCTION public.evil()")
    alive = str(site.server.data)
    assert log.read_text(encoding="utf-8").split() == [alive]

    log.write_text("", encoding="utf-8")
    log.chmod(0o666)
    (open_folder / "fail").touch()
    assert "didn't load" in refused(site, path)
    ran_in = log.read_text(encoding="utf-8").split()
    assert len(ran_in) == 1 and ran_in != [alive], "it failed in the throw-away server and went no further"
    assert not Path(ran_in[0]).exists(), "that server is gone"

    (open_folder / "fail").unlink()
    log.write_text("", encoding="utf-8")
    with site.flow.staging("restore") as set_id:
        done = site.flow.try_restore(str(path), set_id)
    assert done.rc == 0, done.result
    site.server.drop_database(done.result["database"])
    ran_in = log.read_text(encoding="utf-8").split()
    assert len(ran_in) == 2 and ran_in[0] != alive and ran_in[1] == alive, "the order: throw-away first"


def garbage(folder: Path) -> Path:
    path = folder / f"mazevault_{STAMP}.sql.gz"
    path.write_bytes(b"this is no dump at all\n" * 100)
    return path


def zipped_garbage(folder: Path) -> Path:
    path = folder / f"mazevault_{STAMP}.sql.gz"
    path.write_bytes(gzip.compress(b"this is no dump at all\n" * 100))
    return path


def empty(folder: Path) -> Path:
    path = folder / f"mazevault_{STAMP}.sql.gz"
    path.touch()
    return path


def no_toc(folder: Path) -> Path:
    path = folder / "dump.d"
    path.mkdir()
    (path / "3301.dat.gz").write_bytes(gzip.compress(b"1\n\\.\n"))
    return path


def missing(folder: Path) -> Path:
    return folder / "not there.sql.gz"


@pytest.mark.parametrize("make", [garbage, zipped_garbage, empty, no_toc, missing], ids=lambda make: make.__name__)
def test_what_is_no_dump_gets_a_clear_word(site: Site, make: Callable[[Path], Path]) -> None:
    path = make(site.folder)
    said = refused(site, path)
    assert said.startswith(f"set: {path}: "), said
    assert "\n" not in said
    assert " -> " in said, "there is a hint"
    done = run_module("backup_verify", {**site.flow.programs, "set": str(path), "level": "read"})
    assert done.result.get("verdict", "fail") == "fail", "never pass, never unproven"
    text = done.result["msg"] if done.rc else done.result["summary"]
    assert f"set: {path}: " in text and "\n" not in text
