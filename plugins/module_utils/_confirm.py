# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The confirmation of a destructive step: part of the module that destroys, so that no tag steps over it."""

from __future__ import annotations

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError


def require_confirmation(check_mode: bool, confirm: str | None, inventory_hostname: str | None) -> None:
    """Raise unless the operator typed the host's name; a preview needs no confirmation."""
    if check_mode:
        return
    if not inventory_hostname:
        raise BackupError(
            "inventory_hostname: missing", hint="Pass inventory_hostname; the confirmation is compared with it."
        )
    if confirm != inventory_hostname:
        shown = f"{confirm}: isn't the name of this host" if confirm else "missing"
        raise BackupError(
            f"confirm: {shown}",
            hint=f"Nothing was touched. To go on, run again with -e mazevault_confirm={inventory_hostname}",
        )
