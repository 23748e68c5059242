# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Times as the collection writes them: UTC, RFC 3339."""

from __future__ import annotations

import datetime as dt

STAMP = "%Y%m%d_%H%M%S"


def now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def rfc3339(moment: dt.datetime) -> str:
    """2026-11-23T02:00:00.123456Z; a naive time is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)
    return aware.astimezone(dt.timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def stamp(moment: dt.datetime) -> str:
    """20261123_020000, as in the specification's file names."""
    return moment.astimezone(dt.timezone.utc).strftime(STAMP)


def human_age(seconds: float) -> str:
    """3 d 4 h, 2 h 5 min, 40 s."""
    whole = int(abs(seconds))
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def exact_span(seconds: float) -> str:
    """25 h 25 min: hours up to four days, as targets are in hours; else like human_age."""
    whole = int(abs(seconds))
    return f"{whole // 3600} h {whole % 3600 // 60} min" if 3600 <= whole < 4 * 86400 else human_age(seconds)


SECOND = dt.timedelta(seconds=1)
