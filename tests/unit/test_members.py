# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of tar, whole, cut, and made to do harm."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import time
import tracemalloc
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits, TarReader, pack_acl
from ansible_collections.mazevault.backup.plugins.module_utils._tree import ACL, DEFAULT_ACL, Entry
from support import trees
from support.trees import archive, member

MB = 1 << 20
PLENTY = Limits(10 * MB, 1000)
FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def read(data: bytes, limits: Limits = PLENTY, *, contents: bool = True) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data), limits)
    found = []
    for one in reader.members():
        found.append((one.entry, b"".join(one.pieces()) if contents and one.entry.kind == "file" else b""))
    assert (reader.sha256, reader.size) == (hashlib.sha256(data).hexdigest(), len(data))
    return found


# Names that Python writes in each format; those that aren't UTF-8 come with GNU tar.
parts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=30)
safe_names = st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)
members = st.lists(
    st.tuples(safe_names, st.binary(max_size=3000), st.integers(0, 0o777), st.integers(0, 2**20)), max_size=6
)


@given(members, st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
def test_what_python_writes_is_read(wanted: list[tuple[str, bytes, int, int]], fmt: int) -> None:
    data = archive([member(name, content=content, mode=mode, uid=uid) for name, content, mode, uid in wanted], fmt)
    found = [(entry.name, content, entry.mode, entry.uid) for entry, content in read(data)]
    assert found == [(name.encode(), content, mode, uid) for name, content, mode, uid in wanted]
    assert [(entry, b"") for entry, _content in read(data)] == read(data, contents=False)


def test_what_tar_writes_is_read(tmp_path: Path) -> None:
    """In each of its formats, with names and times that tarfile can't write."""
    top = tmp_path / "tree"
    trees.make_odd_tree(top)
    names = trees.facts_of(top).keys() - {b"."}
    for fmt in ("posix", "gnu", "oldgnu"):
        for sparse in ([], ["--sparse"]):
            made = subprocess.run(
                ["tar", "--create", f"--format={fmt}", *sparse, "-C", top, "."], capture_output=True, check=True
            ).stdout
            found = read(made)
            assert {entry.name for entry, _content in found} == names | {b""}
            for entry, content in found:
                path = os.path.join(os.fsencode(top), entry.name)
                if entry.kind == "file":
                    with open(path, "rb") as stream:
                        assert stream.read() == content
                if fmt == "posix" and entry.kind != "hardlink":
                    assert entry.mtime_ns == os.lstat(path).st_mtime_ns


GOOD = archive([member("d", tarfile.DIRTYPE), member("d/f", content=b"x" * 2000), member("g", content=b"y" * 10)])


@pytest.mark.parametrize("length", [*range(0, len(GOOD), 128), 511, 513, 2999])
def test_a_cut_archive_is_damaged(length: int) -> None:
    end = 512 * 8  # the last member's contents; two blocks of zeros are the end, of which one has to be there
    assert [entry.name for entry, _content in read(GOOD)] == [b"d", b"d/f", b"g"]
    if length >= end + 512:
        read(GOOD[:length])
        return
    with pytest.raises(Damaged):
        read(GOOD[:length])


@pytest.mark.parametrize("position", range(0, 1536, 7))
def test_a_changed_header_is_seen(position: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= 0x04
    in_header = position < 1024
    try:
        found = read(bytes(changed))
    except BackupError:
        assert in_header
    else:
        assert not in_header, position
        assert found != read(GOOD)


def test_noise_is_no_archive() -> None:
    for data in (b"", b"\0" * 1024, b"x" * 10240, os.urandom(5000), GOOD + b"x", GOOD + GOOD):
        with pytest.raises(Damaged):
            reader = TarReader(io.BytesIO(data), PLENTY)
            if not list(reader.members()):
                raise Damaged("nothing is in it")


@pytest.mark.parametrize("kind", [b"V", b"M", b"D", b"N", b"g", b"X", b"A", b"s", b"\x80"])
def test_kinds_that_no_archive_of_ours_has(kind: bytes) -> None:
    with pytest.raises(Unsafe, match=r"which is no file's"):
        read(archive([member("x", kind)]))


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/..", "//x"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_names_that_lead_out(name: str, fmt: int) -> None:
    with pytest.raises(Unsafe, match="would be written outside"):
        read(archive([member(name, content=b"x")], fmt))
    with pytest.raises(Unsafe, match="would be written outside"):
        read(archive([member("f"), member("x", tarfile.LNKTYPE, linkname=name)], fmt))


def test_a_name_in_an_extra_header_counts() -> None:
    with pytest.raises(Unsafe, match="would be written outside"):
        read(archive([member("harmless", pax_headers={"path": "../../x"})]))
    with pytest.raises(Unsafe, match="would be written outside"):
        read(
            archive(
                [
                    member(
                        "harmless",
                        pax_headers={"GNU.sparse.name": "/x", "GNU.sparse.map": "0,0", "GNU.sparse.size": "0"},
                    )
                ]
            )
        )


class Zeros(io.RawIOBase):
    """As much as anybody asks for, after a beginning."""

    def __init__(self, beginning: bytes) -> None:
        self._rest, self.given = beginning, 0

    def read(self, size: int = -1) -> bytes:
        piece, self._rest = self._rest[:size], self._rest[size:]
        piece += bytes(size - len(piece))
        self.given += len(piece)
        return piece


def header(name: str, kind: bytes, size: int, **facts: t.Any) -> bytes:
    info, _content = member(name, kind, **facts)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "beginning",
    [
        header("x", tarfile.REGTYPE, 1 << 40),
        header("x", tarfile.XHDTYPE, 8 << 30),
        header("x", tarfile.GNUTYPE_LONGNAME, 8 << 30),
        header("x", tarfile.GNUTYPE_LONGLINK, 1 << 40),
        header("x", tarfile.REGTYPE, 9 * MB) + bytes(9 * MB) + header("y", tarfile.REGTYPE, 9 * MB),
    ],
    ids=["huge file", "huge header", "huge name", "huge link", "sum"],
)
def test_bombs_end_early(beginning: bytes) -> None:
    """Neither the memory nor the time that they ask for is given to them."""
    stream = Zeros(beginning)
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises((Unsafe, Damaged)):
        for one in TarReader(t.cast("t.IO[bytes]", stream), PLENTY).members():
            for _piece in one.pieces():
                pass
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MB
    assert stream.given < len(beginning) + 40 * MB
    assert time.monotonic() - started < 60


def test_a_sparse_bomb_is_counted_by_its_size(tmp_path: Path) -> None:
    hole = tmp_path / "hole"
    hole.touch()
    os.truncate(hole, 1 << 40)
    for version in ("0.0", "0.1", "1.0"):
        made = subprocess.run(
            ["tar", "--create", "--format=posix", "--sparse", f"--sparse-version={version}", "-C", tmp_path, "hole"],
            capture_output=True,
            check=True,
        ).stdout
        assert len(made) < 20_000
        with pytest.raises(Unsafe, match="come to more than"):
            read(made)
        ((entry, _content),) = read(made, Limits(2 << 40, 10), contents=False)
        assert entry.size == 1 << 40


def test_too_many_members() -> None:
    data = archive([member(f"f{number}") for number in range(11)])
    assert len(read(data, Limits(MB, 11))) == 11
    with pytest.raises(Unsafe, match="more than 10 members"):
        read(data, Limits(MB, 10))


@pytest.mark.parametrize("holes", ["0,5,3,5", "5,-3", "0,999999", "0,x", "9,1,0,1"])
def test_maps_of_holes_that_contradict_themselves(holes: str) -> None:
    headers = {"GNU.sparse.map": holes, "GNU.sparse.size": "10", "GNU.sparse.name": "f"}
    with pytest.raises((Damaged, Unsafe)):
        read(archive([member("f", content=b"x" * 10, pax_headers=headers)]))


def test_links_with_contents() -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
        block = header("x", kind, 512, linkname="y")
        with pytest.raises(Damaged, match="512 bytes, and it is a"):
            read(block + bytes(512 * 4))


def test_acls_in_text() -> None:
    assert pack_acl("user::rw-\nuser:1234:r--\ngroup::r--\nmask::r--\nother::---\n", ACL) == trees.ACL
    assert pack_acl("user::rw-,user:1234:r--,group::r--,mask::r--,other::---", DEFAULT_ACL) == trees.ACL
    assert pack_acl("user::rw-\ngroup::r--\nother::---\n", ACL) == b""
    for text in ("user:somebody:r--", "user::rwz", "everybody::r--", "nonsense"):
        with pytest.raises(Damaged):
            pack_acl(text, ACL)


@settings(max_examples=300)
@given(st.binary(max_size=2048), st.integers(0, len(GOOD)))
def test_no_bytes_lead_to_another_error(noise: bytes, position: int) -> None:
    data = GOOD[:position] + noise + GOOD[position + len(noise) :]
    try:
        read(data)
    except BackupError as exc:
        assert exc.msg.startswith("archive: ")
