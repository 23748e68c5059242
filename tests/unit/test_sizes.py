# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("0", 0),
        ("1", 1),
        (" 512M ", 512 << 20),
        ("512m", 512 << 20),
        ("2G", 2 << 30),
        ("2GB", 2 << 30),
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("1.5K", 1536),
        ("1 T", 1 << 40),
        ("1P", 1 << 50),
        ("10B", 10),
        ("2Gb", 2 << 30),
        ("0.1K", 102),
        ("9007199254740993", (1 << 53) + 1),
    ],
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert parse_size(text, parameter="reserve") == size


@pytest.mark.parametrize(
    "text", ["-1", "2 GB free", "G", "1,5G", "0x10", "1e3", "2X", "2Gbit", "five", "1\n2", "2iB ", "%", "5%"]
)
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(BackupError) as caught:
        parse_size(text, parameter="reserve")
    assert caught.value.msg.startswith("reserve: ")
    assert caught.value.msg.endswith(": not a size")
    assert "512M" in caught.value.hint


@given(st.integers(0, 1 << 60))
def test_a_plain_number_is_itself(number: int) -> None:
    assert parse_size(str(number), parameter="reserve") == number


@given(st.text(max_size=12))
def test_anything_is_a_size_or_an_error(text: str) -> None:
    try:
        size = parse_size(text, parameter="reserve")
    except BackupError:
        return
    assert size is None or size >= 0
