# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Headers of tar archives: one block, extra records, maps of holes. Pure, and strict: what makes no sense is damage.

Python's tarfile would read them too, but it passes over what it doesn't know, its releases differ in what they make of
odd ones, and none lets anybody see a header before it is acted on.
"""

from __future__ import annotations

import decimal
import struct
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._names import shown
from ansible_collections.mazevault.backup.plugins.module_utils._tree import ACL

BLOCK = 512
EXTRA, LONG_NAME, LONG_LINK, OLD_SPARSE = b"x", b"L", b"K", b"S"
_POSIX = b"ustar\0"
_PERMISSIONS = {"r": 4, "w": 2, "x": 1}
_ACL_TAGS = {"user": (1, 2), "group": (4, 8), "mask": (16, 16), "other": (32, 32)}
_NOBODY = 0xFFFFFFFF

# Where a file has data: (offset, bytes), in order.
Map = list[tuple[int, int]]


@dataclass(frozen=True)
class Header:
    """One block as it stands there."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    block: bytes


def damage(what: str) -> Damaged:
    return Damaged(f"archive: not a whole tar archive: {what}", hint="Take another copy of it.")


def parse_header(block: bytes) -> Header:
    """
    Raises:
        Damaged: its sum or one of its numbers is wrong.
    """
    summed = block[:148] + b" " * 8 + block[156:]
    signed = sum(struct.unpack(f"{BLOCK}b", summed))
    if number(block[148:156]) not in (sum(summed), signed):
        raise damage("a header's sum is wrong")
    name, prefix = _text(block[0:100]), _text(block[345:500])
    if block[257:263] == _POSIX and prefix:
        name = prefix + b"/" + name
    size = number(block[124:136])
    if size < 0:
        raise damage(f"{shown(name)}: a size below 0")
    return Header(
        name,
        number(block[100:108]),
        number(block[108:116]),
        number(block[116:124]),
        size,
        number(block[136:148]),
        block[156:157],
        _text(block[157:257]),
        block,
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """Octal digits, or bytes with the highest bit set before them."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (0 if field[0] == 0x80 else 256 ** (len(field) - 1))
    digits = _text(field).strip()
    if digits.strip(b"01234567"):
        raise damage("a number in a header is none")
    return int(digits or b"0", 8)


def parse_records(data: bytes) -> tuple[dict[str, bytes], Map]:
    """Extra records of a member, and the map of holes that lies between them in one of its forms."""
    records: dict[str, bytes] = {}
    offsets: list[int] = []
    sizes: list[int] = []
    position = 0
    while position < len(data):
        length, space, _rest = data[position : position + 20].partition(b" ")
        end = position + decimal_number(length)
        record = data[position + len(length) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if not space or end > len(data) or not record.endswith(b"\n") or not key or not equals:
            raise damage("an extra header's record is none")
        position = end
        if key == b"GNU.sparse.offset":
            offsets.append(decimal_number(value))
        elif key == b"GNU.sparse.numbytes":
            sizes.append(decimal_number(value))
        else:
            records[key.decode("utf-8", "backslashreplace")] = value
    if len(offsets) != len(sizes):
        raise damage("a map of holes that isn't whole")
    return records, list(zip(offsets, sizes))


def decimal_number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise damage("a number in an extra header is none")
    return int(text)


def parse_map(text: bytes) -> Map:
    """`offset,bytes,offset,bytes`, as one of the forms has it in a record."""
    numbers = [decimal_number(part) for part in text.split(b",")]
    if len(numbers) % 2:
        raise damage("a map of holes that isn't whole")
    return list(zip(numbers[::2], numbers[1::2]))


def parse_old_map(field: bytes, entries: int) -> Map:
    """The binary form; what isn't needed is filled with zeros."""
    pairs = [field[24 * index : 24 * index + 24] for index in range(entries)]
    return [(number(pair[:12]), number(pair[12:])) for pair in pairs if pair.strip(b"\0")]


def check_map(holes: Map, size: int, stored: int, name: bytes) -> Map:
    """The same map, if it is one of a file of this size of which so many bytes are stored."""
    end = 0
    for offset, length in holes:
        if offset < end or length < 0 or offset + length > size:
            raise Damaged(f"archive: {shown(name)}: its map of holes contradicts itself")
        end = offset + length
    if sum(length for _offset, length in holes) != stored:
        raise Damaged(f"archive: {shown(name)}: its map of holes doesn't fit what is stored")
    return holes


def nanoseconds(seconds: bytes) -> int:
    try:
        return int(decimal.Decimal(seconds.decode("ascii")).scaleb(9).to_integral_value(decimal.ROUND_FLOOR))
    except (decimal.DecimalException, ValueError, OverflowError) as exc:
        raise damage("a time is none") from exc


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
