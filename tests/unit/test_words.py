# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists as inventories, surveys and command lines give them."""

from __future__ import annotations

import shlex
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.filter.words import FilterModule, words


@pytest.mark.parametrize("nothing", [None, "", " ", "\n", " , ,\n", [], (), ["", "  "]])
def test_nothing_gives_no_words(nothing: t.Any) -> None:
    assert words(nothing) == []


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("postgres", ["postgres"]),
        ("postgres,vault", ["postgres", "vault"]),
        (" postgres ,\n vault\n", ["postgres", "vault"]),
        ("postgres\r\nvault", ["postgres", "vault"]),
        ("two words, one", ["two words", "one"]),
        (["postgres", "", "vault"], ["postgres", "vault"]),
        (("a", "b"), ["a", "b"]),
        ([5, True], ["5", "True"]),
        ("a,a", ["a", "a"]),
    ],
)
def test_text_and_lists_give_their_words(given_value: t.Any, expected: list[str]) -> None:
    assert words(given_value) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", []),
        (None, []),
        ("systemctl stop mazevault", ["systemctl", "stop", "mazevault"]),
        ("/opt/a\\ b/stop 'one word' \"$HOME\"", ["/opt/a b/stop", "one word", "$HOME"]),
        ("stop a,b", ["stop", "a,b"]),
        (["/opt/a b/stop", "now"], ["/opt/a b/stop", "now"]),
    ],
)
def test_a_command_line_is_split_as_a_shell_would_and_nothing_is_expanded(command: t.Any, expected: list[str]) -> None:
    assert words(command, command=True) == expected


@given(st.lists(st.text(alphabet="ab /-'\"\\$*", min_size=1).filter(lambda text: text.strip() != "")))
def test_a_quoted_command_comes_back(command: list[str]) -> None:
    assert words(shlex.join(command), command=True) == command


@given(st.text() | st.none() | st.lists(st.text()))
def test_words_are_never_blank_and_stay_as_they_are(value: t.Any) -> None:
    found = words(value)
    assert all(word.strip() for word in found)
    assert words(found) == found


@pytest.mark.parametrize("value", [5, 1.5, True, {"a": 1}])
def test_anything_else_is_refused_by_name(value: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match=f"not {type(value).__name__}"):
        words(value)


@pytest.mark.parametrize("command", ["stop 'it", 'stop "it', "stop \\"])
def test_an_unfinished_command_line_is_refused(command: str) -> None:
    with pytest.raises(AnsibleFilterError, match="not a command line"):
        words(command, command=True)


def test_the_filter_has_its_name() -> None:
    assert FilterModule().filters() == {"words": words}
