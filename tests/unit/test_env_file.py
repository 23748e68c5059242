# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A `.env` is read as docker compose reads it; data/dotenv has what compose 2.26 made of an odd one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._compose import Project
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import Settings, settings_of

DATA = Path(__file__).parent / "data/dotenv"


def test_compose_and_we_agree_on_an_odd_file() -> None:
    told = json.loads((DATA / "compose-2.26.json").read_text(encoding="utf-8"))["values"]
    said = settings_of((DATA / "odd.env").read_text(encoding="utf-8"))
    assert said.refused == 0
    # What compose takes from elsewhere, an empty value or a default, can be another one where it is started next.
    assert said.unknown == ("MOVED", "DEFAULTS")
    assert {name: told.pop(name) for name in said.unknown} == {"MOVED": "", "DEFAULTS": "canary"}
    # These can't be asked for in a compose file.
    extra = {"DASHED-NAME": "canary", "DOTTED.NAME": "canary"}
    assert said.values == {**told, **extra}
    assert "canary" not in repr(said)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=${B", 1),
        ("A=${}", 1),
        ("A B=c", 1),
        ('A=1\nB="c', 2),
        ("A=1\nB!=2\n", 2),
        ("A=1\nlonely", 2),
        ("=x\nA=1\n", 1),
        ("A='x\\'\n", 1),
        ("A=1\n\nnonsense here\n", 3),
        ('A=1\n"B"=2\n', 2),
    ],
)
def test_what_compose_refuses(text: str, line: int) -> None:
    """Each of these was given to compose 2.26, which read none of the file."""
    assert settings_of(text).refused == line


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment", "\ufeff", "lonely\n", "export A\n", "1=2\n", "  \t\r\n#\n"]
)
def test_no_setting_and_no_fault(text: str) -> None:
    assert settings_of(text) == Settings(secrets=settings_of(text).secrets)


def test_the_last_one_counts_even_if_nobody_knows_it() -> None:
    assert settings_of("A=1\nA=2\n").values == {"A": "2"}
    said = settings_of("A=1\nA=${ELSEWHERE:-1}\nB=${A}\n")
    assert (dict(said.values), said.unknown) == ({}, ("A", "B"))
    assert settings_of("A=$B\nA=1\n").unknown == ()


# A value of more than spaces; compose has no way to write a NUL, and trims what it takes for space.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z").filter(lambda name: name != "export")


def single(value: str) -> str:
    return "'" + value.replace("'", "\\'") + "'"


def double(value: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("$", "\\$"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(plain, escaped)
    return f'"{value}"'


# Single quotes have no way to write a backslash before a quote, or at the end.
singles = texts.filter(lambda value: "\\" not in value).map(lambda value: (value, single(value)))
doubles = texts.map(lambda value: (value, double(value)))
bare = st.from_regex(r"\A[A-Za-z0-9/+=:?&@.,;!%^*()\[\]{}|~_-]{0,30}\Z").map(lambda value: (value, value))
forms = st.tuples(
    st.sampled_from(["", "  ", "export ", "\t"]),
    names,
    st.sampled_from(["=", " = ", "= ", ": "]),
    st.one_of(singles, doubles, bare),
    st.sampled_from(["", " ", " # why", "\r"]),
)


@given(st.lists(forms), st.sampled_from(["\n", "\r\n", "\n\n# between\n"]), st.booleans(), st.booleans())
def test_what_is_written_is_read(
    lines: list[tuple[str, str, str, tuple[str, str], str]], end: str, last: bool, mark: bool
) -> None:
    expected = {}
    text = "\ufeff" if mark else ""
    for before, name, sign, (value, written), behind in lines:
        # Behind nothing a comment is a value.
        expected[name] = "# why" if not written and behind == " # why" else value
        text += f"{before}{name}{sign}{written}{behind}{end}"
    said = settings_of(text if last else text[: len(text) - len(end)] if lines else text)
    assert (dict(said.values), said.unknown, said.refused) == (expected, (), 0)


@given(st.text())
def test_anything_is_read_to_its_end(text: str) -> None:
    said = settings_of(text)
    assert set(said.values).isdisjoint(said.unknown)
    assert 0 <= said.refused <= text.count("\n") + 1


def test_messages_about_a_file_are_free_of_its_values() -> None:
    secrets = settings_of('A="canary one\nB=canary-two"\nC: "canary-three" # x\n').secrets.values()
    assert {"canary-two", "canary one"} <= set(secrets) and '"canary-three" # x' in secrets


def test_a_file_that_is_not_there_or_not_readable(tmp_path: Path) -> None:
    assert Project("x", str(tmp_path), ()).settings() == Settings()
    assert Project("x", "", ()).settings() == Settings()
    (tmp_path / ".env").mkdir()
    assert Project("x", str(tmp_path), ()).settings().unreadable == "Is a directory"
    (tmp_path / ".env").rmdir()
    (tmp_path / ".env").write_bytes(b"A=1\r\nB=\xff\xfe\r\n")
    assert Project("x", str(tmp_path), ()).settings().values["A"] == "1"
