# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Sizes as people write them."""

from __future__ import annotations

import re

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

_SIZE = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*(?:([KMGTP])(?:iB|B)?|B)?\s*", re.IGNORECASE)


def parse_size(text: str | None, *, parameter: str) -> int | None:
    """Bytes of `512M`, `2G` or a plain number (powers of 1024); empty and None mean unset.

    Raises:
        BackupError: anything else.
    """
    if text is None or not str(text).strip():
        return None
    match = _SIZE.fullmatch(str(text))
    if match is None:
        raise BackupError(
            f"{parameter}: {text}: not a size", hint="Write a number of bytes, or one with a unit such as 512M or 2G."
        )
    whole, fraction, unit = match.groups()
    factor = 1 << 10 * ("KMGTP".index(unit.upper()) + 1) if unit else 1
    digits = fraction or "0"
    return int(whole) * factor + int(int(digits) * factor // 10 ** len(digits))
