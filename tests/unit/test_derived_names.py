# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of databases beside the live one: short enough for the server, and found again by how they begin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._swap import derived_name, derived_prefix, is_stamp

STAMP = "20261124_035408"
LONGEST = 63
"""Bytes of a name of PostgreSQL (NAMEDATALEN - 1)."""


@given(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=80),
    st.sampled_from(["restore", "before", "rolledback"]),
)
def test_found_again_by_how_it_begins(database: str, word: str) -> None:
    name, prefix = derived_name(database, word, STAMP), derived_prefix(database, word)
    assert len(name.encode()) <= LONGEST
    assert name == prefix + STAMP and is_stamp(name[len(prefix) :])


def test_a_long_name_is_cut() -> None:
    assert derived_name("v" * LONGEST, "restore", STAMP) == "v" * 39 + "_restore_" + STAMP
    assert derived_prefix("v" * LONGEST, "restore") == "v" * 39 + "_restore_"
