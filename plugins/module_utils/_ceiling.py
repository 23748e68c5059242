# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What the backup root may take at most, and what takes it."""

from __future__ import annotations

import os
import re

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size

_SHARE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")
# The folders of a backup root in the order of a message; everything else is somebody else's.
_KINDS = ("sets", "staging", "records", "evidence")
_OTHER = "other files"


def parse_limit(text: str | None, total: int, *, parameter: str) -> int | None:
    """Bytes of a size or of a share of the file system's `total`; empty and None mean no limit.

    Raises:
        BackupError: neither, or nothing at all.
    """
    share = _SHARE.fullmatch(text or "")
    if share and not 0 < float(share[1]) <= 100:
        raise BackupError(f"{parameter}: {text}: not a share of a disk", hint="Give a share from 1% to 100%.")
    limit = int(total * float(share[1]) / 100) if share else parse_size(text, parameter=parameter)
    if limit == 0:
        raise BackupError(f"{parameter}: {text}: room for nothing", hint="Unset it for no limit.")
    return limit


def usage(root: str) -> dict[str, int]:
    """Bytes on the disk by kind; files with several names count once, what goes away meanwhile doesn't."""
    found = dict.fromkeys((*_KINDS, _OTHER), 0)
    seen: set[tuple[int, int]] = set()
    for folder, _folders, files in os.walk(root):
        top = os.path.relpath(folder, root).split(os.sep, 1)[0]
        kind = top if top in _KINDS else _OTHER
        for name in files:
            try:
                info = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                found[kind] += info.st_blocks * 512
    return found


def require_below(limit: int | None, *, used: dict[str, int], sets: int, next_set: int, root: str, given: str) -> None:
    """Refuse a set that would take the backup root over its limit.

    Args:
        next_set: bytes of the new set, judged by the last one; 0 where there is none.
        given: the limit as the user wrote it.
    """
    total = sum(used.values())
    if limit is None or total + next_set <= limit:
        return
    parts = [f"{f'{sets} ' if kind == 'sets' else ''}{kind} {human_size(size)}" for kind, size in used.items() if size]
    room = f" ({human_size(limit)})" if "%" in given else ""
    raise BackupError(
        f"root_limit: {given.strip()}{room}: a new set"
        + (f" of about {human_size(next_set)}" if next_set else "")
        + f" would take {root} over it; {human_size(total)} are in use ({', '.join(parts) or 'nothing'})",
        hint="Raise mazevault_backup_root_limit, or move sets elsewhere. Nothing was started, nothing removed.",
    )
