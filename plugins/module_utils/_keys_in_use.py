# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Do the containers use the keys that lie in the files? By name, never by value; no I/O.

Keys that are in escrow and aren't those in use open nothing.
"""

from __future__ import annotations

import datetime as dt
import re
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._differences import Wanted
from ansible_collections.mazevault.backup.plugins.module_utils._key_material import is_key_name, secrets_in
from ansible_collections.mazevault.backup.plugins.module_utils._stack import Container, Stack
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

MASTER_NAMES = ("MAZEVAULT_MASTER_KEY", "MASTER_KEY")
# Who decrypts data.
USERS = ("backend", "ocsp")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)\Z")


def compare(stack: Stack, wanted: t.Mapping[str, Wanted], *, vault_written: dt.datetime | None) -> list[Check]:
    """One check for each container that holds a secret, or should.

    Args:
        wanted: service -> what its files want.
        vault_written: when the vault's newest file was written; None: there is no vault.
    """
    found = [_compared(one, wanted.get(one.service), vault_written) for one in stack.containers]
    checks = [check for check in found if check is not None]
    for role in USERS:
        if not any(one.role == role for one in stack.containers):
            checks.append(Check(role, "read", UNPROVEN, "it has no container here, so what it uses isn't known"))
    return checks


def _compared(one: Container, wanted: Wanted | None, vault_written: dt.datetime | None) -> Check | None:
    held = {
        name: value for name, value in one.environment.items() if value and (is_key_name(name) or secrets_in(value))
    }
    user = one.role in USERS
    said = (wanted.environment if wanted else None) or {}
    known = {name: said[name] for name in held if name in said}
    if not user and not known:
        return None
    # A compose program writes a dollar twice.
    other = sorted(name for name, value in known.items() if held[name] not in (value, value.replace("$$", "$")))
    if other:
        reason = f"was made with other values than the files have now: {', '.join(other)}"
        return Check(one.name, "read", FAIL, f"{reason}. Create it anew (docker compose up -d), or correct the files")
    if not user:
        return Check(one.name, "read", PASS, observed=_same(known))
    if one.status != "running":
        return Check(one.name, "read", UNPROVEN, f"doesn't run ({one.status}), so nobody uses its keys now")
    masters = [name for name in MASTER_NAMES if name in held]
    unknown = [name for name in masters if name not in known]
    if unknown:
        return Check(one.name, "read", UNPROVEN, f"nothing says what its files want for {', '.join(unknown)}")
    if not masters:
        return _of_vault(one, known, vault_written)
    return Check(one.name, "read", PASS, observed=_same(known))


def _of_vault(one: Container, known: t.Mapping[str, str], written: dt.datetime | None) -> Check:
    """A process that has no master key in its environment has read it from the vault, when it was started."""
    if written is None:
        return Check(one.name, "read", UNPROVEN, "has no master key in its environment, and there is no vault")
    started = _moment(one.started)
    if started is None or written > started:
        reason = "takes its master key from the vault, and that was written after it was started"
        return Check(one.name, "read", UNPROVEN, f"{reason}: start it again, then it is what lies there")
    return Check(one.name, "read", PASS, observed=f"{_same(known)}; the master key from the vault".lstrip("; "))


def _same(known: t.Mapping[str, str]) -> str:
    return f"the same as in the files: {', '.join(sorted(known))}" if known else ""


def _moment(text: str) -> dt.datetime | None:
    """docker writes nanoseconds, podman the zone of the host."""
    match = _MOMENT.match(text)
    return dt.datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")) if match else None
