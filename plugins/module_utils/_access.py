# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Who can open a published set: its own recipients, and those that its keys were encrypted to later."""

from __future__ import annotations

import os
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _encryption
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import Recipient, SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path, read_json, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import LATER, later_wrapped


def has_access(found: RecoverySet, class_name: str, wanted: t.Sequence[Recipient]) -> bool:
    """Whether exactly these recipients are the newest that the key was encrypted to."""
    newest = found.manifest["recipients"][class_name]
    for path in later_wrapped(found.records_path, class_name, found.scheme):
        newest = read_json(f"{path}.json")["recipients"]
    return {one["fingerprint"] for one in newest} == {one.fingerprint for one in wanted}


def rewrap(found: RecoverySet, class_name: str, key: SetKey, recipients: t.Sequence[Recipient]) -> str:
    """Encrypt a set's key to other recipients, beside the set; return the new file's path."""
    folder = os.path.join(found.records_path, LATER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    moment = _clock.now()
    name = f"{class_name}.{_clock.stamp(moment)}_{moment.microsecond:06d}.key.{found.scheme}"
    path = os.path.join(folder, name)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as work:
        new = os.path.join(work, name)
        _encryption.wrap(key.private_path, new, recipients, found.scheme, work=work)
        os.chmod(new, 0o600)
        fsync_path(new)
        # First what is said of it, then the file itself: one without the other isn't looked at.
        facts = {"at": _clock.rfc3339(moment), "recipients": [one.described() for one in recipients]}
        write_json(f"{path}.json", facts)
        os.rename(new, path)
    fsync_path(folder)
    return path
