# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of odd files, and what the operating system says of them; nothing of the collection's own code."""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import random
import socket
import stat
import struct
import tarfile
import typing as t
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = os.geteuid() == 0
Facts = dict[bytes, dict[str, t.Any]]
# user::rw-, user 1234 r--, group::r--, mask::r--, other::--- as the kernel has it
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)
# Longer than tar's own fields, with everything that a program could take for something else.
ODD_NAMES = (
    b" leading and trailing ",
    b"-rf",
    b"--checkpoint-action=exec=false",
    b"line\nend\r\n",
    b"tab\there",
    b"not \xff\xfe utf-8 \x80",
    "ünïcode 証明書".encode(),
    b"back\\slash\\n\\xff",
    b"*?[glob]$HOME;`id`'\"",
    b"n" * 255,
    b"\x01\x02\x7f",
    b".hidden",
    b"...",
)


def facts_of(top: Path, *, owners: bool = True) -> Facts:
    """Everything about a tree that a backup has to bring back, told by os calls.

    Names of one file are told by the first of them; holes by whether there are any.
    """
    found: Facts = {}
    first: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(top)
    paths = [root]
    for folder, folders, files in os.walk(root):
        paths += [os.path.join(folder, name) for name in (*folders, *files)]
    for path in sorted(paths):
        info = os.lstat(path)
        name = os.path.relpath(path, root)
        facts: dict[str, t.Any] = {"type": stat.S_IFMT(info.st_mode), "mtime": info.st_mtime_ns}
        if owners:
            facts.update(uid=info.st_uid, gid=info.st_gid)
        if not stat.S_ISLNK(info.st_mode):
            facts["mode"] = stat.S_IMODE(info.st_mode)
        attributes = os.listxattr(path, follow_symlinks=False)
        facts["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False) for name in attributes}
        if stat.S_ISLNK(info.st_mode):
            facts["target"] = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            facts["same_as"] = first.setdefault((info.st_dev, info.st_ino), name)
            facts["size"] = info.st_size
            facts["holes"] = info.st_blocks * 512 < info.st_size
            if os.access(path, os.R_OK):
                with open(path, "rb") as stream:
                    facts["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        found[name] = facts
    return found


def make_odd_tree(
    top: Path, *, seed: int = 1, privileged: bool = ROOT, order: Callable[[list[bytes]], None] = lambda _names: None
) -> None:
    """A tree with everything that the collection promises to bring back; the same for the same seed.

    Args:
        privileged: also what only root can make.
        order: changes the order in which the files are made.
    """
    names = list(ODD_NAMES)
    order(names)
    root = os.fsencode(top)
    os.mkdir(root, 0o750)
    for name in names:
        content = random.Random(f"{seed}{name!r}").randbytes(len(name) * 37)
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(content)
    deep = os.path.join(root, *([b"d" * 200] * 6))
    os.makedirs(deep)
    (top / "empty folder").mkdir()
    (top / "empty file").touch()
    for name in (b"private", b"z last", b"a first"):
        Path(os.fsdecode(os.path.join(deep, name))).write_bytes(name)
    os.chmod(os.path.join(deep, b"private"), 0o600)
    for number, target in enumerate(
        (b"empty file", b"../" + b"x" * 200 + b"/" + b"y" * 200, b"nowhere\n\xff", b"/absolute")
    ):
        os.symlink(target, os.path.join(root, b"link%d" % number))
    os.link(top / "empty file", top / "another name of it")
    os.link(os.path.join(deep, b"private"), os.path.join(root, b"shared"))
    with (top / "sparse").open("wb") as stream:
        stream.truncate(3 << 20)
        stream.seek(1 << 20)
        stream.write(b"in the middle")
    (top / "all hole").touch()
    os.truncate(top / "all hole", 1 << 20)
    os.setxattr(top / "shared", "user.note", b"bytes \x00\xff\n=")
    os.setxattr(top / "empty folder", "user.folder", b"1")
    os.chmod(top / "sparse", 0o640)
    os.setxattr(top / "sparse", "system.posix_acl_access", ACL)
    os.setxattr(top / "empty folder", "system.posix_acl_default", ACL)
    if privileged:
        make_roots_own(top)
    for number, name in enumerate(sorted(facts_of(top))):
        moment = (1_600_000_000 + number) * 10**9 + number * 1_000_003
        os.utime(os.path.join(root, name), ns=(moment, moment), follow_symlinks=False)


def give(top: Path, account: str) -> None:
    """Let everything belong to an account; times of contents stay."""
    entry = pwd.getpwnam(account)
    for path in (top, *top.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def make_roots_own(top: Path) -> None:
    """What only root can make: owners that have no name, set-uid bits, labels."""
    key = top / "server.key"
    key.write_bytes(b"key")
    os.chown(key, 70, 70)
    key.chmod(0o600)
    tool = top / "tool"
    tool.write_bytes(b"#!/bin/false\n")
    os.chown(tool, 123456, 654321)
    tool.chmod(0o6755)
    (top / "empty folder").chmod(0o3777)
    os.chown(top / "link0", 70, 71, follow_symlinks=False)
    os.setxattr(tool, "trusted.note", b"1")
    os.setxattr(key, "security.selinux", b"system_u:object_r:cert_t:s0\0")
    os.setxattr(top / "link0", "security.selinux", b"system_u:object_r:etc_t:s0\0", follow_symlinks=False)


def make_specials(top: Path) -> set[bytes]:
    """Add what no archive holds, and return the names."""
    os.mkfifo(top / "fifo")
    made = {b"fifo", b"socket"}
    with socket.socket(socket.AF_UNIX) as listening:
        place = os.open(top, os.O_RDONLY)  # its own path may be too long for an address
        try:
            listening.bind(f"/proc/self/fd/{place}/socket")
        finally:
            os.close(place)
    if ROOT:
        os.mknod(top / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        made.add(b"device")
    return made


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **facts: t.Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of an archive as Python writes it."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(content), 1_600_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def archive(members: Iterable[tuple[tarfile.TarInfo, bytes]], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive with just these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
