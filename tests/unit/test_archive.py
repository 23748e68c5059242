# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading dumps: their tables of contents, the rows of their COPY blocks, and what no dump has."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _archive, _toc
from ansible_collections.mazevault.backup.plugins.module_utils._archive import (
    Archive,
    identify,
    plaintext_sha256,
    read_fully,
    read_toc,
)
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._restore import filter_toc, may_run_in_parallel
from ansible_collections.mazevault.backup.plugins.module_utils._stream import CommandGuard, RowCounter
from ansible_collections.mazevault.backup.plugins.module_utils._toc import dumped_by, parse_toc
from support.servers import PgServer, installations

DATA = Path(__file__).parent / "data"
LISTS = {major: (DATA / f"pg_restore-list-{major}.txt").read_text(encoding="utf-8") for major in (15, 18)}
EXTENSIONS = {"btree_gist", "citext", "hstore", "ltree", "pg_trgm", "postgres_fdw", "plpgsql"}


# tables of contents


@pytest.mark.parametrize("major", LISTS)
def test_every_line_of_a_real_list_is_understood(major: int) -> None:
    text = LISTS[major]
    entries = parse_toc(text)
    lines = [line for line in text.splitlines() if line and not line.startswith(";")]
    assert [entry.line for entry in entries] == lines
    assert {entry.tag for entry in entries} <= set(_toc._TAGS)
    assert len({entry.tag for entry in entries}) > 40
    assert dumped_by(text) == (major, major)


@pytest.mark.parametrize("major", LISTS)
def test_the_longest_tag_wins(major: int) -> None:
    tags = {entry.tag: entry for entry in parse_toc(LISTS[major])}
    for tag in (
        "TABLE",
        "TABLE DATA",
        "TABLE ATTACH",
        "SEQUENCE",
        "SEQUENCE SET",
        "SEQUENCE OWNED BY",
        "INDEX",
        "INDEX ATTACH",
    ):
        assert tag in tags
    assert tags["MATERIALIZED VIEW DATA"].name.startswith("views ")
    assert tags["ACCESS METHOD"].name == "- odd_heap"


@pytest.mark.parametrize("major", LISTS)
def test_a_superuser_restores_all(major: int) -> None:
    entries = parse_toc(LISTS[major])
    assert filter_toc(entries, superuser=True, extensions=EXTENSIONS) == (entries, [])


@pytest.mark.parametrize("major", LISTS)
def test_what_is_left_out_is_named(major: int) -> None:
    entries = parse_toc(LISTS[major])
    kept, left_out = filter_toc(entries, superuser=True, extensions=EXTENSIONS - {"hstore"})
    assert len(kept) == len(entries) - 2
    assert [what.split(":")[0] for what in left_out] == ["EXTENSION hstore", "COMMENT EXTENSION hstore"]
    kept, left_out = filter_toc(entries, superuser=False, extensions=EXTENSIONS)
    assert len(kept) + len(left_out) == len(entries)
    assert {entry.tag for entry in kept} & {"ACCESS METHOD", "EVENT TRIGGER", "PUBLICATION", "SUBSCRIPTION"} == set()
    assert sum(what.startswith("COMMENT EXTENSION") for what in left_out) == len(EXTENSIONS) - 1  # plpgsql has none
    assert {entry.tag for entry in kept} >= {
        "TABLE",
        "TABLE DATA",
        "INDEX",
        "FK CONSTRAINT",
        "EXTENSION",
        "SEQUENCE SET",
    }


def test_a_domain_with_a_constraint_not_valid_is_not_restored_in_parallel() -> None:
    entries = parse_toc(LISTS[18])
    assert not may_run_in_parallel(entries)
    assert may_run_in_parallel([entry for entry in entries if entry.tag != "CHECK CONSTRAINT"])
    assert may_run_in_parallel([entry for entry in entries if entry.tag != "DOMAIN"])


@given(st.text())
def test_any_text_is_a_list_of_entries_or_of_none(text: str) -> None:
    assert all(entry.line in text for entry in parse_toc(text))
    assert dumped_by(text) == (0, 0) or "Dumped" in text


# rows

ROWS = {
    ("public", "plain"): 1000,
    ("public", "empty"): 0,
    ("public", "no_columns"): 3,
    ("public", 'q"uo"te, (x)'): 2,
    ("Odd. Schema", "a.b"): 4,
    ("public", "new\nline"): 5,
    ("public", "\nCOPY public.plain (a) FROM stdin;\n"): 6,
    ("public", "\\."): 7,
    ("public", "žluťoučký"): 8,
    ("public", "columns"): 9,
}
SQL = """
CREATE SCHEMA "Odd. Schema";
CREATE TABLE plain (a text);
INSERT INTO plain SELECT CASE n % 5 WHEN 0 THEN E'a\\nb' WHEN 1 THEN E'\\\\.'
  WHEN 2 THEN E'x\\n\\\\.\\nCOPY public.empty (a) FROM stdin;'
  WHEN 3 THEN '' ELSE NULL END FROM generate_series(1, 1000) AS n;
CREATE TABLE empty (a text);
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 3);
CREATE TABLE "q""uo""te, (x)" (a integer);
INSERT INTO "q""uo""te, (x)" VALUES (1), (2);
CREATE TABLE "Odd. Schema"."a.b" (a integer);
INSERT INTO "Odd. Schema"."a.b" SELECT generate_series(1, 4);
CREATE TABLE "new
line" (a integer);
INSERT INTO "new
line" SELECT generate_series(1, 5);
CREATE TABLE "
COPY public.plain (a) FROM stdin;
" (a integer);
INSERT INTO "
COPY public.plain (a) FROM stdin;
" SELECT generate_series(1, 6);
CREATE TABLE "\\." (a integer);
INSERT INTO "\\." SELECT generate_series(1, 7);
CREATE TABLE "žluťoučký" (a integer);
INSERT INTO "žluťoučký" SELECT generate_series(1, 8);
CREATE TABLE columns ("a) FROM stdin;
" integer, "q""(" integer, "COPY" integer);
INSERT INTO columns SELECT n, n, n FROM generate_series(1, 9) AS n;
CREATE SEQUENCE "s
COPY public.x (a) FROM stdin;
1";
SELECT lo_from_bytea(0, E'\\nCOPY public.lo (a) FROM stdin;\\n');
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '

COPY public.body (a) FROM stdin;
' $$;
COMMENT ON TABLE plain IS E'\\n\\nCOPY public.comment (a) FROM stdin;\\n';
"""


@dataclass(frozen=True)
class Dumps:
    """Dumps of one database in every format, and what pg_restore says of its data."""

    server: PgServer
    folder: Path
    data: bytes
    plain: bytes

    @property
    def runtime(self) -> HostRuntime:
        return HostRuntime(str(self.server.install.bin))

    def read(self, name: str) -> dict[tuple[str, str], int]:
        archive = identify(str(self.folder / name), self.runtime)
        return read_fully(archive, self.runtime, self.server.major, work=str(self.folder)).rows


@pytest.fixture(scope="module", params=installations(), ids=str)
def dumps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dumps]:
    folder = tmp_path_factory.mktemp("dumps")
    with PgServer(request.param) as server:
        server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=SQL)
        for name, options in (
            ("custom", ["-Fc"]), ("stored", ["-Fc", "-Z0"]), ("tar", ["-Ft"]), ("directory", ["-Fd"]),
            ("plain", ["-Fp"]), ("zipped.d", ["-Fd", "-Z0"]),
        ):  # fmt: skip
            server.run("pg_dump", *options, "-f", folder / name)
        subprocess.run(
            ["zstd", "-q", "--rm", *(p for p in (folder / "zipped.d").iterdir() if p.name != "toc.dat")], check=True
        )
        for name in ("stored", "plain", "tar"):
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            subprocess.run(["zstd", "-q", folder / name], check=True)
        data = server.run("pg_restore", "--data-only", "-f", "-", folder / "custom").stdout.encode()
        yield Dumps(server, folder, data, (folder / "plain").read_bytes())


FORMATS = {
    "custom": "custom",
    "stored": "custom",
    "stored.gz": "custom (gzip)",
    "stored.zst": "custom (zstd)",
    "tar": "tar",
    "tar.gz": "tar (gzip)",
    "tar.zst": "tar (zstd)",
    "directory": "directory",
    "zipped.d": "directory (zstd)",
    "plain": "plain",
    "plain.gz": "plain (gzip)",
    "plain.zst": "plain (zstd)",
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_known_by_its_content_and_read_whole(dumps: Dumps, name: str) -> None:
    archive = identify(str(dumps.folder / name), dumps.runtime)
    assert archive.name == FORMATS[name]
    found = dumps.read(name)
    if archive.format == "plain":
        # Bodies of functions and comments stand between the data there; what they hold may look like data.
        assert {key: rows for key, rows in found.items() if key in ROWS} == ROWS
    else:
        assert found == ROWS
        entries, text = read_toc(archive, dumps.runtime, dumps.server.major)
        assert sum(entry.tag == "TABLE DATA" for entry in entries) == len(ROWS)
        assert dumped_by(text) == (dumps.server.major, dumps.server.major)


def test_a_wrapper_does_not_change_the_plaintext(dumps: Dumps) -> None:
    sums = {plaintext_sha256(str(dumps.folder / name), dumps.runtime) for name in ("stored", "stored.gz", "stored.zst")}
    assert len(sums) == 1
    whole = {
        read_fully(
            identify(str(dumps.folder / name), dumps.runtime), dumps.runtime, dumps.server.major, work="/"
        ).plaintext_sha256
        for name in ("stored.gz", "stored.zst")
    }
    assert whole == sums


def counted(pieces: list[bytes]) -> dict[tuple[str, str], int]:
    counter = RowCounter()
    for piece in pieces:
        counter.feed(piece)
    counter.finish()
    return counter.rows


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 4095, 1 << 20])
def test_rows_are_counted_whatever_the_pieces(dumps: Dumps, size: int) -> None:
    data = dumps.data
    assert counted([data[start : start + size] for start in range(0, len(data), size)]) == ROWS


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 60000), max_size=30))
def test_rows_are_counted_in_random_pieces(dumps: Dumps, cuts: list[int]) -> None:
    places = [0, *sorted(cut % len(dumps.data) for cut in cuts), len(dumps.data)]
    assert counted([dumps.data[a:b] for a, b in zip(places, places[1:])]) == ROWS


@settings(max_examples=60)
@given(place=st.integers(0, 60000))
def test_a_cut_never_counts_as_whole(dumps: Dumps, place: int) -> None:
    """Cut inside a block it is damage; cut between two, rows or tables are missing."""
    data = dumps.data[: place % dumps.data.rindex(b"\n\\.\n")]
    try:
        rows = counted([data])
    except Damaged as exc:
        assert "ends in the middle" in exc.msg
    else:
        assert rows != ROWS


def test_a_plain_dump_without_its_end_is_damaged(dumps: Dumps) -> None:
    path = dumps.folder / "cut"
    for end in (b"\n\\.\n", b"-- PostgreSQL database dump complete"):
        path.write_bytes(dumps.plain[: dumps.plain.rindex(end)])
        with pytest.raises(Damaged, match="the closing line of the dump is missing"):
            dumps.read("cut")
    path.write_bytes(dumps.plain)
    dumps.read("cut")


# what no dump has


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"\\unrestrict abc\n", False),
        (b"\\unrestrict abc  \r\n", False),
        (b"\\unrestrict abc", False),
        (b"\\unrestrict `touch x`\n", True),
        (b"\\unrestrict abc `touch x`\n", True),
        (b"\\unrestrict\n", True),
        (b"\\unrestrict\tabc\n", True),
        (b"\\unrestrict :x\n", True),
        (b"\\unrestrict\\echo\n", True),
        (b"SELECT 1 \\unrestrict `x`\n", True),
        (b"\\\\unrestrict `x`\n", False),  # data of a COPY
        (b"\\\\\\unrestrict `x`\n", True),
        (b"\\\\\\\\unrestrict `x`\n", False),
        (b"\\restrict abc\n\\connect x\n", False),
    ],
)
def test_a_command_with_more_than_a_token_is_found(text: bytes, found: bool) -> None:
    for before in (b"", b"SELECT 1;\n", b"x" * 600 + b"\n"):
        for size in (1, 3, 100, 10000):
            guard = CommandGuard()
            whole = before + text
            pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
            assert (any(guard.feed(piece) for piece in pieces) or guard.finish()) is found, (before[:5], size)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 6), st.integers(1, 900))
@example(0, 0, 0, 1)
def test_a_command_is_found_anywhere(before: int, after: int, backslashes: int, size: int) -> None:
    whole = b"a" * before + b"\\" * (backslashes + 1) + b"unrestrict `x`" + b"b" * after
    guard = CommandGuard()
    found = any(guard.feed(whole[start : start + size]) for start in range(0, len(whole), size)) or guard.finish()
    assert found is (backslashes % 2 == 0)


def test_a_run_of_backslashes_longer_than_the_memory_is_suspicious() -> None:
    guard = CommandGuard()
    found = any(guard.feed(b"\\" * 100) for _number in range(50))
    assert guard.feed(b"unrestrict `x`" + b" " * 5000) or guard.finish() or found


def test_a_dump_with_such_a_command_is_refused(dumps: Dumps) -> None:
    path = dumps.folder / "smuggled"
    path.write_bytes(re.sub(rb"\nCREATE TABLE", b"\n\\\\unrestrict `touch x`\nCREATE TABLE", dumps.plain, count=1))
    with pytest.raises(Damaged, match=r"set: .*/smuggled: it holds the psql command \\unrestrict"):
        dumps.read("smuggled")


# what is no dump


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PostgreSQL dump (empty file)"),
        (b"hello", "not a PostgreSQL dump"),
        (b"\0" * 1000, "not a PostgreSQL dump"),
        (gzip.compress(b"hello", mtime=0), "not a PostgreSQL dump"),
        (gzip.compress(b"-- PostgreSQL database dump", mtime=0)[:15], "not a PostgreSQL dump"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "not a PostgreSQL dump"),
        (b"\x1f\x8b", "not a PostgreSQL dump"),
    ],
)
def test_what_is_no_dump(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mazevault_20260210_020000.sql.gz"
    path.write_bytes(content)
    with pytest.raises(Damaged) as caught:
        identify(str(path), HostRuntime())
    assert caught.value.msg.startswith(f"set: {path}: {reason}")


@pytest.mark.parametrize("form", _archive.FORMATS)
def test_what_pretends_to_be_a_dump_is_damaged(tmp_path: Path, form: str) -> None:
    path = tmp_path / "dump"
    contents = {
        "custom": b"PGDMP" + b"\1\x10\0\4\x08\1" * 50,
        "tar": b"toc.dat\0".ljust(257, b"\0") + b"ustar" + b"\0" * 1000,
        "plain": b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE a (b integer);\n",
    }
    if form == "directory":
        path.mkdir()
        (path / "toc.dat").write_bytes(b"PGDMP" + b"\1\x10" * 50)
    else:
        path.write_bytes(contents[form])
    runtime = HostRuntime(str(installations()[0].bin))
    archive = identify(str(path), runtime)
    assert archive == Archive(str(path), form)
    major = installations()[0].major
    with pytest.raises(Damaged):
        read_fully(archive, runtime, major, work=str(tmp_path)) if form == "plain" else read_toc(
            archive, runtime, major
        )


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackupError, match=r"set: .*/folder: a folder without toc\.dat"):
        identify(str(tmp_path / "folder"), HostRuntime())
    with pytest.raises(BackupError, match=r"set: .*/none: No such file"):
        identify(str(tmp_path / "none"), HostRuntime())
