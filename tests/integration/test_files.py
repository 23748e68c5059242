# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of files go into archives and come back just as they were, told by the operating system."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import tempfile
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._names import Patterns
from ansible_collections.mazevault.backup.plugins.module_utils._pack import Packer
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._selection import sources_of
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import check_archive, opener
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import Unpacker
from support.files import ACCOUNT, Files, by_hand, place
from support.flow import IN_PLAIN, count
from support.modules import run_module
from support.plays import tree_state
from support.trees import ODD_NAMES, ROOT, facts_of, give, make_odd_tree, make_specials

needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files away and set labels")


@pytest.fixture(params=[pytest.param(False, marks=needs_root, id="root"), pytest.param(True, id="ordinary")])
def files(request: pytest.FixtureRequest) -> Iterator[Files]:
    with place(ordinary=request.param) as found:
        yield found


@pytest.fixture
def mine() -> Iterator[Files]:
    """For whoever runs the tests."""
    with place(ordinary=not ROOT) as found:
        yield found


def odd(files: Files, name: str = "odd", **how: t.Any) -> Path:
    top = files.folder / name
    make_odd_tree(top, privileged=not files.ordinary, **how)
    if files.ordinary and ROOT:
        give(top, ACCOUNT)
    return top


def test_everything_comes_back(files: Files) -> None:
    top = odd(files)
    before = facts_of(top)
    assert {name: before[name]["holes"] for name in (b"sparse", b"all hole")} == {b"sparse": True, b"all hole": True}
    made = files.backup("a.tar.zst", {"path": str(top), "name": "."})
    assert made["changed"] and made["attempts"] == 1
    assert (made["changed_while_read"], made["vanished"], made["left_out"]) == ([], [], [])
    done = files.restore("a.tar.zst", "back")
    assert (done["changed"], done["action"], done["without"]) == (True, "created", {})
    assert done["owners"] != files.ordinary
    assert facts_of(files.folder / "back") == before == facts_of(top)
    assert facts_of(top).keys() >= {*ODD_NAMES}


@needs_root
def test_stock_tools_bring_it_back(mine: Files) -> None:
    top = odd(mine)
    mine.backup("a.tar.zst", {"path": str(top), "name": "."})
    by_hand(mine.folder / "a.tar.zst", mine.folder / "by hand")
    assert facts_of(mine.folder / "by hand") == facts_of(top)


def test_what_is_recorded(files: Files) -> None:
    """Each entry of the report, against what the operating system says of the file."""
    top = odd(files)
    made = files.backup("a.tar.zst", {"path": str(top), "name": "x/y"})
    report = files.report("a.tar.zst")
    archive = (files.folder / "a.tar.zst").read_bytes()
    plain = subprocess.run(["zstd", "-q", "-d", "-c"], input=archive, capture_output=True, check=True).stdout
    (artefact,) = report["artefacts"]
    assert (artefact["bytes"], artefact["sha256"]) == (len(archive), hashlib.sha256(archive).hexdigest())
    assert artefact["sha256_plaintext"] == hashlib.sha256(plain).hexdigest()
    assert made["artefacts"] == report["artefacts"] and made["files"] == report["public"]["archives"][0]
    assert stat.S_IMODE((files.folder / "a.tar.zst").stat().st_mode) == 0o600
    assert stat.S_IMODE((files.folder / "a.tar.zst.json").stat().st_mode) == 0o600
    facts = facts_of(top)
    entries = report["private"]["archives"]["a.tar.zst"]["entries"]
    assert len(entries) == len(facts)
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
    for name, fact in facts.items():
        shown = (b"x/y/" + name if name != b"." else b"x/y").replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
        entry = next(entry for entry in entries if entry["name"] == shown)
        if fact.get("same_as", name) != name:
            assert entry["type"] == "hardlink"
            continue
        assert entry["type"] == kinds[fact["type"]]
        assert (entry["uid"], entry["gid"]) == (fact["uid"], fact["gid"])
        assert entry["mtime"] == f"{fact['mtime'] // 10**9}.{fact['mtime'] % 10**9:09d}"
        assert entry.get("sha256") == fact.get("sha256")
        assert entry.get("size") == fact.get("size")
        if "mode" in fact:
            assert entry["mode"] == f"{fact['mode']:04o}"
    public = report["public"]["archives"][0]
    assert public["files"] == sum(fact.get("same_as") == name for name, fact in facts.items())
    assert public["size_bytes"] == sum(f["size"] for name, f in facts.items() if f.get("same_as") == name)
    assert not any(name in json.dumps(report["public"]) for name in ("sparse", "hidden", "x/y"))


def test_special_files_are_left_out_and_named(files: Files) -> None:
    top = odd(files)
    names = make_specials(top)
    if files.ordinary and ROOT:
        give(top, ACCOUNT)
    before = facts_of(top)
    made = files.backup("a.tar.zst", {"path": str(top), "name": "."})
    named = {entry["name"].encode(): entry["why"] for entry in made["left_out"]}
    assert named.keys() == names
    assert named[b"fifo"] == "fifo" and named[b"socket"] == "socket" and named.get(b"device", "device") == "device"
    report = files.report("a.tar.zst")
    assert report["public"]["not_covered"] == [f"files: {len(names)} sockets, fifos or device nodes"]
    files.restore("a.tar.zst", "back")
    assert facts_of(files.folder / "back") == {name: facts for name, facts in before.items() if name not in names}


def write_zeros(path: Path) -> None:
    """The same content, and fewer holes."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(2 << 20)
        stream.write(bytes(1 << 16))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert before.st_blocks < path.stat().st_blocks < path.stat().st_size // 512


def test_the_same_files_give_the_same_bytes(files: Files) -> None:
    """Twice, of a tree that was made in another order, and by way of a restore."""
    sums = set()
    for number, order in enumerate((lambda _names: None, lambda _names: None, list.reverse, random.Random(7).shuffle)):
        top = odd(files, f"odd{number}", order=order)
        if number == 1:
            write_zeros(top / "sparse")
        made = files.backup(f"{number}.tar.zst", {"path": str(top), "name": "data"})
        sums.add((made["artefacts"][0]["sha256_plaintext"], made["artefacts"][0]["sha256"]))
    made = files.backup("again.tar.zst", {"path": str(top), "name": "data"})
    sums.add((made["artefacts"][0]["sha256_plaintext"], made["artefacts"][0]["sha256"]))
    files.restore("again.tar.zst", "back", part="data")
    made = files.backup("of the restored.tar.zst", {"path": str(files.folder / "back"), "name": "data"})
    sums.add((made["artefacts"][0]["sha256_plaintext"], made["artefacts"][0]["sha256"]))
    assert len(sums) == 1
    # A difference of one bit or one second shows.
    os.chmod(top / "empty file", 0o611)
    made = files.backup("changed.tar.zst", {"path": str(top), "name": "data"})
    assert made["artefacts"][0]["sha256_plaintext"] not in {plain for plain, _packed in sums}


@pytest.mark.parametrize("compression", ["gzip", "none", "zstd"])
def test_compressions(mine: Files, compression: str) -> None:
    top = odd(mine)
    made = mine.backup("archive", {"path": str(top)}, compression=compression)
    magic = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "none": os.fsencode(top)[1:10]}[compression]
    head = (mine.folder / "archive").read_bytes()[:600]
    assert head.startswith(magic) or (compression == "none" and head[257:262] == b"ustar")
    assert made["artefacts"][0]["compression"] == compression
    mine.restore("archive", "back", part=str(top).lstrip("/"))
    assert facts_of(mine.folder / "back") == facts_of(top)


part = st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
long_part = st.integers(200, 255).map(lambda size: b"\xc3" * size)
path = st.lists(st.one_of(part, part, long_part), min_size=1, max_size=4)
leaf = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=2000)),
    st.tuples(st.just("folder"), st.just(b"")),
    st.tuples(st.just("symlink"), st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)),
    st.tuples(st.just("hole"), st.binary(min_size=1, max_size=100)),
    st.tuples(st.just("link"), st.just(b"")),
)
Wanted = tuple[list[bytes], tuple[str, bytes], tuple[int, int, bytes]]
attributes = st.tuples(st.integers(0o400, 0o777), st.integers(0, 2**33), st.binary(max_size=20))


@settings(max_examples=count(60, 1000))
@given(st.lists(st.tuples(path, leaf, attributes), max_size=8), part)
def test_any_names_and_contents(
    wanted: list[tuple[list[bytes], tuple[str, bytes], tuple[int, int, bytes]]], named: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = os.path.join(os.fsencode(folder), b"top of " + named[:20])
        os.mkdir(top)
        made = []
        for parts, (kind, content), (mode, mtime, value) in wanted:
            name = os.path.join(top, *parts)
            try:
                os.makedirs(os.path.dirname(name), exist_ok=True)
                if os.path.lexists(name):
                    continue
                if kind == "folder":
                    os.mkdir(name)
                elif kind == "symlink":
                    os.symlink(content, name)
                elif kind == "link" and made:
                    os.link(made[0], name)
                else:
                    with open(name, "wb") as stream:
                        if kind == "hole":
                            stream.seek(1 << 17)
                        stream.write(content)
                    made.append(name)
            except (NotADirectoryError, FileExistsError):
                continue
            if kind != "symlink":
                os.setxattr(name, "user.value", value)
                os.chmod(name, mode | (0o700 if kind == "folder" else 0))
            os.utime(name, ns=(mtime * 7, mtime * 7), follow_symlinks=False)
        source = {"path": os.fsdecode(top), "name": os.fsdecode(named)}
        archive, back = os.path.join(folder, "archive"), os.path.join(folder, "back")
        packer = Packer(HostRuntime(), sources_of([source]), Patterns([]), compression="zstd", progress=Progress())
        packed = packer.pack(archive, folder)
        assert (packed.changed, packed.vanished) == ([], [])
        way = opener(Stored((archive,)), HostRuntime())
        checked = check_archive(way, Limits(1 << 30, 1000), allowed=["outside_links"])
        os.mkdir(back, 0o700)
        unpacker = Unpacker(back, os.fsdecode(named))
        assert unpacker.compare(unpacker.unpack(way, checked, Limits(1 << 30, 1000))) == []
        assert facts_of(Path(back)) == facts_of(Path(os.fsdecode(top)))


def test_names_and_excludes(mine: Files) -> None:
    """What is called what, what is left out with what lies below, and what makes no sense."""
    top = mine.folder / "srv"
    for name in (
        "app/.env",
        "app/data/a.log",
        "app/data/keep",
        "app/cache/x",
        "app/backups/old",
        "app/unused",
        "certs/server.key",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (mine.folder / "link to app").symlink_to(top / "app")
    made = mine.backup(
        "a.tar",
        {"path": str(mine.folder / "link to app"), "name": "mv"},
        {"path": str(top / "certs/server.key")},
        excludes=["*.log", "mv/cac*", f"{mine.folder}/link to app/backups/", f"{top}/app/unused"],
        compression="none",
    )
    listed = subprocess.run(["tar", "-tf", mine.folder / "a.tar"], capture_output=True, check=True, text=True).stdout
    inside = str(top / "certs/server.key").lstrip("/")
    assert sorted(listed.splitlines()) == sorted(["mv/", "mv/.env", "mv/data/", "mv/data/keep", inside])
    assert {entry["name"]: entry["why"] for entry in made["left_out"]} == {
        "mv/data/a.log": "excluded by *.log",
        "mv/cache": "excluded by mv/cac*",
        "mv/backups": f"excluded by {mine.folder}/link to app/backups/",
        "mv/unused": f"excluded by {top}/app/unused",
    }


def test_a_prepared_text_takes_the_place_of_a_file(files: Files) -> None:
    top = files.folder / "home"
    top.mkdir()
    real, prepared = top / ".env", files.folder / "prepared"
    real.write_text("MASTER_KEY=canary\n")
    os.setxattr(real, "user.note", b"of the real one")
    if not files.ordinary:
        os.chown(real, 70, 71)
    real.chmod(0o604)
    os.utime(real, ns=(123456789, 987654321_123456789))
    prepared.write_text("MASTER_KEY=@generation:7\n")
    if files.ordinary and ROOT:
        give(top, ACCOUNT)
        shutil.chown(prepared, ACCOUNT)
    paths = ({"path": str(top)}, {"path": str(prepared), "like": str(real)})
    made = files.backup("a.tar.zst", *paths)
    assert made["files"]["files"] == 1
    files.restore("a.tar.zst", "back", part=str(top).lstrip("/"))
    back = files.folder / "back/.env"
    assert back.read_text() == "MASTER_KEY=@generation:7\n"
    one, other = back.stat(), real.stat()
    assert (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) == (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_mtime_ns,
    )
    assert os.getxattr(back, "user.note") == b"of the real one"
    packed = (files.folder / "a.tar.zst").read_bytes()
    plain = subprocess.run(["zstd", "-q", "-d", "-c"], input=packed, capture_output=True, check=True).stdout
    assert b"canary" not in plain and b"@generation:7" in plain
    assert real.read_text() == "MASTER_KEY=canary\n"
    # Who leaves the real one out means the real one.
    safer = files.backup("c.tar.zst", *paths, excludes=[".env"])
    assert safer["artefacts"][0]["sha256"] == made["artefacts"][0]["sha256"]
    # The same again under another name for the prepared text: it is no part of the archive.
    prepared.rename(files.folder / "elsewhere")
    again = files.backup("b.tar.zst", {"path": str(top)}, {"path": str(files.folder / "elsewhere"), "like": str(real)})
    assert again["artefacts"][0]["sha256"] == made["artefacts"][0]["sha256"]


def test_check_mode_of_a_backup(files: Files) -> None:
    top = odd(files)
    params = {"dest": str(files.folder / "a.tar.zst"), "paths": [{"path": str(top)}], "excludes": ["-rf"]}
    before = tree_state(files.folder)
    foreseen = files.must("files_backup", params, check=True, diff=True)
    assert tree_state(files.folder) == before
    done = files.must("files_backup", params, diff=True)
    known = {key: value for key, value in done["files"].items() if key != "recovery_point"}
    assert {key: foreseen["files"][key] for key in known} == known
    assert (foreseen["changed"], foreseen["diff"]) == (done["changed"], done["diff"]) == (True, done["diff"])
    assert foreseen["left_out"] == done["left_out"] != []
    again = files.run("files_backup", params)
    assert again.rc != 0 and "exists already" in again.result["msg"]


def test_archives_of_an_open_set(mine: Files) -> None:
    root = mine.folder / "app/backups"
    top = odd(mine, "data")
    root.mkdir(mode=0o700, parents=True)
    (mine.folder / "app/x").write_text("x")
    opened = mine.must("recovery_set", {"backup_root": str(root), "state": "open", **IN_PLAIN})
    where = {"backup_root": str(root), "set_id": opened["set_id"]}
    staging = root / "staging" / opened["set_id"]
    one = mine.must("files_backup", {**where, "component": "volumes", "name": "one", "paths": [{"path": str(top)}]})
    # A folder that the backup root lies in is saved without it.
    app = {"path": str(mine.folder / "app"), "name": "app"}
    two = mine.must("files_backup", {**where, "component": "volumes", "name": "two", "paths": [app], "class": "keys"})
    assert two["left_out"] == [{"name": "app/backups", "why": "made by the backup itself"}]
    again = mine.must("files_backup", {**where, "component": "volumes", "name": "two", "paths": [app]})
    assert one["path"] == str(staging / "set/volumes/one.tar.zst")
    assert sorted(path.name for path in (staging / "set/volumes").iterdir()) == ["one.tar.zst", "two.tar.zst"]
    report = json.loads((staging / "volumes.json").read_text())
    assert [entry["path"] for entry in report["artefacts"]] == ["volumes/one.tar.zst", "volumes/two.tar.zst"]
    assert report["artefacts"] == [one["artefacts"][0], again["artefacts"][0]]
    assert (two["artefacts"][0]["class"], again["artefacts"][0]["class"]) == ("keys", "data")
    assert report["recovery_point"] == one["recovery_point"] and report["component"] == "volumes"
    assert sorted(report["private"]["archives"]) == ["volumes/one.tar.zst", "volumes/two.tar.zst"]
    back = {"archive": one["path"], "report": one["report"], "target": str(mine.folder / "back")}
    mine.must("files_restore", {**back, "part": str(top).lstrip("/")})
    assert facts_of(mine.folder / "back") == facts_of(top)
    for name in ("../x", ".hidden", "a b"):
        refused = mine.run("files_backup", {**where, "component": "config", "name": name, "paths": [app]})
        assert refused.rc != 0 and f"name: {name}: not an archive's name" in refused.result["msg"]
    mine.must("recovery_set", {"state": "aborted", **where})
    gone = run_module("files_backup", {**where, "component": "config", "paths": [app]})
    assert gone.rc != 0 and "no work in progress" in gone.result["msg"]


BAD: list[tuple[dict[str, t.Any], str]] = [
    ({"paths": []}, "paths: empty"),
    ({"paths": [{"path": "etc"}]}, "paths: path: etc: not an absolute path"),
    ({"paths": [{"path": ""}]}, "paths: path: empty"),
    ({"paths": [{"path": "/"}]}, "paths: /: the whole host"),
    ({"paths": [{"path": "{folder}/nothing"}]}, "paths: {folder}/nothing: no such file"),
    ({"paths": [{"path": "{folder}/a", "name": "../x"}]}, "paths: name: ../x: '..' in its name"),
    ({"paths": [{"path": "{folder}/a", "name": "/x"}]}, "paths: name: /x: absolute"),
    ({"paths": [{"path": "{folder}/a"}, {"path": "{folder}/a"}]}, "there twice"),
    ({"paths": [{"path": "{folder}/a", "name": "x"}, {"path": "{folder}/b", "name": "x"}]}, "paths: name: x"),
    ({"paths": [{"path": "{folder}"}, {"path": "{folder}/a", "name": "x"}]}, "{folder}/a is saved by"),
    ({"paths": [{"path": "{folder}/a", "name": "x"}, {"path": "{folder}/b", "name": "x/y"}]}, "below x, which is no"),
    ({"paths": [{"path": "{folder}/a", "like": "{folder}"}]}, "paths: {folder}: not a file, and like is given"),
    ({"paths": [{"path": "{folder}/a"}], "excludes": ["a"]}, "paths: nothing is left"),
    ({"paths": [{"path": "{folder}/a"}], "attempts": 0}, "attempts: 0: out of range"),
    ({"paths": [{"path": "{folder}/a"}], "reserve": "lots"}, "reserve: lots"),
    ({"paths": [{"path": "{folder}/a"}], "reserve": "900T"}, "too little space"),
    ({"paths": [{"path": "{folder}/a"}], "dest": "{folder}/open/x"}, "dest: {folder}/open: others may write here"),
    ({"paths": [{"path": "{folder}/a"}], "dest": ""}, "dest: empty"),
    ({"paths": [{"path": "{folder}/a"}], "name": "x"}, "set_id"),
]


@pytest.mark.parametrize(("params", "said"), BAD, ids=[said for _params, said in BAD])
def test_mistakes_are_told(mine: Files, params: dict[str, t.Any], said: str) -> None:
    for name in ("a", "b"):
        (mine.folder / name).write_text(name)
    (mine.folder / "open").mkdir()
    (mine.folder / "open").chmod(0o777)

    def filled(value: t.Any) -> t.Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return value.format(folder=mine.folder) if isinstance(value, str) else value

    before = tree_state(mine.folder)
    done = mine.run("files_backup", {"dest": str(mine.folder / "new"), **filled(params)})
    assert done.rc != 0 and filled(said) in done.result["msg"], done.result
    assert "Traceback" not in done.stderr and (" -> " in done.result["msg"] or said == "set_id")
    assert tree_state(mine.folder) == before


def test_an_unreadable_file_is_an_error_that_names_it() -> None:
    with place(ordinary=True) as files:
        top = odd(files)
        (top / "deep").mkdir()
        for name in ("secret", "deep/closed"):
            (top / name).touch() if name == "secret" else (top / name).mkdir()
            (top / name).chmod(0)
        if ROOT:
            give(top, ACCOUNT)
        before = tree_state(files.folder) if ROOT else None
        done = files.run("files_backup", {"dest": str(files.folder / "x"), "paths": [{"path": str(top)}]})
        assert done.rc != 0
        for name in ("secret", "deep/closed"):
            assert f"{top}/{name}: Permission denied" in done.result["msg"]
        assert not (files.folder / "x").exists() and (before is None or tree_state(files.folder) == before)
        (top / "secret").chmod(0o600)
        files.backup("y", {"path": str(top)}, excludes=["closed"])
        (top / "deep/closed").chmod(0o700)
