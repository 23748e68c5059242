# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of both classes as one tree, and in which folders of a host its parts belong. Nothing is written."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._overlay import Layer, Overlay, overlay, portions
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import Contents
from ansible_collections.mazevault.backup.plugins.module_utils._tree import FILE, FOLDER, HARDLINK, Entry


def layer(**kinds: str) -> Layer:
    """An archive; names have `__` for a slash, and a kind, or `another name of` with a name."""
    entries = []
    for name, kind in kinds.items():
        plain = name.replace("__", "/").encode()
        if kind.startswith("="):
            entries.append(Entry(plain, HARDLINK, target=kind[1:].encode()))
        else:
            entries.append(Entry(plain, kind, mode=0o600, sha256=f"{len(kinds)} {name}"))
    return Layer(t.cast("t.Any", None), Contents(tuple(entries), "", 0), Limits(1, 1))


DATA = layer(opt=FOLDER, opt__mazevault__config=FOLDER, opt__mazevault__config__a=FILE, opt__mazevault__env=FILE)
KEYS = layer(opt__mazevault__env=FILE, opt__mazevault__config__key=FILE)


def where(found: Overlay, places: Mapping[bytes, str]) -> dict[str, list[str]]:
    """What comes to lie in which folder."""
    return {part.target: sorted(entry.name.decode() for entry in part.entries) for part in portions(found, places)}


def test_key_material_lies_over_the_rest() -> None:
    found = overlay([DATA, KEYS])
    assert found.origin[b"opt/mazevault/env"] == found.origin[b"opt/mazevault/config/key"] == 1
    assert found.origin[b"opt/mazevault/config/a"] == found.origin[b"opt"] == 0
    assert len(found.entries) == 5


def test_what_is_left_out_is_nowhere() -> None:
    found = overlay([DATA], without={b"opt/mazevault/env"})
    assert b"opt/mazevault/env" not in found.entries


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([layer(a=FOLDER), layer(a=FILE)], "a folder in one archive and a file in another"),
        ([layer(a=FILE), layer(a__b=FILE)], "it is no folder, and others lie below it"),
        ([layer(a=FILE, b="=a"), layer(a=FILE)], "another name of a, which comes from elsewhere"),
    ],
)
def test_what_does_not_go_together_is_refused(layers: list[Layer], reason: str) -> None:
    with pytest.raises(BackupError, match=reason):
        overlay(layers)


def test_names_say_where_they_lie() -> None:
    found = overlay([layer(srv__a__certs=FOLDER, srv__a__certs__x=FILE, srv__b__env=FILE)])
    assert where(found, {}) == {"/srv/a/certs": ["", "x"], "/srv/b": ["env"]}


def test_places_win_the_innermost_of_them() -> None:
    found = overlay([layer(opt__m__env=FILE, opt__m__in__x=FILE, volumes__v=FOLDER, volumes__v__deep=FILE)])
    places = {b"opt/m": "/new/home", b"opt/m/in": "/elsewhere", b"volumes/v": "/var/lib/v/_data"}
    assert where(found, places) == {"/new/home": ["env"], "/elsewhere": ["x"], "/var/lib/v/_data": ["", "deep"]}


def test_a_name_that_only_begins_alike_lies_elsewhere() -> None:
    found = overlay([layer(volumes__v2__x=FILE)])
    assert where(found, {b"volumes/v": "/v"}) == {"/volumes/v2": ["x"]}


def test_nothing_goes_into_the_root_folder() -> None:
    with pytest.raises(BackupError, match="nothing is put into the root folder itself"):
        portions(overlay([layer(env=FILE)]), {})


def test_names_of_one_file_stay_together() -> None:
    found = overlay([layer(a__x=FILE, b__y="=a/x")])
    with pytest.raises(BackupError, match="which lies in another place"):
        portions(found, {b"a": "/a", b"b": "/b"})
