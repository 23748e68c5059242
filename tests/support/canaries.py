# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that occur nowhere else, and the search for them: as they are, encoded, compressed, in archives."""

from __future__ import annotations

import base64
import mmap
import os
import re
import secrets
import shutil
import string
import subprocess
import tempfile
import typing as t
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ALPHABET = string.ascii_letters + string.digits
# What passwords are made of in the field, and what every encoding writes in another way.
AWKWARD = "-of'the +"
# Shorter pieces occur by chance.
LEAST = 12
# First bytes of what a stock program unpacks to its output.
UNPACKERS = {
    b"\x1f\x8b": ("gzip", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-q", "-dc"),
    b"BZh": ("bzip2", "-dc"),
    b"\xfd7zXZ\0": ("xz", "-dc"),
}
DEEPEST = 6
BROKEN = "broken over lines"
LARGE = 1 << 18


@dataclass(frozen=True)
class Canary:
    """A value that must not be seen; any of its pieces gives it away."""

    name: str
    value: bytes = field(repr=False)
    pieces: tuple[bytes, ...] = field(repr=False)

    @property
    def text(self) -> str:
        return self.value.decode()


class Find(t.NamedTuple):
    """Where a canary was seen, and how it was written there."""

    canary: str
    spelling: str
    place: str


def planted(name: str, *, awkward: str = AWKWARD) -> Canary:
    """A new one; escaping rewrites its middle, so either end is looked for by itself."""
    halves = ["".join(secrets.choice(ALPHABET) for _letter in range(14)) for _half in range(2)]
    return of_text(name, awkward.join(halves))


def of_text(name: str, text: str) -> Canary:
    """A value that is there already."""
    pieces = tuple(re.findall(rb"[A-Za-z0-9]{%d,}" % LEAST, text.encode()))
    if not pieces:
        raise ValueError(f"{name}: has no {LEAST} letters and digits in a row to look for")
    return Canary(name, text.encode(), pieces)


def of_bytes(name: str, value: bytes) -> Canary:
    half = len(value) // 2
    if half < LEAST:
        raise ValueError(f"{name}: {len(value)} bytes are too few to look for")
    return Canary(name, value, (value[:half], value[half:]))


def of_key(name: str, pem: Path) -> Canary:
    """The secret numbers of a private key; what its certificate shows too is none of them."""
    words: list[str | Path] = ["openssl", "pkey", "-in", pem, "-noout", "-text"]
    shown = subprocess.run(words, check=True, capture_output=True, encoding="ascii").stdout
    numbers = re.findall(r"(?m)^(?:priv|prime1|prime2|privateExponent):\n((?: +[0-9a-f:]+\n)+)", shown)
    found = [of_bytes(name, bytes.fromhex(re.sub(r"[\s:]", "", number)).lstrip(b"\0")) for number in numbers]
    return Canary(name, pem.read_bytes(), tuple(piece for canary in found for piece in canary.pieces))


def encoded(piece: bytes) -> dict[bytes, str]:
    """What base64 and hex make of it, wherever in a longer text it stood."""
    found: dict[bytes, str] = {}
    for form, data in forms(piece):
        for offset in range(3):
            first, end = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
            for kind, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
                # The characters at both ends hold bits of the neighbours.
                found.setdefault(encode(bytes(offset) + data)[first:end], f"{kind}{form}, offset {offset}")
        found[data.hex().encode()] = f"hex{form}"
        found[data.hex().upper().encode()] = f"HEX{form}"
    return found


def forms(piece: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", piece
    if piece.isascii():
        yield " of UTF-16", _utf_16(piece)


def _utf_16(piece: bytes) -> bytes:
    """Little or big end first: but for a zero at one of its ends it is the same."""
    return piece.decode().encode("utf-16-le")[:-1]


def written(piece: bytes) -> dict[bytes, str]:
    """As it is, and with every character escaped; escapes of some characters leave a piece as it is."""
    found = {piece: "raw"}
    if piece.isascii():
        found[_utf_16(piece)] = "UTF-16"
    for name, form in (("URL", "%{:02x}"), ("JSON", "\\u{:04x}"), ("hex escapes", "\\x{:02x}"), ("octal", "\\{:03o}")):
        for spelling in (form, form.replace("x}", "X}")):
            found.setdefault("".join(spelling.format(byte) for byte in piece).encode(), name)
    return found


class Search:
    """Looks for canaries.

    Args:
        canaries: their names tell them apart.
    """

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self._written: dict[bytes, tuple[str, str]] = {}
        self._encoded: dict[bytes, tuple[str, str]] = {}
        for canary in canaries:
            for piece in canary.pieces:
                self._written |= {text: (canary.name, how) for text, how in written(piece).items()}
                self._encoded |= {text: (canary.name, how) for text, how in encoded(piece).items()}
                self._encoded |= {piece: (canary.name, BROKEN)}

    def text(self, content: str, place: str) -> list[Find]:
        return self.data(content.encode("utf-8", "surrogateescape"), place)

    def data(self, content: bytes | mmap.mmap, place: str, *, depth: int = 0) -> list[Find]:
        """In these bytes, and in what is packed in them."""
        found = self._plain(content, place)
        head = bytes(content[:512])
        if depth < DEEPEST:
            for magic, command in UNPACKERS.items():
                if head.startswith(magic):
                    found |= set(self.data(_output(command, content), f"{place} | {command[0]}", depth=depth + 1))
            if head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar":
                with tempfile.TemporaryDirectory(prefix="canaries-") as folder:
                    _extract(content, Path(folder))
                    found |= set(self._tree(Path(folder), f"{place} | ", depth=depth + 1))
        return sorted(found)

    def tree(self, *tops: Path) -> list[Find]:
        """In every file below these, in its name and what else belongs to it."""
        return sorted({find for top in tops for find in self._tree(top, "", depth=0)})

    def _plain(self, content: bytes | mmap.mmap, place: str) -> set[Find]:
        found = {Find(*self._written[needle], place) for needle in _in(content, self._written)}
        # Lines of base64 and pairs of hex are broken anywhere, also by what JSON makes of a line's end.
        joined = re.sub(rb"(?:\\[nrt]|[\s:])+", b"", content)
        found |= {Find(*self._encoded[needle], place) for needle in _in(joined, self._encoded)}
        whole = {find.canary for find in found if find.spelling == "raw"}
        return {find for find in found if find.spelling != BROKEN or find.canary not in whole}

    def _tree(self, top: Path, place: str, *, depth: int) -> Iterator[Find]:
        for path in files_below(top):
            told = f"{place}{os.fsencode(path).decode(errors='backslashreplace')}"
            about = [os.fsencode(path.relative_to(top))]
            about += [os.fsencode(os.readlink(path))] if path.is_symlink() else []
            names = os.listxattr(path, follow_symlinks=False)
            about += [os.getxattr(path, name, follow_symlinks=False) for name in names]
            for data in about:
                yield from self._plain(data, f"{told} (name, link or attribute)")
            if path.is_file() and not path.is_symlink():
                yield from self._file(path, told, depth)

    def _file(self, path: Path, place: str, depth: int) -> list[Find]:
        if path.stat().st_size == 0:
            return []
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return self.data(content, place, depth=depth)


def _in(content: bytes | mmap.mmap, needles: Iterable[bytes]) -> list[bytes]:
    """Which of them occur."""
    if len(content) > LARGE:
        # To grep, a line's end and a zero are no characters as others are.
        odd = {needle for needle in needles if b"\n" in needle or b"\0" in needle}
        if not _grep(content, [needle for needle in needles if needle not in odd]):
            needles = odd
    return [needle for needle in needles if content.find(needle) >= 0]


def _grep(content: bytes | mmap.mmap, needles: list[bytes]) -> bool:
    """Whether any of them occurs: all at once, so much faster than one after the other."""
    with tempfile.NamedTemporaryFile() as patterns, tempfile.TemporaryFile() as source:
        patterns.write(b"\n".join(needles))
        patterns.flush()
        source.write(content)
        source.seek(0)
        words = ["grep", "--quiet", "--text", "--fixed-strings", f"--file={patterns.name}"]
        done = subprocess.run(words, stdin=source, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False)
    if done.returncode > 1:
        raise AssertionError(f"grep: {done.stderr.decode(errors='replace')}")
    return done.returncode == 0


def files_below(top: Path) -> list[Path]:
    """Everything at and below a path, folders and links too."""
    if not os.path.lexists(top):
        return []
    return [top, *sorted(top.rglob("*"))] if top.is_dir() and not top.is_symlink() else [top]


def _output(command: tuple[str, ...], content: bytes | mmap.mmap) -> bytes:
    """What a program makes of it; of a broken file, what comes before the damage."""
    if shutil.which(command[0]) is None:
        raise AssertionError(f"{command[0]} is needed to look into what was found, and isn't installed")
    with tempfile.TemporaryFile() as source:
        source.write(content)
        source.seek(0)
        return subprocess.run(command, stdin=source, capture_output=True, check=False).stdout


def _extract(content: bytes | mmap.mmap, folder: Path) -> None:
    archive, members = folder / "archive", folder / "members"
    archive.write_bytes(content)
    members.mkdir()
    if archive.read_bytes()[:2] == b"PK":
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(members)
    else:
        # Of a broken one too, what comes before the damage; owners are nobody's business here.
        words: list[str | Path] = ["tar", "--extract", "--no-same-owner", "--no-same-permissions", "--file", archive]
        subprocess.run([*words, "--directory", members], capture_output=True, check=False)
        subprocess.run(["chmod", "-R", "u+rwX", members], check=True)
    archive.unlink()
