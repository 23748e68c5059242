# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What one file, folder or link is: as a value, from the disk, from a record, and in what two of them differ."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import os
import stat
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK
from ansible_collections.mazevault.backup.plugins.module_utils._names import raw, shown, told

FILE, FOLDER, SYMLINK, HARDLINK = "file", "folder", "symlink", "hardlink"
KEPT = (FILE, FOLDER, SYMLINK, HARDLINK)
SOCKET, FIFO, DEVICE = "socket", "fifo", "device"
ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFIFO: FIFO,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE,
}
_NANO = 1_000_000_000


@dataclass(frozen=True)
class Entry:
    """One name in a tree.

    Attributes:
        name: relative and tidy; empty for the tree's own folder.
        kind: one of the words above.
        mode: permission bits, those above 0777 included.
        sha256: of a file's contents.
        target: where a symlink leads, or the name of the file that a hard link is another name of.
        xattrs: extended attributes, ACLs and the SELinux context among them.
    """

    name: bytes
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    sha256: str = ""
    target: bytes = b""
    xattrs: t.Mapping[str, bytes] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return told(self.name)

    def as_dict(self) -> dict[str, t.Any]:
        """For a record; what a kind doesn't have is left out."""
        facts: dict[str, t.Any] = {"name": self.shown, "type": self.kind}
        if self.kind == HARDLINK:
            return {**facts, "target": shown(self.target)}
        facts.update(uid=self.uid, gid=self.gid, mtime=f"{self.mtime_ns // _NANO}.{self.mtime_ns % _NANO:09d}")
        if self.kind == SYMLINK:
            facts["target"] = shown(self.target)
        else:
            facts["mode"] = f"{self.mode:04o}"
        if self.kind == FILE:
            facts.update(size=self.size, sha256=self.sha256)
        if self.xattrs:
            facts["xattrs"] = {
                name: base64.b64encode(value).decode("ascii") for name, value in sorted(self.xattrs.items())
            }
        return facts

    def line(self) -> str:
        """One line for a diff. No hash: of a short secret, it would be as good as the secret."""
        if self.kind in (SYMLINK, HARDLINK):
            return f"{self.shown} {self.kind} -> {shown(self.target)}"
        facts = f"{self.shown} {self.kind} {self.mode:04o} {self.uid}:{self.gid}"
        return f"{facts} {self.size}" if self.kind == FILE else facts


def from_record(facts: t.Mapping[str, t.Any]) -> Entry:
    """The entry that `as_dict` was made of.

    Raises:
        BackupError: it isn't one.
    """
    try:
        seconds, _point, nanoseconds = str(facts.get("mtime", "0.0")).partition(".")
        name = "" if facts["name"] == "." else facts["name"]
        if facts["type"] not in KEPT:
            raise ValueError(f"type {facts['type']}")
        return Entry(
            raw(name),
            facts["type"],
            int(facts.get("mode", "0777"), 8),
            int(facts.get("uid", 0)),
            int(facts.get("gid", 0)),
            int(seconds) * _NANO + int(nanoseconds.ljust(9, "0")[:9]),
            int(facts.get("size", 0)),
            str(facts.get("sha256", "")),
            raw(facts.get("target", "")),
            {key: base64.b64decode(value, validate=True) for key, value in facts.get("xattrs", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise BackupError(
            f"report: an entry of its list isn't one: {exc}", hint="The report is damaged: take another copy of it."
        ) from exc


def kind_of(mode: int) -> str:
    return _KINDS[stat.S_IFMT(mode)]


def read_xattrs(path: bytes) -> dict[str, bytes]:
    """Extended attributes of the thing itself, never of what a symlink leads to."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def sha256_of(path: bytes) -> str:
    """SHA-256 of a regular file; a link in its place is not followed, a fifo not waited for."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_entry(path: bytes, name: bytes, *, contents: bool = True) -> Entry:
    """What lies at `path`.

    Args:
        contents: read a file's bytes too.
    """
    info = os.lstat(path)
    kind = kind_of(info.st_mode)
    return Entry(
        name,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        info.st_size if kind == FILE else 0,
        sha256_of(path) if kind == FILE and contents else "",
        os.readlink(path) if kind == SYMLINK else b"",
        read_xattrs(path) if kind in KEPT else {},
    )


def read_tree(top: bytes, names: t.Iterable[bytes] | None = None) -> dict[bytes, Entry]:
    """All that lies in a folder, itself included (its name is empty), or just what is there of `names`.

    Nothing below a symlink is looked at. Of several names of one file the first in order is the file.
    """
    found: dict[bytes, Entry] = {}
    known: dict[tuple[int, int], bytes] = {}
    for name in sorted(walk(top) if names is None else (name for name in names if _reachable(top, name))):
        path = os.path.join(top, name) if name else top
        info = os.lstat(path)
        key = (info.st_dev, info.st_ino)
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and key in known:
            found[name] = Entry(name, HARDLINK, target=known[key])
            continue
        known[key] = name
        found[name] = read_entry(path, name)
    return found


def walk(top: bytes) -> t.Iterator[bytes]:
    """Names of everything in a folder, itself first."""
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        yield name
        path = os.path.join(top, name) if name else top
        if stat.S_ISDIR(os.lstat(path).st_mode):
            waiting += [os.path.join(name, inside) for inside in os.listdir(path)]


def _reachable(top: bytes, name: bytes) -> bool:
    path = top
    *above, last = name.split(b"/")
    for part in above:
        path = os.path.join(path, part)
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
        except FileNotFoundError:
            return False
    return os.path.lexists(os.path.join(path, last) if last else path)


def canonical(entries: t.Iterable[Entry]) -> dict[bytes, Entry]:
    """By name, and of several names of one file the first in order is the file, whichever the archive gave first."""
    by_name = {entry.name: entry for entry in entries}
    groups: dict[bytes, list[bytes]] = {}
    for entry in by_name.values():
        if entry.kind == HARDLINK:
            groups.setdefault(entry.target, [entry.target]).append(entry.name)
    for origin, names in groups.items():
        first, *others = sorted(names)
        by_name[first] = dataclasses.replace(by_name[origin], name=first)
        by_name.update((other, Entry(other, HARDLINK, target=first)) for other in others)
    return dict(sorted(by_name.items()))


@dataclass(frozen=True)
class Judging:
    """What counts when a tree is compared.

    Attributes:
        owners: who isn't root can't give files away.
        folder_times: a folder in which others work has times of its own.
        extras: what isn't wanted counts as a difference.
        without: extended attributes that couldn't be set, by name.
    """

    owners: bool = True
    folder_times: bool = True
    extras: bool = True
    without: t.Mapping[bytes, t.AbstractSet[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A name and in what it differs: `missing`, `additional`, or what is wrong with it."""

    name: bytes
    what: str

    def __str__(self) -> str:
        return f"{told(self.name)}: {self.what}"


def differences(wanted: t.Mapping[bytes, Entry], found: t.Mapping[bytes, Entry], judging: Judging) -> list[Difference]:
    """In what a tree isn't as it is wanted; empty when it is."""
    wrong = []
    for name, entry in wanted.items():
        if name not in found:
            wrong.append(Difference(name, "missing"))
        elif what := _difference(entry, found[name], judging):
            wrong.append(Difference(name, what))
    if judging.extras:
        wrong += [Difference(name, "additional") for name in sorted(found.keys() - wanted.keys())]
    return wrong


def _difference(wanted: Entry, found: Entry, judging: Judging) -> str:
    if wanted.kind != found.kind:
        return f"{found.kind} instead of {wanted.kind}"
    if wanted.target != found.target:
        return "leads elsewhere"
    if wanted.kind == HARDLINK:
        return ""
    if (wanted.size, wanted.sha256) != (found.size, found.sha256):
        return "contents"
    if wanted.kind != SYMLINK and wanted.mode != found.mode:
        return f"mode {found.mode:04o} instead of {wanted.mode:04o}"
    if judging.owners and (wanted.uid, wanted.gid) != (found.uid, found.gid):
        return f"owner {found.uid}:{found.gid} instead of {wanted.uid}:{wanted.gid}"
    if wanted.mtime_ns != found.mtime_ns and (judging.folder_times or wanted.kind != FOLDER):
        return "modification time"
    without = judging.without.get(wanted.name, frozenset())
    for name in sorted(wanted.xattrs.keys() | found.xattrs.keys()):
        if name in without or (name.startswith("security.") and name not in wanted.xattrs):
            continue  # the kernel labels files by itself
        if not judging.owners and name.startswith(("security.", "trusted.")):
            continue  # root's alone too
        if wanted.xattrs.get(name) != found.xattrs.get(name):
            return f"extended attribute {name}"
    return ""
