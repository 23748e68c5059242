# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The one exception of the collection: what is wrong, and what to do about it."""

from __future__ import annotations

import errno
import typing as t


class BackupError(Exception):
    """A failure that the operator can understand.

    Args:
        msg: one line that names the parameter or thing and its value, never a secret.
        hint: one line that says what to do.
        details: more facts for the result (return codes, the tail of stderr).
    """

    def __init__(self, msg: str, *, hint: str = "", details: dict[str, t.Any] | None = None) -> None:
        super().__init__(msg)
        self.msg = " ".join(msg.split())
        self.hint = " ".join(hint.split())
        self.details = dict(details or {})


class Busy(BackupError):
    """Another run works on the same thing."""


class Retry(BackupError):
    """This attempt failed for a reason that another attempt may not meet (locks, concurrent DDL)."""


class Damaged(BackupError):
    """The bytes are not a whole dump."""


class Unsafe(BackupError):
    """An archive holds what must not be unpacked."""


_FULL = {errno.ENOSPC: "Free some space", errno.EDQUOT: "Free some space, or raise the quota"}


def of_system(exc: OSError, hint: str, *, what: str = "") -> BackupError:
    """What the operating system refused, as an error of ours.

    Args:
        exc: its refusal.
        hint: what to do about it, where nothing better is known.
        what: the thing it was about, where `exc` names no file.
    """
    said = f"{exc.filename or what or 'operating system'}: {exc.strerror or exc}"
    full = _FULL.get(exc.errno or 0)
    return BackupError(said, hint=f"{full}, then run again." if full else hint)
