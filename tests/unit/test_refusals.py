# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be unpacked is refused by rules that touch nothing."""

from __future__ import annotations

import os
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._refusals import leads_outside, part_of, refuse
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    DEVICE,
    FIFO,
    FILE,
    FOLDER,
    HARDLINK,
    SYMLINK,
    Entry,
    canonical,
)


def link(name: bytes, target: bytes) -> Entry:
    return Entry(name, SYMLINK, target=target)


def hard(name: bytes, target: bytes) -> Entry:
    return Entry(name, HARDLINK, target=target)


GOOD = [
    Entry(b"", FOLDER, 0o755),
    Entry(b"d", FOLDER, 0o1777),
    Entry(b"d/f", FILE, 0o600),
    hard(b"h", b"d/f"),
    link(b"d/l", b"../d/f"),
    link(b"dangling", b"d/nothing"),
    Entry(b"no folder/f", FILE),
]


def test_what_is_fine() -> None:
    refuse(GOOD)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ([Entry(b"d", FOLDER)], "d: it is there twice"),
        ([Entry(b"d/f", FILE)], "d/f: it is there twice"),
        ([Entry(b"dev", DEVICE)], "dev: a device"),
        ([Entry(b"ff", FIFO)], "ff: a fifo"),
        ([link(b"out", b"/etc")], "out: it leads outside the target, to /etc"),
        ([link(b"out", b"..")], "out: it leads outside"),
        ([link(b"d/out", b"../../x")], "d/out: it leads outside"),
        ([link(b"up", b"d"), link(b"out", b"up/../..")], "out: it leads outside"),
        ([link(b"one", b"two"), link(b"two", b"one")], "one: it leads outside"),
        ([link(b"d/l/x", b"f")], "d/l/x: it lies below d/l, which is a symlink"),
        ([Entry(b"dangling/x", FILE)], "dangling/x: it lies below dangling"),
        ([Entry(b"d/f/x", FILE)], "it lies below d/f, which is a file"),
        ([Entry(b"h/x/y", FILE)], "it lies below h, which is a hardlink"),
        ([hard(b"x", b"later"), Entry(b"later", FILE)], "x: another name of later, which is no file before it"),
        ([hard(b"x", b"d/l")], "x: another name of d/l, which is no file"),
        ([hard(b"x", b"etc/passwd")], "x: another name of etc/passwd"),
        ([Entry(b"s", FILE, 0o4755)], "s: mode 4755 (set-uid)"),
        ([Entry(b"s", FOLDER, 0o2755)], "s: mode 2755 (set-gid)"),
        ([Entry(b"s", FILE, xattrs={"security.capability": b"x"})], "s: it has capabilities"),
    ],
)
def test_what_is_refused(added: list[Entry], said: str) -> None:
    with pytest.raises(Unsafe) as raised:
        refuse([*GOOD, *added])
    assert said in raised.value.msg


def test_the_target_itself_is_a_folder() -> None:
    with pytest.raises(Unsafe, match="in the place of the target itself"):
        refuse([link(b"", b"x")])


def test_what_is_allowed() -> None:
    tool = Entry(b"s", FILE, 0o6755, xattrs={"security.capability": b"x"})
    out = link(b"out", b"/etc")
    for entry, word in ((tool, "privileges"), (out, "outside_links")):
        other = {"privileges": "outside_links", "outside_links": "privileges"}[word]
        refuse([entry], allowed=[word])
        refuse([entry], recorded={entry.name: entry})
        for less in ({"allowed": [other]}, {"recorded": {}}, {"recorded": {entry.name: Entry(entry.name, FILE)}}):
            with pytest.raises(Unsafe):
                refuse([entry], **t.cast("dict[str, t.Any]", less))
    # Nothing allows what can't be kept inside.
    with pytest.raises(Unsafe):
        refuse([out, Entry(b"out/x", FILE)], allowed=["outside_links"], recorded={b"out": out})
    with pytest.raises(Unsafe, match="mode 6755"):
        refuse([tool], recorded={b"s": Entry(b"s", FILE, 0o2755, xattrs=tool.xattrs)})


words = st.sampled_from([b"..", b".", b"a", b"b", b"c", b"", b"d"])
targets = st.lists(words, min_size=1, max_size=5).map(b"/".join)
places = st.sampled_from([b"a", b"b", b"d/a", b"d/b", b"d/c/a"])


@given(st.dictionaries(places, targets, min_size=1))
@example({b"a": b"b/..", b"b": b"d/c/../../.."})
def test_no_link_that_passes_leads_out_on_a_real_disk(links: dict[bytes, bytes]) -> None:
    """The kernel is asked where each link leads, in a folder that has a neighbour for every name."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve() / "inside" / "tree"
        (top / "d/c").mkdir(parents=True)
        made = {place: target for place, target in links.items() if target}
        for place, target in made.items():
            os.symlink(target, os.path.join(os.fsencode(top), place))
        for place in made:
            if not leads_outside(place, made):
                led = os.path.realpath(os.path.join(os.fsencode(top), place))
                assert led == os.fsencode(top) or led.startswith(os.fsencode(top) + b"/")


def test_a_part() -> None:
    entries = [Entry(b"a", FOLDER), Entry(b"a/b", FOLDER), Entry(b"a/b/f", FILE), hard(b"a/b/h", b"a/b/f")]
    assert [(entry.name, entry.target) for entry in part_of(entries, "./a/b/")] == [
        (b"", b""),
        (b"f", b""),
        (b"h", b"f"),
    ]
    assert part_of(entries, "") == entries
    for part, said in (("a/x", "not in the archive"), ("a/b/f", "a file"), ("../a", "'..'"), ("/a", "absolute")):
        with pytest.raises(BackupError, match=said):
            part_of(entries, part)
    with pytest.raises(BackupError, match="lies outside this part"):
        part_of([*entries, hard(b"c/h", b"a/b/f")], "c")


def test_names_of_one_file_have_one_form() -> None:
    first, second = Entry(b"a", FILE, 0o640, size=3), Entry(b"z", FILE, 0o640, size=3)
    assert canonical([second, hard(b"m", b"z"), hard(b"a", b"z")]) == canonical(
        [first, hard(b"m", b"a"), hard(b"z", b"a")]
    )
