# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What every module of the collection does the same way: umask, whom it trusts, errors, the end."""

from __future__ import annotations

import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _policy
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, of_system
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer, default_key
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

# Paths, not secrets.
TRUST_SPEC: dict[str, t.Any] = {"signing_key": {"type": "path", "no_log": False}}
KEY_SPEC: dict[str, t.Any] = {
    "set_key_file": {"type": "path", "no_log": False},
    "identity_file": {"type": "path"},
}

# Where MazeVault's keys lie.
KEYS_SPEC: dict[str, t.Any] = {
    "env_file": {"type": "path"},
    "vault_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
}

_ENDING: list[t.Callable[[], None]] = []


def at_end(action: t.Callable[[], None]) -> None:
    """Do this when the module's action is over, however it ends."""
    _ENDING.append(action)


# What a run wishes, as far as a policy may say otherwise; the values are checked by who uses them.
WANTED_SPEC: dict[str, t.Any] = {"wanted": {"type": "dict", "default": {}}}


def trust_of(params: t.Mapping[str, t.Any]) -> Trust:
    """Who signs, and whose signatures count; reads nothing but what must be there already."""
    key = params.get("signing_key") or default_key()
    if not os.path.isabs(key):
        raise BackupError(f"signing_key: {key}: not an absolute path", hint="Name it from the root folder on.")
    return Trust(Signer(key), _policy.find(key))


def check_common(params: t.Mapping[str, t.Any]) -> None:
    """Options that several modules have, and that mean the same in each."""
    root = params.get("backup_root")
    if root is not None and not os.path.isabs(root):
        raise BackupError(
            f"backup_root: {root or 'empty'}: not an absolute path", hint="Name it from the root folder on."
        )
    for name in ("application_timeout", "block_limit", "stale_after"):
        seconds = params.get(name)
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise BackupError(f"{name}: {seconds}: not above 0", hint="Give a number of seconds.")


def run(module: AnsibleModule, action: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> t.NoReturn:
    """Run the module's one action; a BackupError becomes a message that says what to do."""
    os.umask(0o077)
    try:
        check_common(module.params)
        result = action(module)
    except BackupError as exc:
        module.fail_json(
            msg=f"{exc.msg} -> {exc.hint}" if exc.hint else exc.msg, reason=exc.msg, hint=exc.hint, **exc.details
        )
    except OSError as exc:
        error = of_system(exc, "See to that file or folder and its rights, then run again.")
        module.fail_json(msg=f"{error.msg} -> {error.hint}", reason=str(exc), hint=error.hint)
    finally:
        for ending in _ENDING:
            ending()
    module.exit_json(**result)
