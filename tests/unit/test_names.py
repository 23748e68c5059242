# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of files are bytes; as text they can be turned back, and patterns see them whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._names import Patterns, parents, raw, shown, tidy

names = st.binary(min_size=1).filter(lambda name: b"\0" not in name)


@given(names)
def test_a_name_comes_back_from_its_text(name: bytes) -> None:
    text = shown(name)
    assert raw(text) == name
    assert json.loads(json.dumps(text).encode("utf-8")) == text


@given(names, names)
def test_different_names_have_different_texts(one: bytes, other: bytes) -> None:
    assert (shown(one) == shown(other)) == (one == other)


def test_what_a_text_looks_like() -> None:
    assert shown("ü \n\\".encode() + b"\xff\\xff") == "ü \n\\\\\\xff\\\\xff"
    for text in ("\\", "\\q", "a\\xF0", "\\\\\\"):
        with pytest.raises(ValueError, match="not a name"):
            raw(text)


@pytest.mark.parametrize(
    ("name", "tidied"),
    [
        (b"a/b", b"a/b"),
        (b"./a//b/", b"a/b"),
        (b".", b""),
        (b"a/./b", b"a/b"),
        (b"..a/b..", b"..a/b.."),
        (b"-rf", b"-rf"),
    ],
)
def test_one_form_of_each_name(name: bytes, tidied: bytes) -> None:
    assert tidy(name) == tidied


@pytest.mark.parametrize("name", [b"/a", b"//a", b"..", b"a/../b", b"a/..", b"../a", b"a\0b"])
def test_names_that_lead_elsewhere(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        tidy(name)


@given(st.binary().filter(lambda name: b"\0" not in name))
def test_what_is_tidy_lies_below(name: bytes) -> None:
    try:
        tidied = tidy(name)
    except ValueError:
        return
    parts = tidied.split(b"/") if tidied else []
    assert not {b"", b".", b".."} & set(parts)
    assert tidy(tidied) == tidied


def test_parents() -> None:
    assert list(parents(b"a/b/c")) == [b"a/b", b"a"]
    assert list(parents(b"a")) == []


@pytest.mark.parametrize(
    ("pattern", "path", "name", "matches"),
    [
        ("*.log", b"/srv/x/y.log", b"x/y.log", True),
        ("*.log", b"/srv/x.log/y", b"x.log/y", False),
        ("x/*.log", b"/srv/x/z/y.log", b"x/z/y.log", True),
        ("x/*.log", b"/srv/q/x/y.log", b"q/x/y.log", False),
        ("/srv/x", b"/srv/x", b"y", True),
        ("/srv/x/", b"/srv/x", b"y", True),
        ("/srv/x", b"/srv/xy", b"srv/x", False),
        ("cache/", b"/srv/cache", b"a/cache", True),
        ("*", b"/srv/\xff\n", b"\xff\n", True),
        ("ü*", b"/srv/x", "ü\n\udcff".encode("utf-8", "surrogateescape"), True),
        ("?", b"/srv/x", b"\xff", True),
    ],
)
def test_patterns(pattern: str, path: bytes, name: bytes, matches: bool) -> None:
    assert Patterns([pattern]).match((b"/elsewhere", path), name) == (pattern if matches else "")
