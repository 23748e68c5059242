# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The settings in a `.env`, as docker compose 2 reads them; what only the file doesn't tell is left out, no I/O.

Every value may be a secret.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

_EXPORT = re.compile(r"export\s+")
# Up to the sign that ends it; a line end means that the value is the one of whoever starts compose.
_NAME = re.compile(r"([\w.\-\[\]]*)[ \t\v\f\r\x85\xa0]*(=|:|\n|\Z)")
_SPACES = " \t\v\f\r\x85\xa0"
_ESCAPE = re.compile(r'\\(?:[abfnrtv$"\\]|0\d{0,3})', re.ASCII)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
_REFERENCE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\}|(\{))", re.ASCII)


class _Unknown(Exception):
    """The value depends on what the file doesn't hold."""


@dataclass(frozen=True)
class Settings:
    """What a `.env` says.

    Attributes:
        values: name -> value.
        unknown: names whose values depend on something else than this file.
        refused: number of the line that compose refuses, and with it the whole file; 0 for none.
        unreadable: why the file can't be read, empty if it can, or isn't there.
        secrets: every value and every line's rest as it is written, for taking them out of messages.
    """

    values: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    unknown: tuple[str, ...] = ()
    refused: int = 0
    unreadable: str = ""
    secrets: t.Mapping[str, str] = field(default_factory=dict, repr=False)


def settings_of(text: str) -> Settings:
    """The settings in the text of a `.env`; the last of several for one name counts."""
    text = text[1:] if text.startswith("\ufeff") else text
    values: dict[str, str] = {}
    unknown: dict[str, None] = {}
    refused = 0
    rest = text
    while rest := _next(rest):
        line = 1 + text[: len(text) - len(rest)].count("\n")
        exported = _EXPORT.match(rest)
        named = _NAME.match(rest, exported.end() if exported else 0)
        # Compose takes neither a name without an end nor a value without a name.
        if named is None or named[2] == "" or (named[2] != "\n" and not named[1]):
            refused = line
            break
        name, rest = named[1], rest[named.end() :]
        if named[2] == "\n":
            continue
        value: str | None = None
        try:
            make, rest = _value(rest.lstrip(_SPACES))
            value = make(values)
        except _Unknown:
            pass
        except ValueError:
            refused = line
            break
        # Compose ignores names that begin with a digit.
        if not name or name[0].isdigit():
            continue
        values.pop(name, None)
        unknown.pop(name, None)
        if value is None:
            unknown[name] = None
        else:
            values[name] = value
    return Settings(values, tuple(unknown), refused, "", {**_written(text), **values})


class Statement(t.NamedTuple):
    """Where a setting's value is written, quotes and all; without a name, what compose can't make sense of."""

    name: str | None
    begin: int
    end: int


def statements(text: str) -> t.Iterator[Statement]:
    """Every setting of a text, in order; from the line on that compose refuses, line by line."""
    rest = text[1:] if text.startswith("\ufeff") else text
    while rest := _next(rest):
        exported = _EXPORT.match(rest)
        named = _NAME.match(rest, exported.end() if exported else 0)
        refused = named is None or named[2] == "" or (named[2] != "\n" and not named[1])
        if named is None or refused:
            yield from _lines(text, len(text) - len(rest))
            return
        behind = rest[named.end() :]
        if named[2] == "\n":
            rest = behind
            continue
        value = behind.lstrip(_SPACES)
        begin = len(text) - len(value)
        try:
            rest = _value(value)[1]
        except ValueError:
            yield from _lines(text, len(text) - len(value))
            return
        end = len(text) - len(rest)
        # Without quotes the value ends where the line does; a comment behind it goes with it.
        yield Statement(named[1], begin, begin + len(text[begin:end].rstrip("\r\n")))


def _lines(text: str, begin: int) -> t.Iterator[Statement]:
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield Statement(None, begin, end)
        begin = end + 1


def _next(text: str) -> str:
    """The text from the next statement on."""
    text = text.lstrip()
    while text.startswith("#"):
        text = text.partition("\n")[2].lstrip()
    return text


def _value(text: str) -> tuple[t.Callable[[t.Mapping[str, str]], str], str]:
    """(what makes the value out of the settings so far, the text behind it).

    Raises:
        ValueError: a quote that isn't closed; the maker raises it for a brace.
    """
    quote = text[:1]
    if quote not in ("'", '"') or not quote:
        written, _end, rest = text.partition("\n")
        plain = written.partition(" #")[0].rstrip()
        return lambda known: _filled(plain, known), rest
    found = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL).match(text)
    if not found:
        raise ValueError("a quote that isn't closed")
    inside, rest = found[1].replace(f"\\{quote}", quote) if quote == "'" else found[1], text[found.end() :]
    if quote == "'":
        return lambda known: inside, rest
    return lambda known: _filled(_ESCAPE.sub(_unescaped, inside), known), rest


def _unescaped(found: re.Match[str]) -> str:
    what = found[0][1:]
    if what == "$":
        return "$$"
    if what.startswith("0"):
        octal = re.fullmatch("[0-3][0-7]{2}", what[1:])
        return chr(int(octal[0], 8)) if octal else f"\\{what[1:]}"
    return _ESCAPED[what]


def _filled(text: str, known: t.Mapping[str, str]) -> str:
    """The text with references to settings above it filled in."""

    def fill(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        if found[4]:
            # A default, or what stands for it.
            if re.match(r"[A-Za-z_]\w*:?[-+?][^}]*\}", text[found.end() :], re.ASCII):
                raise _Unknown
            raise ValueError("a brace that isn't closed")
        name = found[2] or found[3]
        # Whoever starts compose decides on a name that the file doesn't give.
        if name not in known:
            raise _Unknown
        return known[name]

    return _REFERENCE.sub(fill, text)


def _written(text: str) -> dict[str, str]:
    """Each line's value as it is written: messages quote the lines that they don't understand."""
    found = {}
    for number, line in enumerate(text.splitlines()):
        value = re.split(r"[=:]", line, maxsplit=1)[-1].strip()
        found[f"{number}"] = value
        found[f"{number} bare"] = value.strip("'\"")
    return found
