# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Sizes as people write them."""

from __future__ import annotations

import re

from ansible.module_utils.common.text.formatters import human_to_bytes

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError


def parse_size(text: str | None, *, parameter: str) -> int | None:
    """Bytes of `512M`, `2G` or a plain number (powers of 1024); empty and None mean unset.

    Raises:
        BackupError: anything else.
    """
    if text is None or not str(text).strip():
        return None
    if not re.fullmatch(r"\s*\d+(\.\d+)?\s*[KMGTP]?i?B?\s*", str(text), re.IGNORECASE):
        raise BackupError(
            f"{parameter}: {text}: not a size", hint="Write a number of bytes, or one with a unit such as 512M or 2G."
        )
    return int(human_to_bytes(re.sub(r"(?i)i(?=b?\s*$)", "", str(text))))
