# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Reading a stream of tar, which anybody may have made: every header, every byte, nothing more than allowed."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import Damaged, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK, human_size
from ansible_collections.mazevault.backup.plugins.module_utils._headers import (
    BLOCK,
    EXTRA,
    LONG_LINK,
    LONG_NAME,
    OLD_SPARSE,
    Header,
    Map,
    check_map,
    damage,
    decimal_number,
    nanoseconds,
    number,
    pack_acl,
    parse_header,
    parse_map,
    parse_old_map,
    parse_records,
)
from ansible_collections.mazevault.backup.plugins.module_utils._names import shown, tidy
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

# What the extra headers of one member may take: a sparse file has its map there.
_EXTRA_LIMIT = 32 << 20
# Zeros after the end, up to a whole record of tar.
_END_LIMIT = 8 << 20
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    OLD_SPARSE: FILE,
    b"5": FOLDER,
    b"2": SYMLINK,
    b"1": HARDLINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"6": FIFO,
}
# Headers about the next one. Global ones would change names and owners of all that follows: no archive of ours has any.
_ABOUT = (EXTRA, LONG_NAME, LONG_LINK)
_XATTR = "SCHILY.xattr."
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True)
class Limits:
    """What an archive may come to.

    Attributes:
        total: bytes of all files, holes counted in, and of the unpacked stream.
        members: how many there may be.
    """

    total: int
    members: int


class _Blocks:
    """A stream that ends with Unsafe when more is read from it than is allowed, and hashes what goes by."""

    def __init__(self, stream: t.IO[bytes], total: int) -> None:
        self._stream, self._total = stream, total
        self.sha256, self.position = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        pieces, left = [], size
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.sha256.update(data)
        self.position += len(data)
        if self.position > self._total:
            raise Unsafe(
                f"archive: it goes on after {human_size(self._total)}: it is damaged, or made to fill the host",
                hint="If it is your own and that large, raise max_bytes.",
            )
        return data

    def whole(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise Damaged("archive: it is cut off: its end is missing", hint="Take another copy of it.")
        return data


class Member:
    """What comes out of the stream: the entry without the hash of its contents, and these, in pieces."""

    def __init__(self, blocks: _Blocks, entry: Entry, stored: int, holes: Map | None) -> None:
        self._blocks, self._holes, self._left = blocks, holes, stored
        self._padding = -stored % BLOCK
        self.entry, self.sparse = entry, holes is not None

    def pieces(self) -> t.Iterator[bytes]:
        """The contents from the beginning, holes as zeros; to be asked for once."""
        if self._holes is None:
            yield from self._stored(self._left)
            return
        position = 0
        for offset, length in [*self._holes, (self.entry.size, 0)]:
            for start in range(position, offset, CHUNK):
                yield _ZEROS[: min(CHUNK, offset - start)]
            yield from self._stored(length)
            position = offset + length

    def _stored(self, size: int) -> t.Iterator[bytes]:
        while size:
            piece = self._blocks.whole(min(size, CHUNK))
            size -= len(piece)
            self._left -= len(piece)
            yield piece

    def finish(self) -> None:
        """Go on to the next header."""
        for _piece in self._stored(self._left):
            pass
        self._blocks.whole(self._padding)


class TarReader:
    """Members of a stream of tar, one after the other; what follows the last has to be the end, and nothing.

    Attributes:
        sha256: of the stream, hexadecimal, once the last member was given.
        size: the stream's bytes.
    """

    def __init__(self, stream: t.IO[bytes], limits: Limits) -> None:
        self._blocks = _Blocks(stream, limits.total + limits.members * 2048 + _EXTRA_LIMIT)
        self._limits = limits
        self.sha256, self.size = "", 0

    def members(self) -> t.Iterator[Member]:
        """
        Raises:
            Damaged: it isn't a whole archive.
            Unsafe: more than is allowed, or a kind of header that no archive of ours has.
        """
        members = total = 0
        while (header := self._header()) is not None:
            member = self._member(header)
            members += 1
            total += member.entry.size
            if members > self._limits.members or total > self._limits.total:
                raise Unsafe(
                    f"archive: it holds more than {self._limits.members} members"
                    if members > self._limits.members
                    else f"archive: {member.entry.shown}: with it the files come to more than"
                    f" {human_size(self._limits.total)}, of which {human_size(member.entry.size)} are its own",
                    hint="If it is your own and that large, raise max_bytes or max_members.",
                )
            yield member
            member.finish()
        end = self._blocks.position + _END_LIMIT
        while rest := self._blocks.read(CHUNK):
            if self._blocks.position > end:
                raise Unsafe("archive: its end goes on and on: it is damaged, or made to keep the host busy")
            if rest.strip(b"\0"):
                raise Damaged("archive: something follows its end", hint="Take another copy of it.")
        self.sha256, self.size = self._blocks.sha256.hexdigest(), self._blocks.position

    def _header(self) -> Header | None:
        block = self._blocks.whole(BLOCK)
        if not block.strip(b"\0"):
            return None
        header = parse_header(block)
        if header.type not in _KINDS and header.type not in _ABOUT:
            raise Unsafe(f"archive: {shown(header.name)}: of type {header.type!r}, which is no file's")
        return header

    def _member(self, header: Header) -> Member:
        """With what the headers before it say about it."""
        names: dict[bytes, bytes] = {}
        records: dict[str, bytes] = {}
        holes: Map | None = []
        while header.type in _ABOUT:
            if header.type in names:
                raise damage(f"{shown(header.name)}: two headers say different things of it")
            if header.size > _EXTRA_LIMIT:
                raise Unsafe(f"archive: {shown(header.name)}: {human_size(header.size)} of extra headers")
            data = self._blocks.whole(header.size + -header.size % BLOCK)[: header.size]
            names[header.type] = data.partition(b"\0")[0]
            if header.type == EXTRA:
                records, holes = parse_records(data)
            following = self._header()
            if following is None:
                raise damage("nothing follows an extra header")
            header = following
        if ("path" in records and LONG_NAME in names) or ("linkpath" in records and LONG_LINK in names):
            raise damage(f"{shown(header.name)}: two headers say different things of it")
        name = records.get("GNU.sparse.name", records.get("path", names.get(LONG_NAME, header.name)))
        link = records.get("linkpath", names.get(LONG_LINK, header.link))
        stored = decimal_number(records["size"]) if "size" in records else header.size
        size, holes, stored = self._holes(header, records, holes, stored)
        entry = _entry(header, records, name, link, size)
        if holes is not None:
            check_map(holes, entry.size, stored, entry.name)
        return Member(self._blocks, entry, stored, holes)

    def _holes(
        self, header: Header, records: t.Mapping[str, bytes], holes: Map | None, stored: int
    ) -> tuple[int, Map | None, int]:
        """A file's size, where it has data (None: everywhere), and how many bytes; in each form that GNU tar writes."""
        if header.type == OLD_SPARSE:
            return number(header.block[483:495]), self._old_map(header), stored
        if "GNU.sparse.major" in records:
            holes, taken = self._map_in_front(stored)
            return decimal_number(records.get("GNU.sparse.realsize", b"")), holes, stored - taken
        if "GNU.sparse.size" in records:
            if "GNU.sparse.map" in records:
                holes = parse_map(records["GNU.sparse.map"])
            return decimal_number(records["GNU.sparse.size"]), holes, stored
        return stored, None, stored

    def _old_map(self, header: Header) -> Map:
        """In the header itself, and in as many blocks after it as there are."""
        found = parse_old_map(header.block[386:482], 4)
        more = header.block[482]
        while more:
            block = self._blocks.whole(BLOCK)
            found += parse_old_map(block[:504], 21)
            more = block[504]
            if len(found) > _EXTRA_LIMIT // 24:
                raise Unsafe(f"archive: {shown(header.name)}: more holes than any file has")
        return found

    def _map_in_front(self, stored: int) -> tuple[Map, int]:
        """A map before the data: how many entries, then their numbers, a line each, filled up to a block."""
        numbers: list[int] = []
        rest, taken = b"", 0
        while not numbers or len(numbers) < 1 + 2 * numbers[0]:
            taken += BLOCK
            if taken > min(_EXTRA_LIMIT, stored):
                raise damage("a map of holes that isn't whole")
            *lines, rest = (rest + self._blocks.whole(BLOCK)).split(b"\n")
            for line in lines:
                if not numbers or len(numbers) < 1 + 2 * numbers[0]:
                    numbers.append(decimal_number(line))
        return list(zip(numbers[1::2], numbers[2::2])), taken


def _entry(header: Header, records: t.Mapping[str, bytes], name: bytes, link: bytes, size: int) -> Entry:
    kind = _KINDS[header.type]
    if kind == FILE and name.endswith(b"/"):
        kind = FOLDER  # as the oldest archives have them
    tidied = _tidy(name, name)
    if (size or header.size) and kind != FILE:
        raise Damaged(f"archive: {shown(tidied)}: {size} bytes, and it is a {kind}")
    if kind == HARDLINK:
        return Entry(tidied, kind, target=_tidy(link, name))
    return Entry(
        tidied,
        kind,
        header.mode & 0o7777,
        decimal_number(records["uid"]) if "uid" in records else header.uid,
        decimal_number(records["gid"]) if "gid" in records else header.gid,
        nanoseconds(records.get("mtime", b"%d" % header.mtime)),
        size if kind == FILE else 0,
        "",
        link if kind == SYMLINK else b"",
        _xattrs(records) if kind in (FILE, FOLDER, SYMLINK) else {},
    )


def _tidy(name: bytes, of: bytes) -> bytes:
    try:
        return tidy(name)
    except ValueError as exc:
        via = "" if name == of else f" -> {shown(name)}"
        raise Unsafe(
            f"archive: {shown(of)}{via}: {exc}: it would be written outside the target",
            hint="Nothing was unpacked. Somebody wants to do harm with it, or it was made with tar's option -P.",
        ) from exc


def _xattrs(records: t.Mapping[str, bytes]) -> dict[str, bytes]:
    """Extended attributes as the kernel has them, from either form that GNU tar writes."""
    found = {key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)}
    label = records.get("RHT.security.selinux")
    if label and "security.selinux" not in found:
        found["security.selinux"] = label + b"\0"
    for key, name in (("SCHILY.acl.access", ACL), ("SCHILY.acl.default", DEFAULT_ACL)):
        text = records.get(key, b"").decode("utf-8", "replace")
        if text and name not in found and (packed := pack_acl(text, name)):
            found[name] = packed
    return found
