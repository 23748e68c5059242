# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flipped bits and cut files, anywhere in a published dump: never `pass`, and never near the live database."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import typing as t
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _archive
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet, load_set
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import default_work
from ansible_collections.mazevault.backup.plugins.module_utils._subject import subject_of_set
from ansible_collections.mazevault.backup.plugins.module_utils._sums import sums_text
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import Check, conclude, level_reached
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Places, Subject, prove
from support import compare, damage
from support.flow import Flow, count
from support.servers import PgServer, installations

FORMS = [(form, packed) for form in ("custom", "directory") for packed in ("zstd", "gzip", "none")]
COMPRESSED = [form for form in FORMS if form[1] != "none"]
UNCOMPRESSED = [form for form in FORMS if form[1] == "none"]
RESTORED = [("custom", "zstd"), ("directory", "gzip"), ("custom", "none")]
FLIPS, CUTS = count(12, 200), count(4, 50)
SQL = """
CREATE TABLE public.notes (id integer PRIMARY KEY, t text NOT NULL);
INSERT INTO public.notes SELECT i, md5(i::text) || md5((i * 7)::text) FROM generate_series(1, 3000) AS i;
CREATE TABLE public.secrets (id integer PRIMARY KEY, cipher bytea NOT NULL, note integer REFERENCES public.notes);
INSERT INTO public.secrets
  SELECT i, (SELECT string_agg(sha256(format('%s %s', i, j)::bytea), '') FROM generate_series(1, 30) AS j), i
    FROM generate_series(1, 200) AS i;
CREATE TABLE public.small (a text);
INSERT INTO public.small VALUES ('a single row');
CREATE TABLE public.empty (a text);
CREATE VIEW public.joined AS SELECT n.t, s.cipher FROM public.notes AS n JOIN public.secrets AS s ON s.note = n.id;
SELECT lo_from_bytea(4000 + k, (SELECT string_agg(sha256(format('lo %s %s', k, j)::bytea), '')
                                  FROM generate_series(1, 1500) AS j)) FROM generate_series(1, 2) AS k;
"""
NOTE = b"1000\ta9b7ba70783b617e9998dc4dd82eb3c5"  # the row of public.notes whose id is 1000


Done = t.TypeVar("Done")


@dataclass(frozen=True)
class Case:
    """A published set in one form, with an untouched copy of its dump beside it."""

    flow: Flow
    found: RecoverySet
    form: str
    packed: str
    pristine: Path

    @property
    def dump(self) -> Path:
        return Path(self.found.path) / self.found.private()["postgres"]["dump_path"]

    @property
    def runtime(self) -> HostRuntime:
        return HostRuntime(str(self.flow.server.install.bin))

    def random(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.flow.server.major} {self.form} {self.packed}")

    @contextlib.contextmanager
    def damaged(self, do: Callable[[Path], Done]) -> Iterator[Done]:
        """The dump with a damage, for the length of a block."""
        try:
            yield do(self.dump)
        finally:
            damage.copy_tree(self.pristine, self.dump)

    def times(self) -> list[tuple[str, int]]:
        """When each file and folder of the set was last written to."""
        return sorted((str(path), path.stat().st_mtime_ns) for path in Path(self.found.path).rglob("*"))

    def subject(self) -> Subject:
        return subject_of_set(self.found, None, sums=True)

    def without_records(self) -> Subject:
        """The dump as a foreign file that nothing is recorded about."""
        return replace(self.subject(), artefacts=None, sums=None, private=None, public=None)

    def with_fixed_sums(self) -> Subject:
        """As if somebody had damaged the dump and then put all recorded sums of files right."""
        subject = self.subject()
        return replace(subject, sums=(), artefacts=tuple(self._fixed(entry) for entry in subject.artefacts or ()))

    def _fixed(self, artefact: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        path = os.path.join(self.found.path, artefact["path"])
        return {**artefact, "bytes": os.path.getsize(path), "sha256": sha256_file(path)}

    @contextlib.contextmanager
    def forged(self) -> Iterator[None]:
        """The same on the disk: manifest.json and SHA256SUMS agree with the dump as it is now."""
        paths = [Path(self.found.path) / name for name in ("manifest.json", "SHA256SUMS")]
        before = [path.read_bytes() for path in paths]
        manifest = {**self.found.manifest, "artefacts": [self._fixed(e) for e in self.found.manifest["artefacts"]]}
        try:
            paths[0].write_text(json.dumps(manifest), encoding="utf-8")
            paths[1].write_text(sums_text(self.found.path), encoding="utf-8")
            yield
        finally:
            for path, content in zip(paths, before):
                path.write_bytes(content)

    def prove(self, subject: Subject, level: str) -> tuple[str, list[Check]]:
        with tempfile.TemporaryDirectory(dir=self.flow.root) as work:
            places = Places(work, default_work(self.runtime, work))
            checks = prove(subject, level, self.runtime, places, jobs=2, step=lambda _name: None)
        return conclude(checks, level)[0], checks


@pytest.fixture(scope="module", params=installations(), ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        started.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=SQL)
        yield started


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some damage makes pg_restore loop for ever: say so after seconds, not minutes."""
    monkeypatch.setattr(_archive, "STALLED_AFTER", 2.0)


def of(forms: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", forms, ids="-".join, indirect=True)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, server: PgServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    form, packed = request.param
    root = tmp_path_factory.mktemp("damage") / "backups"
    flow = Flow(server, root)
    done = flow.publish(form, packed)
    found = load_set(str(root), done["set_id"])
    made = Case(flow, found, form, packed, root.parent / "pristine")
    damage.copy_tree(made.dump, made.pristine)
    yield made
    shutil.rmtree(root.parent)


@of(FORMS)
def test_every_flip_and_every_cut_is_a_failure(case: Case) -> None:
    rng = case.random("anywhere")
    passed = []
    for number in range(FLIPS + CUTS):
        kind = damage.flip if number < FLIPS else damage.truncate
        with case.damaged(lambda dump, kind=kind: kind(dump, rng)) as done:
            verdict, checks = case.prove(case.subject(), "restore")
            levels = {check.level for check in checks}
            # The climb ends at the first failure, so this is the verdict on every level from `checksum` on.
            if verdict != "fail" or levels - {"toc", "checksum"} or level_reached(checks) not in ("", "toc"):
                passed.append(f"{verdict} {sorted(levels)}: {done}")
            _verdict, checks = case.prove(case.without_records(), "restore")
            verdicts = {level: conclude(checks, level)[0] for level in ("checksum", "read", "restore")}
            if "pass" in verdicts.values() or level_reached(checks) not in ("", "toc"):
                passed.append(f"without records: {verdicts}: {done}")
        if number % 4 == 0:
            assert case.prove(case.subject(), "checksum")[0] == "pass", "the undamaged control"
    assert passed == []


@of(FORMS)
def test_the_undamaged_control_passes(case: Case) -> None:
    before = case.times()
    verdict, checks = case.prove(case.subject(), "restore")
    assert (verdict, [check for check in checks if check.verdict != "pass"]) == ("pass", [])
    assert case.times() == before, "nothing is written into a published set, not even for a moment"
    assert level_reached(checks) == "restore"
    for level in ("checksum", "read", "restore"):
        verdict, checks = case.prove(case.without_records(), level)
        assert (verdict, level_reached(checks)) == ("unproven", "toc"), "nothing is recorded about a foreign file"


def data_of(case: Case, dump: Path, rng: random.Random) -> tuple[Path, int]:
    """A file with data, and where its data begin (before it lies what no checksum covers: a TOC, a file's header)."""
    if case.form == "custom":
        return dump, 0 if case.packed == "zstd" else _first_stream(dump.read_bytes())
    files = sorted(path for path in dump.iterdir() if ".dat" in path.name and path.name != "toc.dat")
    return rng.choice(files), {"zstd": 0, "gzip": 10}[case.packed]


def _first_stream(content: bytes) -> int:
    position = -1
    while True:
        position = content.index(b"\x78\x01", position + 1)
        with contextlib.suppress(zlib.error):
            if zlib.decompressobj().decompress(content[position:], 1):
                return position


def unwrapped(path: Path) -> bytes | None:
    """What a compressed file holds; None when it is damaged."""
    argv = ["zstd", "-q", "-d", "-c", path] if path.suffix == ".zst" else ["gzip", "-q", "-d", "-c", path]
    done = subprocess.run(argv, capture_output=True, check=False)
    return None if done.returncode else done.stdout


def hit_data(case: Case, rng: random.Random, *, cut: bool) -> Callable[[Path], tuple[Path, str]]:
    def do(dump: Path) -> tuple[Path, str]:
        path, first = data_of(case, dump, rng)
        content = bytearray(path.read_bytes())
        offset, bit = rng.randrange(first, len(content)), rng.randrange(8)
        if cut:
            del content[offset:]
        else:
            content[offset] ^= 1 << bit
        path.write_bytes(content)
        return path, f"{'cut' if cut else 'flip'} {path.name} at {offset} (data from {first}), bit {bit}"

    return do


@of(COMPRESSED)
def test_reading_finds_what_fixed_sums_hide(case: Case) -> None:
    """Compressed forms carry checksums of their own: `read` fails although every recorded hash of a file is right."""
    rng = case.random("data")
    passed = []
    for number in range(count(8, 150)):
        with case.damaged(hit_data(case, rng, cut=number % 4 == 3)) as done:
            verdict, checks = case.prove(case.with_fixed_sums(), "read")
            path, said = done
            # A stream ends within a byte: what fills that byte up is no data.
            if verdict != "fail" and (path == case.dump or unwrapped(path) != unwrapped(case.pristine / path.name)):
                passed.append(f"{verdict}: {said}")
            checksum = [check.verdict for check in checks if check.level == "checksum"]
            assert checksum in ([], ["pass"]), "the sums were put right"
    assert passed == []
    assert case.prove(case.with_fixed_sums(), "read")[0] == "pass"


def longer_stream(dump: Path) -> object:
    """The end mark of a table's compressed data, a length of 0, becomes another length."""
    content = bytearray(dump.read_bytes())
    position = _first_stream(bytes(content)) - 5
    while length := int.from_bytes(content[position + 1 : position + 5], "little"):
        position += 5 + length
    content[position + 2] = 1
    dump.write_bytes(content)
    return f"end mark at {position}"


@of([("custom", "gzip")])
def test_an_endless_loop_of_pg_restore_is_a_failure(case: Case) -> None:
    with case.damaged(longer_stream):
        for subject in (case.with_fixed_sums(), case.without_records()):
            verdict, checks = case.prove(subject, "read")
            assert verdict == "fail"
            assert "pg_restore is stuck" in checks[-1].reason
    assert case.prove(case.without_records(), "read")[0] == "unproven", "the undamaged control"


def other_row(dump: Path) -> object:
    """One letter of one row becomes another one."""
    for path in [dump] if dump.is_file() else sorted(dump.iterdir()):
        content = path.read_bytes()
        if NOTE in content:
            path.write_bytes(content.replace(NOTE, NOTE.replace(b"a9b7", b"a9b6")))
            return path
    raise AssertionError("the row isn't there")


def other_large_object(dump: Path) -> object:
    content = (dump / "blob_4001.dat").read_bytes()
    (dump / "blob_4001.dat").write_bytes(content[:20000] + bytes([content[20000] ^ 1]) + content[20001:])
    return "large object 4001"


@of(UNCOMPRESSED)
def test_restoring_finds_what_reading_can_not(case: Case) -> None:
    """In an uncompressed dump a changed letter is valid data; only the content digests tell."""
    with case.damaged(other_row):
        assert case.prove(case.with_fixed_sums(), "read")[0] == "pass"
        verdict, checks = case.prove(case.with_fixed_sums(), "restore")
        failed = {check.name: check.reason for check in checks if check.verdict == "fail"}
        assert (verdict, failed) == ("fail", {"tables": "public.notes: other content in 3000 rows"})
    if case.form == "directory":
        with case.damaged(other_large_object):
            verdict, checks = case.prove(case.with_fixed_sums(), "restore")
            assert (verdict, [c.name for c in checks if c.verdict == "fail"]) == ("fail", ["large objects"])
    assert case.prove(case.with_fixed_sums(), "restore")[0] == "pass"


@of(RESTORED)
def test_a_damaged_set_never_touches_the_live_database(case: Case) -> None:
    live, databases = compare.state_of(case.flow.server, "mazevault"), case.flow.databases()
    rng = case.random("live")
    attempts: list[tuple[Callable[[Path], object], bool]] = [
        (lambda dump: damage.flip(dump, rng), False),
        (lambda dump: damage.truncate(dump, rng), False),
    ]
    if case.packed == "none":
        attempts.append((other_row, True))
    for do, forge in attempts:
        with case.damaged(do) as done, case.forged() if forge else contextlib.nullcontext() as _forged:
            with case.flow.staging("restore") as set_id:
                if forge:
                    refused = case.flow.try_restore(case.found.set_id, set_id)
                    assert refused.rc != 0 and ": signature: " in refused.result["msg"]
                outcome = case.flow.try_restore(
                    case.found.set_id, set_id, **({"accept": ["unsigned"]} if forge else {})
                )
            assert outcome.rc != 0 and outcome.result, (done, outcome.stderr)
            said = "public.notes: other content in 3000 rows" if forge else f"set: {case.found.set_id}: damaged: "
            assert said in outcome.result["msg"]
        assert case.flow.databases() == databases, done
        assert compare.difference(live, compare.state_of(case.flow.server, "mazevault")) == []


@of(RESTORED)
def test_an_undamaged_set_restores(case: Case) -> None:
    live, databases = compare.state_of(case.flow.server, "mazevault"), case.flow.databases()
    with case.flow.staging("restore") as set_id:
        outcome = case.flow.try_restore(case.found.set_id, set_id)
    assert (outcome.rc, outcome.result.get("verdict")) == (0, "pass"), (outcome.result, outcome.stderr)
    name = outcome.result["database"]
    assert [entry for entry in case.flow.databases() if entry not in databases] == [
        case.flow.server.query("SELECT oid::bigint, datname::text FROM pg_database WHERE datname = %s", name)[0]
    ]
    assert compare.difference(live, compare.state_of(case.flow.server, "mazevault")) == []
    case.flow.server.drop_database(name)
