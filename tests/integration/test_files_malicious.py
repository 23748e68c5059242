# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that somebody made to write elsewhere, to gain rights, or to fill the host: refused, and nothing is touched.

Every target lies deep in the test's own folder, so that a name that climbs reaches this folder's neighbours at most.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.files import CONFIRMED, Files, place
from support.plays import tree_state
from support.trees import ROOT, archive, facts_of, member

Members = list[tuple[tarfile.TarInfo, bytes]]
FOLDER, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
GOOD: Members = [member("d", FOLDER), member("d/f", content=b"fine"), member("l", LINK, linkname="d/f")]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000").decode("latin-1")


@pytest.fixture
def mine() -> Iterator[Files]:
    """A private folder, far inside a place full of things that mustn't change."""
    with place(ordinary=not ROOT) as found:
        inside = found.folder / "1/2/3"
        inside.mkdir(parents=True)
        for folder in (inside, *list(inside.parents)[:3]):
            (folder / "precious").write_text("precious")
            (folder / "etc").mkdir()
            (folder / "etc/passwd").write_text("precious")
        yield Files(inside, found.ordinary)


def outside(files: Files) -> Path:
    """The folder with everything that mustn't change."""
    return files.folder.parents[2]


def absolute(files: Files) -> str:
    return str(outside(files) / "precious")


def tricks(files: Files) -> dict[str, tuple[Members, str]]:
    """Name of each trick: members beside the good ones, and what is said of it."""
    there = absolute(files)
    up = "../../precious"
    evil = b"evil"
    return {
        "absolute name": ([member(there, content=evil)], "absolute name"),
        "absolute name with more slashes": ([member(f"//{there}", content=evil)], "absolute name"),
        "name that climbs": ([member(up, content=evil)], "'..' in its name"),
        "name that climbs from inside": ([member(f"d/../../{up}", content=evil)], "'..' in its name"),
        "name in an extra header": ([member("x", content=evil, pax_headers={"path": up})], "'..' in its name"),
        "folder that climbs": ([member("..", FOLDER, mode=0o777)], "'..' in its name"),
        "symlink out": ([member("x", LINK, linkname=there)], "leads outside"),
        "symlink up": ([member("x", LINK, linkname="../precious")], "leads outside"),
        "symlink in an extra header": ([member("x", LINK, pax_headers={"linkpath": there})], "leads outside"),
        "entry below a symlink": (
            [member("x", LINK, linkname="d"), member("x/precious", content=evil)],
            "it lies below x, which is a symlink",
        ),
        "entry below a symlink out": (
            [member("x", LINK, linkname=".."), member("x/precious", content=evil)],
            "it lies below x, which is a symlink",
        ),
        "entry before the symlink it lies below": (
            [member("x/precious", content=evil), member("x", LINK, linkname="..")],
            "it lies below x, which is a symlink",
        ),
        "symlinks over symlinks": (
            [member("d/e", FOLDER), member("a", LINK, linkname="d/e"), member("b", LINK, linkname="a/../../..")],
            "b: it leads outside",
        ),
        "hard link out": ([member("x", HARD, linkname=there)], "absolute name"),
        "hard link up": ([member("x", HARD, linkname=up)], "'..' in its name"),
        "hard link to a symlink": (
            [member("s", LINK, linkname="/etc"), member("x", HARD, linkname="s")],
            "x: another name of s, which is no file",
        ),
        "hard link to what isn't there": ([member("x", HARD, linkname="etc/passwd")], "no file before it"),
        "hard link, then contents": (
            [member("x", HARD, linkname="d/f"), member("x", content=evil)],
            "x: it is there twice",
        ),
        "file twice": ([member("d/f", content=evil)], "d/f: it is there twice"),
        "file twice under two names": ([member("./d//f", content=evil)], "d/f: it is there twice"),
        "folder replaced by a symlink": ([member("d", LINK, linkname="..")], "d: it is there twice"),
        "the target itself a symlink": ([member(".", LINK, linkname="..")], "in the place of the target itself"),
        "character device": ([member("x", tarfile.CHRTYPE, devmajor=1, devminor=5)], "x: a device"),
        "block device": ([member("x", tarfile.BLKTYPE, devmajor=8, devminor=0)], "x: a device"),
        "fifo": ([member("x", tarfile.FIFOTYPE)], "x: a fifo"),
        "set-uid": ([member("x", content=evil, mode=0o4755)], "mode 4755 (set-uid)"),
        "set-gid": ([member("x", content=evil, mode=0o2755)], "mode 2755 (set-gid)"),
        "set-gid folder": ([member("x", FOLDER, mode=0o2777)], "mode 2777 (set-gid)"),
        "capabilities": (
            [member("x", content=evil, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY})],
            "it has capabilities",
        ),
        "volume label": ([member("x", b"V")], "is no file's"),
        "continuation": ([member("x", b"M")], "is no file's"),
        "folder with instructions to rename": ([member("x", b"D")], "is no file's"),
        "header for all that follow": ([member("x", tarfile.XGLTYPE)], "is no file's"),
    }


PACKED = ("none", "gzip", "zstd")
NAMES = tuple(tricks(Files(Path("/1/2/3/4"))))


def packed(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, 1)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-c", "-1"], input=data, capture_output=True, check=True).stdout
    return data


WAYS: tuple[dict[str, str], ...] = ({}, {"existing": "replace", **CONFIRMED}, {"existing": "merge", **CONFIRMED})


def refused(files: Files, said: str, **params: t.Any) -> None:
    """It is refused, and nothing anywhere is touched."""
    before = tree_state(outside(files))
    done = files.run("files_restore", files.restoring("evil", "target", recorded=False, **params), timeout=120)
    assert done.rc != 0 and said in done.result["msg"], (done.result, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    assert tree_state(outside(files)) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_trick(mine: Files, name: str) -> None:
    trick, said = tricks(mine)[name]
    (mine.folder / "target").mkdir()
    (mine.folder / "target/here").write_text("already")
    number = NAMES.index(name)
    (mine.folder / "evil").write_bytes(packed(archive([*GOOD, *trick]), PACKED[number % 3]))
    refused(mine, said, **WAYS[number // 3 % 3])


@pytest.mark.parametrize("how", PACKED)
def test_without_a_trick(mine: Files, how: str) -> None:
    """The control: the same archive without the trick comes back, in each way."""
    (mine.folder / "evil").write_bytes(packed(archive(GOOD), how))
    for number, way in enumerate(WAYS):
        target = mine.folder / f"control{number}"
        if way:
            target.mkdir()
            (target / "here").write_text("already")
        assert mine.restore("evil", target.name, recorded=False, **way)["changed"]
        assert (target / "l").read_text() == "fine"


def test_the_tricks_work_where_nobody_looks(mine: Files) -> None:
    """The control of all: that they are really in the archives, a careless way of unpacking shows."""
    for name, victim in (("absolute name", outside(mine) / "precious"), ("entry below a symlink out", None)):
        trick, _said = tricks(mine)[name]
        (mine.folder / "evil").write_bytes(archive([*GOOD, *trick]))
        target = mine.folder / f"careless {name}"
        target.mkdir()
        unpack = ["tar", "-x", "-P", "-C", str(target), "-f", str(mine.folder / "evil")]
        subprocess.run(unpack, check=True, capture_output=True)
        assert (victim or mine.folder / "precious").read_text() == "evil"


@pytest.mark.skipif(not ROOT, reason="only root can set file capabilities")
def test_what_was_allowed_comes_as_it_is(mine: Files) -> None:
    tool = member("tool", content=b"x", mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY})
    out = member("out", LINK, linkname=absolute(mine))
    (mine.folder / "evil").write_bytes(archive([*GOOD, tool, out]))
    refused(mine, "tool: mode 4755", allow=["outside_links"])
    refused(mine, "out: it leads outside", allow=["privileges"])
    mine.restore("evil", "target", recorded=False, allow=["privileges", "outside_links"])
    facts = facts_of(mine.folder / "target")
    assert facts[b"tool"]["mode"] == 0o4755 and facts[b"out"]["target"] == os.fsencode(absolute(mine))
    assert facts[b"tool"]["xattrs"] == {"security.capability": CAPABILITY.encode("latin-1")}
    assert (outside(mine) / "precious").read_text() == "precious"


def test_what_is_recorded_comes_back_without_being_allowed(mine: Files) -> None:
    """One's own backup, with a link that leads out and a set-gid folder, but no more than is recorded."""
    top = mine.folder / "source"
    (top / "shared").mkdir(parents=True)
    (top / "shared").chmod(0o2770)
    (top / "out").symlink_to("/etc/hostname")
    mine.backup("a", {"path": str(top), "name": "."})
    mine.restore("a", "back")
    assert facts_of(mine.folder / "back") == facts_of(top)
    done = mine.run("files_restore", mine.restoring("a", "other", recorded=False))
    assert done.rc != 0 and "it leads outside the target" in done.result["msg"]


def header(name: str, kind: bytes, size: int) -> bytes:
    info, _content = member(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def bomb(path: Path, beginning: bytes, how: str) -> None:
    """A beginning, and very many zeros after it: compressed pieces can be put one after the other."""
    zeros = packed(bytes(64 << 20), how)
    with path.open("wb") as out:
        out.write(packed(beginning, how))
        while out.tell() < 20 << 20:
            out.write(zeros)


BOMBS = {
    "one huge file": header("x", tarfile.REGTYPE, 1 << 40),
    "a file of more than the usual limit": header("x", tarfile.REGTYPE, 11 << 30),
    "huge extra header": header("x", tarfile.XHDTYPE, 8 << 30),
    "huge name": header("x", tarfile.GNUTYPE_LONGNAME, 1 << 40),
    "endless end": archive(GOOD),
}


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(mine: Files, name: str, how: str) -> None:
    """Refused before it has taken the memory or the time that it asks for."""
    bomb(mine.folder / "evil", BOMBS[name], how)
    before = tree_state(outside(mine))
    given = mine.restoring("evil", "target", recorded=False)
    done = mine.run("files_restore", given, timeout=120, hooks=[("memory_limit", {"megabytes": 700})])
    assert done.rc != 0 and "archive: " in done.result["msg"], (done.result, done.stderr[-2000:])
    assert "MemoryError" not in done.stderr and "Traceback" not in done.stderr
    assert tree_state(outside(mine)) == before


def test_a_sparse_bomb(mine: Files) -> None:
    hole = mine.folder / "hole"
    hole.touch()
    os.truncate(hole, 1 << 40)
    pack = ["tar", "--create", "--sparse", "--format=posix", "-C", mine.folder, "-f", mine.folder / "evil", "hole"]
    subprocess.run(pack, check=True)
    hole.unlink()
    refused(mine, "the files come to more than 10.7 GB")


def test_very_many_members(mine: Files) -> None:
    (mine.folder / "evil").write_bytes(packed(archive([member(f"f{n}") for n in range(3000)]), "zstd"))
    refused(mine, "it holds more than 2999 members", max_members=2999)
    assert mine.restore("evil", "control", recorded=False, max_members=3000)["entries"] == 3000


def test_more_than_was_recorded(mine: Files) -> None:
    """A record is the limit, far below the usual one."""
    top = mine.folder / "source"
    top.mkdir()
    (top / "f").write_text("small")
    mine.backup("a", {"path": str(top), "name": "."})
    (mine.folder / "a").write_bytes(archive([member("f", content=bytes(100_000))]))
    before = tree_state(outside(mine))
    done = mine.run("files_restore", mine.restoring("a", "target"))
    assert done.rc != 0 and "come to more than 10.2 kB" in done.result["msg"]
    assert tree_state(outside(mine)) == before
