# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where places are, as inventories and surveys write it, and what hosts answered."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.mazevault.backup.plugins.filter.escrow_looks import escrow_looks
from ansible_collections.mazevault.backup.plugins.filter.escrow_places import escrow_places
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_looks import carried, decoded, encoded
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import is_index, stamp_in


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, []),
        ("", []),
        ([None, ""], []),
        ("/mnt/a, far:/srv/b", ["/mnt/a", "far:/srv/b"]),
        (["/mnt/a", {"host": "far", "path": "/srv/b"}], ["/mnt/a", "far:/srv/b"]),
        ({"host": "far.example.com", "path": "/srv/b"}, ["far.example.com:/srv/b"]),
        (["far:/srv/b", {"host": "far", "path": "/srv/b"}], ["far:/srv/b"]),
        # The installation's own host.
        ("prague:/mnt/a", ["/mnt/a"]),
        ({"path": "/mnt/a"}, ["/mnt/a"]),
        ("/mnt/with:colon", ["/mnt/with:colon"]),
    ],
)
def test_places(given: t.Any, names: list[str]) -> None:
    found = escrow_places(given, "prague")
    assert [one["name"] for one in found] == names
    assert all(one["name"] == (f"{one['host']}:{one['path']}" if one["host"] else one["path"]) for one in found)


@pytest.mark.parametrize(
    "given",
    [
        "relative/folder",
        "user@far:/srv/b",
        "far:srv/b",
        "-oProxyCommand=x:/srv",
        {"host": "far"},
        {"host": "-x", "path": "/srv"},
        {"host": "far", "path": "/srv", "user": "root"},
        {"host": "far", "path": "srv"},
    ],
)
def test_what_is_no_place_is_refused(given: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="escrow place"):
        escrow_places([given], "prague")


def test_what_hosts_answered() -> None:
    place = {"half": "key", "name": "far:/srv"}
    whole = {"item": place, "whole": {"a": "b"}, "problem": "", "place_id": "x", "wrong": {}, "healed": []}
    assert escrow_looks([whole])[0]["whole"] == {"a": "b"}
    assert escrow_looks([{**whole, "item": {"item": place}}])[0]["name"] == "far:/srv"
    down = escrow_looks([{"item": place, "unreachable": True, "msg": "timed\nout"}])
    assert down == [{"half": "key", "name": "far:/srv", "problem": "its host can't be reached: timed out"}]
    assert escrow_looks([{"item": place, "failed": True}])[0]["problem"].startswith("its host couldn't look")
    assert escrow_looks([{"item": place, "skipped": True}]) == []


@pytest.mark.parametrize(
    ("name", "stamp", "index"),
    [
        ("secrets.vault.20261123_020000.cms", "20261123_020000", False),
        ("vault.key.20261123_020000.age", "20261123_020000", False),
        ("mazevault-env-20261123_020000.cms", "20261123_020000", False),
        ("escrow.20261123_020000.json", "20261123_020000", True),
        ("escrow.20261123_020000.json.sig", "20261123_020000", True),
        ("../escrow.20261123_020000.json", "", False),
        ("escrow.20261123_020000.json\n", "", False),
        (".mazevault-escrow.json", "", False),
        ("vault.key.20261123_020000.cms.tmp12", "", False),
    ],
)
def test_names_that_are_ours(name: str, stamp: str, index: bool) -> None:
    assert (stamp_in(name), is_index(name)) == (stamp, index)


def test_handing_over() -> None:
    files = {"vault.key.20261123_020000.cms": b"\x00\xff"}
    assert decoded(encoded(files), "handed") == files
    for bad in ({"x": "eA=="}, {next(iter(files)): "not base64!"}):
        with pytest.raises(BackupError, match="handed"):
            decoded(bad, "handed")
    sizes = {"a": 10 << 20, "b": 10 << 20, "c": 1, "d": 40 << 20}
    assert carried("abcd", sizes.__getitem__) == (["a", "c"], ["b", "d"])
    assert carried("d", sizes.__getitem__) == (["d"], []), "one that is too large still gets there"
