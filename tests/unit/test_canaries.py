# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for canaries finds them in everything that programs make of a text, and nothing where none is."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import random
import shlex
import subprocess
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.canaries import LARGE, Search, of_bytes, of_key, of_text, planted
from support.identities import make_identity

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = planted("password")
BINARY = of_bytes("binary", random.Random(7).randbytes(32))
SEARCH = Search([PASSWORD, BINARY])


def program(*words: str) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        return subprocess.run(words, input=data, check=True, capture_output=True).stdout

    return run


def tar_of(data: bytes, **options: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=options.get("mode", "w")) as archive:
        entry = tarfile.TarInfo("folder/file")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def zip_of(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/file", data)
    return stream.getvalue()


def text(encode: Callable[[str], str]) -> Callable[[bytes], bytes]:
    return lambda data: encode(data.decode()).encode()


OF_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "base64": base64.b64encode,
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 in lines": base64.encodebytes,
    "base64 in short lines": program("base64", "--wrap=11"),
    "base64 in lines in JSON": lambda data: json.dumps(base64.encodebytes(data).decode()).encode(),
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "hex in lines, as PostgreSQL and openssl have it": lambda data: data.hex(":").encode(),
    "hex of od": program("od", "-An", "-v", "-tx1"),
    "gzip": gzip.compress,
    "zstd": program("zstd", "-q", "-19"),
    "bzip2": program("bzip2"),
    "xz": program("xz"),
    "zstd, its end missing": lambda data: program("zstd", "-q")(data + random.Random(1).randbytes(1 << 19))[:-1000],
    "tar": tar_of,
    "tar in gzip": lambda data: tar_of(data, mode="w:gz"),
    "zip": zip_of,
    "one in the other": lambda data: program("zstd", "-q")(
        tar_of(gzip.compress(tar_of(zip_of(base64.b64encode(data)))))
    ),
}
OF_TEXT: dict[str, Callable[[bytes], bytes]] = {
    "JSON": text(json.dumps),
    "JSON in JSON": text(lambda value: json.dumps(json.dumps(value))),
    "JSON, all escaped": text(lambda value: "".join(f"\\u{ord(char):04x}" for char in value)),
    "JSON, ALL ESCAPED": text(lambda value: "".join(f"\\u{ord(char):04X}" for char in value)),
    "Python, all escaped": text(lambda value: "".join(f"\\x{ord(char):02x}" for char in value)),
    "C, all escaped": text(lambda value: "".join(f"\\{ord(char):03o}" for char in value)),
    "URL": text(urllib.parse.quote),
    "URL of a form": text(urllib.parse.quote_plus),
    "URL, all escaped": text(lambda value: "".join(f"%{ord(char):02x}" for char in value)),
    "URL, ALL ESCAPED": text(lambda value: "".join(f"%{ord(char):02X}" for char in value)),
    "shell": text(shlex.quote),
    "SQL": text(lambda value: value.replace("'", "''")),
    "HTML": text(html.escape),
    "repr": text(repr),
    "UTF-16 LE": lambda data: data.decode().encode("utf-16-le"),
    "UTF-16 BE": lambda data: data.decode().encode("utf-16-be"),
    "base64 of UTF-16 LE": lambda data: base64.b64encode(data.decode().encode("utf-16-le")),
    "base64 of UTF-16 BE": lambda data: base64.b64encode(data.decode().encode("utf-16-be")),
    "broken over lines": text(lambda value: "\n  ".join(value[start : start + 7] for start in range(0, len(value), 7))),
    "its first half": lambda data: data[:14],
    "its second half": lambda data: data[-14:],
}


@pytest.mark.parametrize("before", [0, 1, 2, LARGE], ids=lambda count: f"{count} bytes before it")
@pytest.mark.parametrize("how", OF_TEXT | OF_BYTES)
def test_a_text_is_found_however_it_is_written(how: str, before: int) -> None:
    encode = (OF_TEXT | OF_BYTES)[how]
    inside = b"x" * before + PASSWORD.value + b"y" * 5
    content = encode(PASSWORD.value) if "half" in how else encode(inside)
    assert {find.canary for find in SEARCH.data(content, "here")} == {"password"}


@pytest.mark.parametrize("before", [0, 1, 2, LARGE], ids=lambda count: f"{count} bytes before it")
@pytest.mark.parametrize("how", OF_BYTES)
def test_bytes_are_found_however_they_are_written(how: str, before: int) -> None:
    content = OF_BYTES[how](b"\xff" * before + BINARY.value + b"\x00\x01")
    assert {find.canary for find in SEARCH.data(content, "here")} == {"binary"}


def test_clean_data_shows_none() -> None:
    numbers = random.Random(20261123)
    for _number in range(4):
        noise = numbers.randbytes(1 << 20)
        for encode in (bytes, base64.b64encode, gzip.compress, bytes.hex):
            content = encode(noise)
            assert SEARCH.data(content if isinstance(content, bytes) else content.encode(), "noise") == []
    assert SEARCH.tree(ROOT / "docs", ROOT / "roles") == []


def test_everything_that_belongs_to_a_file_is_searched(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "deep/er").mkdir(parents=True)
    (top / "empty").touch()
    os.mkfifo(top / "fifo")
    (top / "dangling").symlink_to("nowhere")
    assert SEARCH.tree(top, tmp_path / "missing") == []
    hidden = {
        "content": lambda: (top / "deep/er/.content").write_bytes(gzip.compress(PASSWORD.value)),
        "name": (top / "deep" / f"name {PASSWORD.text}").touch,
        "folder": (top / f"folder {PASSWORD.text}").mkdir,
        "link": lambda: (top / "link").symlink_to(f"nowhere/{PASSWORD.text}"),
        "attribute": lambda: os.setxattr(top / "empty", "user.note", base64.b64encode(PASSWORD.value)),
    }
    for number, (name, hide) in enumerate(hidden.items(), start=1):
        hide()
        assert len({find.place for find in SEARCH.tree(top)}) == number, name
    (found,) = SEARCH.tree(top / "deep/er/.content")
    assert (found.canary, found.spelling) == ("password", "raw") and found.place.endswith(".content | gzip")


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_of_a_key_only_what_is_secret_counts(tmp_path: Path, kind: str) -> None:
    identity = make_identity(tmp_path, "server", kind=kind)
    search = Search([of_key("server's key", identity.private)])
    assert search.tree(identity.public) == []
    spellings = {
        "pem": identity.private.read_bytes(),
        "der": program("openssl", "pkey", "-outform", "DER")(identity.private.read_bytes()),
        "shown": program("openssl", "pkey", "-noout", "-text")(identity.private.read_bytes()),
        "in JSON": json.dumps({"key": identity.private.read_text()}).encode(),
        "traditional": program("openssl", "pkey", "-traditional")(identity.private.read_bytes()),
    }
    for name, content in spellings.items():
        assert {find.canary for find in search.data(content, name)} == {"server's key"}, name


def test_what_is_too_short_to_be_found_is_refused() -> None:
    with pytest.raises(ValueError, match="has no 12 letters and digits in a row"):
        of_text("short", "abc-def-ghi-jkl")
    with pytest.raises(ValueError, match="are too few"):
        of_bytes("short", b"0123456789")
