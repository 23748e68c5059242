# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: a chain that shows each change, and that a crash in the middle of a line doesn't break."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def lines(root: str) -> list[bytes]:
    return Path(_ledger.path_of(root)).read_bytes().splitlines()


def test_no_ledger_is_an_empty_one(root: str) -> None:
    assert _ledger.read(root) == []
    assert _ledger.head(root) == "0" * 64


def test_each_line_follows_from_the_one_before(root: str) -> None:
    heads = [_ledger.append(root, "published", set_id=f"mazevault_2026112{n}_020000", number=n) for n in range(3)]
    entries = _ledger.read(root)
    assert [entry["sequence"] for entry in entries] == [1, 2, 3]
    assert [entry["previous"] for entry in entries] == ["0" * 64, *heads[:2]]
    assert [entry["number"] for entry in entries] == [0, 1, 2]
    assert all(entry["at"].endswith("Z") for entry in entries)
    assert _ledger.head(root) == heads[-1] == _ledger.line_hash(lines(root)[-1])
    assert stat.S_IMODE(os.stat(_ledger.path_of(root)).st_mode) == 0o600


@pytest.mark.parametrize("keep", range(0, 40, 3))
def test_a_torn_line_is_cut_off_and_that_is_said(root: str, keep: int) -> None:
    first = _ledger.append(root, "published", set_id="a")
    whole = Path(_ledger.path_of(root)).read_bytes()
    _ledger.append(root, "published", set_id="b")
    torn = Path(_ledger.path_of(root)).read_bytes()[: len(whole) + keep]
    Path(_ledger.path_of(root)).write_bytes(torn)

    assert [entry["set_id"] for entry in _ledger.read(root)] == ["a"], "reading copes with it"
    assert _ledger.head(root) == first
    _ledger.append(root, "published", set_id="c")
    events = [(entry["event"], entry.get("torn_bytes")) for entry in _ledger.read(root)]
    assert events == [("published", None), *([("healed", keep)] if keep else []), ("published", None)]
    assert Path(_ledger.path_of(root)).read_bytes().startswith(whole), "what was whole is as it was"


def test_a_ledger_torn_in_its_first_line_begins_anew(root: str) -> None:
    Path(_ledger.path_of(root)).write_bytes(b'{"at": "2026')
    _ledger.append(root, "published", set_id="a")
    assert [entry["event"] for entry in _ledger.read(root)] == ["healed", "published"]


def edits(content: list[bytes]) -> dict[str, list[bytes]]:
    changed = json.loads(content[1])
    changed["verdict"] = "pass"
    return {
        "edited": [content[0], json.dumps(changed, sort_keys=True).encode(), content[2]],
        "removed": [content[0], content[2]],
        "first removed": content[1:],
        "swapped": [content[1], content[0], content[2]],
        "doubled": [content[0], content[0], *content[1:]],
        "inserted": [content[0], b"{}", *content[1:]],
        "no object": [content[0], b"[]", content[2]],
        "no JSON": [content[0], content[1][:-1], content[2]],
        "empty line": [content[0], b"", *content[1:]],
    }


def broken(root: str, how: str) -> bytes:
    """Write a ledger of three lines, and then break it; its content then."""
    for number, verdict in enumerate(("pass", "fail", "pass"), 1):
        _ledger.append(root, "published", set_id=f"set{number}", set_sequence=number, verdict=verdict)
    path = Path(_ledger.path_of(root))
    path.write_bytes(b"".join(line + b"\n" for line in edits(lines(root))[how]))
    return path.read_bytes()


@pytest.mark.parametrize("how", edits([b"{}"] * 3))
def test_a_changed_line_ends_all_trust(root: str, how: str) -> None:
    content = broken(root, how)
    chain = _ledger.load(root)
    assert re.fullmatch(r"line \d doesn't follow from the line before it", chain.problem)
    assert (chain.vouching, chain.published()) == ((), {})
    assert chain.last_set_sequence() == 3, "a number isn't used twice all the same"
    assert Path(_ledger.path_of(root)).read_bytes() == content, "looking at it changes nothing"


@pytest.mark.parametrize("how", edits([b"{}"] * 3))
def test_what_comes_after_a_changed_line_begins_a_chain_that_names_it(root: str, how: str) -> None:
    content = broken(root, how)
    problem = _ledger.load(root).problem
    _ledger.append(root, "published", set_id="set4")
    chain = _ledger.load(root)
    first, second = chain.entries
    assert (chain.problem, first["event"], second["event"]) == ("", "began anew", "published")
    aside = Path(root, first["former_file"])
    assert aside.read_bytes() == content
    assert first["former_sha256"] == hashlib.sha256(content).hexdigest()
    assert (first["problem"], first["former_sets"]) == (problem, 3)
    assert chain.published().keys() == {"set4"}
    assert chain.last_set_sequence() == 3


def test_a_ledger_that_is_gone_is_said_to_be(root: str) -> None:
    _ledger.begin_anew(root, "there is no ledger", former_sets=7)
    _ledger.begin_anew(root, "said once")
    assert [(entry["event"], entry["problem"]) for entry in _ledger.read(root)] == [
        ("began anew", "there is no ledger")
    ]
    assert _ledger.load(root).last_set_sequence() == 7


def test_an_edit_of_the_last_line_changes_the_head(root: str) -> None:
    """The chain alone can't show it; that is what a witness of the head is for."""
    _ledger.append(root, "published", verdict="fail")
    head = _ledger.head(root)
    path = Path(_ledger.path_of(root))
    path.write_bytes(path.read_bytes().replace(b'"fail"', b'"pass"'))
    assert _ledger.head(root) != head


@settings(max_examples=30)
@given(
    st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1).map("x{}".format), st.text(), max_size=3)
    )
)
def test_any_text_survives(facts: list[dict[str, str]]) -> None:
    facts = [{k: v.encode("utf-8", "replace").decode() for k, v in fact.items()} for fact in facts]
    with tempfile.TemporaryDirectory() as root:
        for fact in facts:
            _ledger.append(root, "noted", **fact)
        assert [{k: v for k, v in entry.items() if k.startswith("x")} for entry in _ledger.read(root)] == facts


def _write(root: str, who: int) -> None:
    for number in range(20):
        _ledger.append(root, "written", who=who, number=number)


def test_four_writers_at_once_make_one_chain(root: str) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(root, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    entries = _ledger.read(root)
    assert [entry["sequence"] for entry in entries] == list(range(1, 81))
    for who in range(4):
        assert [entry["number"] for entry in entries if entry["who"] == who] == list(range(20))
