# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Reading a stream of tar, which anybody may have made: every header, every byte, nothing more than allowed."""

from __future__ import annotations

import contextlib
import decimal
import hashlib
import struct
import tarfile
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import Damaged, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK, human_size
from ansible_collections.mazevault.backup.plugins.module_utils._names import from_text, shown, tidy
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    ACL,
    DEFAULT_ACL,
    DEVICE,
    FIFO,
    FILE,
    FOLDER,
    HARDLINK,
    SYMLINK,
    Entry,
)

# What the headers of one member may take: a sparse file has its map there.
_HEADERS = 32 << 20
_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE,
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARDLINK,
    tarfile.CHRTYPE: DEVICE,
    tarfile.BLKTYPE: DEVICE,
    tarfile.FIFOTYPE: FIFO,
}
# Headers about the next one. Global ones would change names and owners of all that follows: no archive of ours has any.
_ABOUT = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_XATTR = "SCHILY.xattr."
_PERMISSIONS = {"r": 4, "w": 2, "x": 1}
_ACL_TAGS = {"user": (1, 2), "group": (4, 8), "mask": (16, 16), "other": (32, 32)}
_NOBODY = 0xFFFFFFFF


@dataclass(frozen=True)
class Limits:
    """What an archive may come to.

    Attributes:
        total: bytes of all files, holes counted in, and of the unpacked stream.
        members: how many there may be.
    """

    total: int
    members: int


class Member(t.Protocol):
    """What comes out of the stream: the entry without the hash of its contents, and these, in pieces."""

    entry: Entry
    sparse: bool

    def pieces(self) -> t.Iterator[bytes]: ...


class _Meter:
    """A stream that ends with Unsafe when more is read from it than is allowed, and hashes what goes by."""

    def __init__(self, stream: t.IO[bytes], total: int) -> None:
        self._stream, self._total = stream, total
        self.sha256 = hashlib.sha256()
        self.position, self.fence = 0, total

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.position += len(piece)
        self.sha256.update(piece)
        if self.position > min(self.fence, self._total + CHUNK):
            what = "the headers of one member" if self.position > self.fence else f"{human_size(self._total)}"
            raise Unsafe(
                f"archive: more is unpacked from it than {what} may take: it is damaged, or made to fill the host",
                hint="If it is your own and that large, raise max_bytes.",
            )
        return piece


@contextlib.contextmanager
def _damage() -> t.Iterator[None]:
    """What tarfile says of bytes that it can't make sense of."""
    try:
        yield
    except (tarfile.TarError, ValueError, OverflowError, IndexError, struct.error) as exc:
        raise Damaged(f"archive: not a whole tar archive: {exc}", hint="Take another copy of it.") from exc


class _Opened:
    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo, entry: Entry) -> None:
        self._tar, self._info = tar, info
        self.entry, self.sparse, self.taken = entry, info.issparse(), entry.kind != FILE

    def pieces(self) -> t.Iterator[bytes]:
        with _damage():
            yield from self._pieces()

    def _pieces(self) -> t.Iterator[bytes]:
        self.taken = True
        source = self._tar.extractfile(self._info)
        if source is None:
            raise Damaged(f"archive: {self.entry.shown}: no contents")
        left = self._info.size
        with source:
            while left:
                piece = source.read(min(left, CHUNK))
                if not piece:
                    raise Damaged(f"archive: {self.entry.shown}: its contents end too early")
                left -= len(piece)
                yield piece


class TarReader:
    """Members of a stream of tar, one after the other; what follows the last has to be the end, and nothing.

    Attributes:
        sha256: of the stream, hexadecimal, once the last member was given.
        size: the stream's bytes.
    """

    def __init__(self, stream: t.IO[bytes], limits: Limits) -> None:
        self._meter, self._limits = _Meter(stream, limits.total + limits.members * 2048 + _HEADERS), limits
        self.sha256, self.size = "", 0

    def members(self) -> t.Iterator[Member]:
        """
        Raises:
            Damaged: it isn't a whole archive.
            Unsafe: more than is allowed, or a kind of header that no archive of ours has.
        """
        with _damage():
            yield from self._members()

    def _members(self) -> t.Iterator[Member]:
        ended = False

        class Header(tarfile.TarInfo):
            """Sees each header before anything is done with it; tarfile passes over kinds that it doesn't know."""

            @classmethod
            def frombuf(cls, buf: t.Any, encoding: str, errors: str) -> tarfile.TarInfo:  # type: ignore[override]
                nonlocal ended
                ended = len(buf) == tarfile.BLOCKSIZE and not any(buf)
                found = super().frombuf(buf, encoding, errors)
                if found.type not in _KINDS and found.type not in _ABOUT:
                    raise Unsafe(f"archive: {shown(from_text(found.name))}: of type {found.type!r}, which is no file's")
                return found

        self._meter.fence = _HEADERS
        with tarfile.open(
            fileobj=t.cast("t.IO[bytes]", self._meter),
            mode="r|",
            bufsize=CHUNK,
            tarinfo=Header,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            yield from self._each(tar)
            if not ended:
                raise Damaged("archive: it is cut off: its end is missing", hint="Take another copy of it.")
            self._finish(tar)

    def _each(self, tar: tarfile.TarFile) -> t.Iterator[Member]:
        members = total = 0
        while (info := tar.next()) is not None:
            vars(tar)["members"].clear()  # it would keep them all
            members += 1
            entry = _entry(info)
            total += info.size if entry.kind == FILE else 0
            if members > self._limits.members or total > self._limits.total:
                raise Unsafe(
                    f"archive: it holds more than {self._limits.members} members"
                    if members > self._limits.members
                    else f"archive: {entry.shown}: with it the files come to more than"
                    f" {human_size(self._limits.total)}, of which {human_size(info.size)} are its own",
                    hint="If it is your own and that large, raise max_bytes or max_members.",
                )
            _check_holes(info, entry)
            self._meter.fence = self._meter.position + info.size + CHUNK
            member = _Opened(tar, info, entry)
            yield member
            self._meter.fence = self._meter.position + _HEADERS + (0 if member.taken else info.size)

    def _finish(self, tar: tarfile.TarFile) -> None:
        """Read to the end of the stream: padding only."""
        self._meter.fence = self._meter.position + _HEADERS
        rest = t.cast("t.IO[bytes]", tar.fileobj)
        while piece := rest.read(CHUNK):
            if piece.strip(b"\0"):
                raise Damaged("archive: something follows its end", hint="Take another copy of it.")
        while piece := self._meter.read(CHUNK):
            if piece.strip(b"\0"):
                raise Damaged("archive: something follows its end", hint="Take another copy of it.")
        self.sha256, self.size = self._meter.sha256.hexdigest(), self._meter.position


def _entry(info: tarfile.TarInfo) -> Entry:
    kind = _KINDS[info.type]
    name = _name(info.name, info.name)
    if info.size < 0 or (info.size and kind != FILE):
        raise Damaged(f"archive: {shown(name)}: {info.size} bytes, and it is a {kind}")
    mtime = info.pax_headers.get("mtime", str(int(info.mtime)))
    xattrs = _xattrs(info, kind)
    if kind == HARDLINK:
        return Entry(name, kind, target=_name(info.linkname, info.name))
    return Entry(
        name,
        kind,
        info.mode & 0o7777,
        info.uid,
        info.gid,
        _nanoseconds(mtime),
        info.size if kind == FILE else 0,
        "",
        from_text(info.linkname) if kind == SYMLINK else b"",
        xattrs,
    )


def _name(text: str, of: str) -> bytes:
    try:
        return tidy(from_text(text))
    except ValueError as exc:
        told = "" if text == of else f" -> {shown(from_text(text))}"
        raise Unsafe(
            f"archive: {shown(from_text(of))}{told}: {exc}: it would be written outside the target",
            hint="Nothing was unpacked. Somebody wants to do harm with it, or it was made with tar's option -P.",
        ) from exc


def _check_holes(info: tarfile.TarInfo, entry: Entry) -> None:
    end = 0
    for offset, size in getattr(info, "sparse", None) or ():
        if (offset, size) == (0, 0):
            continue  # tar's older form fills up with them
        if offset < end or size < 0 or offset + size > info.size:
            raise Damaged(f"archive: {entry.shown}: its map of holes contradicts itself")
        end = offset + size


def _nanoseconds(seconds: str) -> int:
    try:
        return int(decimal.Decimal(seconds).scaleb(9).to_integral_value(decimal.ROUND_FLOOR))
    except decimal.InvalidOperation as exc:
        raise Damaged(f"archive: {seconds}: not a time") from exc


def _xattrs(info: tarfile.TarInfo, kind: str) -> dict[str, bytes]:
    """Extended attributes as the kernel has them, from either form that GNU tar writes."""
    if kind not in (FILE, FOLDER, SYMLINK):
        return {}
    headers = info.pax_headers
    found = {
        key[len(_XATTR) :]: value.encode("utf-8", "surrogateescape")
        for key, value in headers.items()
        if key.startswith(_XATTR)
    }
    label = headers.get("RHT.security.selinux")
    if label and "security.selinux" not in found:
        found["security.selinux"] = label.encode("utf-8", "surrogateescape") + b"\0"
    for key, name in (("SCHILY.acl.access", ACL), ("SCHILY.acl.default", DEFAULT_ACL)):
        if headers.get(key) and name not in found and (packed := pack_acl(headers[key], name)):
            found[name] = packed
    return found


def pack_acl(text: str, name: str) -> bytes:
    """The kernel's form of an ACL; empty for one that says no more than the mode.

    Raises:
        Damaged: not an ACL with numbers for its users and groups.
    """
    entries = []
    for line in filter(None, (line.partition("#")[0].strip() for line in text.replace(",", "\n").splitlines())):
        tag, who, permissions = (*line.split(":"), "", "")[:3]
        if tag not in _ACL_TAGS or (who and not who.isdigit()) or set(permissions) - set("rwx-"):
            raise Damaged(f"archive: {line}: not an entry of an ACL with numbers for its users and groups")
        bits = sum(_PERMISSIONS.get(letter, 0) for letter in permissions)
        entries.append((_ACL_TAGS[tag][bool(who)], bits, int(who) if who else _NOBODY))
    if name == ACL and len(entries) <= 3:
        return b""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries, key=_acl_order))


def _acl_order(entry: tuple[int, int, int]) -> tuple[int, int]:
    return entry[0], entry[2]
