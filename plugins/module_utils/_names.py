# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Names of files: bytes without a rule on the disk, text that can be turned back in reports."""

from __future__ import annotations

import fnmatch
import re
import typing as t

_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2}))")


def shown(name: bytes) -> str:
    r"""A name as text: bytes that aren't UTF-8 become `\xNN`, a backslash is doubled, so that `raw` gives it back."""
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def told(name: bytes) -> str:
    """A name in an archive as text; its own folder is a dot."""
    return shown(name) or "."


def raw(text: str) -> bytes:
    """The name that `shown` was given.

    Raises:
        ValueError: a backslash that `shown` doesn't write.
    """
    if "\\" in _ESCAPE.sub("", text):
        raise ValueError(f"{text}: not a name as it is written in reports")
    # What stands between the escapes has no backslash: each part is turned back by itself.
    parts, end = [], 0
    for match in _ESCAPE.finditer(text):
        parts += [text[end : match.start()].encode("utf-8"), bytes([int(match[1], 16)]) if match[1] else b"\\"]
        end = match.end()
    return b"".join([*parts, text[end:].encode("utf-8")])


def from_text(text: str) -> bytes:
    """A path as a module's parameter or tarfile gives it."""
    return text.encode("utf-8", "surrogateescape")


def as_text(name: bytes) -> str:
    """A path for Python's functions and for programs' arguments."""
    return name.decode("utf-8", "surrogateescape")


def parents(name: bytes) -> t.Iterator[bytes]:
    """`a/b/c` lies below `a/b` and `a`, nearest first; the tree's own folder isn't told."""
    while b"/" in name:
        name = name.rpartition(b"/")[0]
        yield name


def tidy(name: bytes) -> bytes:
    """A relative name in its one form: no `.`, no empty part, no slash at its end; empty for the tree's own folder.

    Raises:
        ValueError: absolute, or with `..` or a zero byte in it.
    """
    if name.startswith(b"/"):
        raise ValueError("absolute name")
    if b"\0" in name:
        raise ValueError("a zero byte in its name")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ValueError("'..' in its name")
    return b"/".join(parts)


def literal_pattern(path: str) -> str:
    """A pattern that nothing but this path matches."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", path)


class Patterns:
    """What is left out of an archive.

    A pattern without a slash is compared with the last part of a name, others with the whole name in the archive.
    An absolute pattern is compared with the path on this host.
    """

    def __init__(self, patterns: t.Iterable[str]) -> None:
        # A pattern in characters can't meet a byte that is none: names are compared as latin-1 sees them.
        self._compiled = [
            (pattern, re.compile(fnmatch.translate(from_text(pattern.rstrip("/") or "/").decode("latin-1"))))
            for pattern in patterns
        ]

    def match(self, paths: t.Sequence[bytes], name: bytes) -> str:
        """The first pattern that leaves this one out, or an empty string.

        Args:
            paths: where it is on this host; the same place can have several.
        """
        for pattern, compiled in self._compiled:
            if pattern.startswith("/"):
                compared = paths
            elif "/" in pattern.rstrip("/"):
                compared = (name,)
            else:
                compared = (name.rpartition(b"/")[2],)
            if any(compiled.match(one.decode("latin-1")) for one in compared):
                return pattern
        return ""
