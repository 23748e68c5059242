# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What keeps a set apart from its age: a change that isn't confirmed, a hold; and what people said of a set. Pure.

All of it are signed records of the set; the newest word on a matter counts.
"""

from __future__ import annotations

import datetime as dt
import re
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

# Of a record that a person made, and its states.
KIND = "pin"
CONFIRMED, HELD, RELEASED, ACCEPTED = "confirmed", "held", "released", "accepted"
STATES = (CONFIRMED, HELD, RELEASED, ACCEPTED)
PRE_CHANGE, HOLD = "pre_change", "hold"
# Records of retention itself: it is going to remove a set, it won't after all, it did.
REMOVING, STAYING, REMOVED = "removing", "staying", "removed"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
Record = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Pin:
    """One reason why a set stays.

    Attributes:
        why: `pre_change` or `hold`.
        since: when that began (UTC).
        by: who holds it; None for a change.
        reason: in the words of that person.
        until: when the hold ends by itself; None: when somebody confirms the change.
    """

    why: str
    since: str
    by: str | None = None
    reason: str | None = None
    until: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        if self.why == PRE_CHANGE:
            return f"made before a change (at {self.since}) that nobody has confirmed yet"
        return f"held by {self.by} until {self.until}: {self.reason}"


def pins_of(manifest: Record, records: t.Iterable[Record], now: dt.datetime) -> list[Pin]:
    """What pins a set.

    Args:
        records: those that count, oldest first.
    """
    made = str(manifest.get("ended") or manifest.get("recovery_point") or "")
    change = Pin(PRE_CHANGE, made) if manifest.get("reason") == PRE_CHANGE else None
    hold = None
    for record in records:
        if record.get("kind") != KIND:
            continue
        if record.get("state") == CONFIRMED:
            change = None
        elif record.get("state") == RELEASED:
            hold = None
        elif record.get("state") == HELD:
            words = {name: str(record.get(name) or "") for name in ("by", "reason", "until")}
            hold = Pin(HOLD, str(record.get("at")), **words)
    if hold is not None and over(str(hold.until), now):
        hold = None
    return [pin for pin in (change, hold) if pin is not None]


def accepted(records: t.Iterable[Record]) -> bool:
    """Whether a person looked at a suspicious set and said that it is as it should be."""
    return any(record.get("kind") == KIND and record.get("state") == ACCEPTED for record in records)


def is_leaving(records: t.Iterable[Record]) -> bool:
    """Whether retention had said that it removes the set, and nobody has said otherwise since."""
    leaving = False
    for record in records:
        kind = record.get("kind")
        if kind == REMOVING:
            leaving = True
        elif kind == STAYING or (kind == KIND and record.get("state") == HELD):
            leaving = False
    return leaving


def was_removed(records: t.Iterable[Record]) -> bool:
    return any(record.get("kind") == REMOVED for record in records)


def over(until: str, now: dt.datetime) -> bool:
    """Whether a hold has ended; one whose end can't be read hasn't."""
    try:
        return _aware(_clock.parse(until)) <= now
    except ValueError:
        return False


def end_of(text: str, now: dt.datetime) -> str:
    """The end of a hold as it is written: a day lasts until midnight (UTC).

    Raises:
        BackupError: no moment, or one that is over.
    """
    try:
        moment = _aware(_clock.parse(text.strip()))
    except ValueError as exc:
        raise BackupError(
            f"until: {text}: neither a day nor a moment", hint="Write 2027-03-01, or 2027-03-01T12:00:00Z."
        ) from exc
    if _DAY.match(text.strip()):
        moment += dt.timedelta(days=1)
    if moment <= now:
        raise BackupError(f"until: {text}: is over", hint="A hold ends in the future; release it to end it now.")
    return _clock.rfc3339(moment)


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)
