# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Records that another host has made and signed: whether they may be taken, and taking them."""

from __future__ import annotations

import datetime as dt
import json
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger, _records
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX, verify_bytes
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN

_KIND = "verify"
# Two hosts' clocks.
_AHEAD = dt.timedelta(minutes=10)


@dataclass(frozen=True)
class ForeignRecord:
    """A record that may be taken.

    Attributes:
        content: what it says.
        by: id of the key that signed it.
    """

    found: RecoverySet
    data: bytes
    signature: bytes
    content: dict[str, t.Any]
    by: str

    @property
    def path(self) -> str:
        moment = _clock.parse(self.content["at"])
        name = f"{_clock.stamp(moment)}_{moment.microsecond:06d}-{_KIND}.{self.by[:8]}.json"
        return os.path.join(_records.folder_of(self.found.root, self.found.set_id), name)


def check_record(found: RecoverySet, data: bytes, signature: bytes, trust: Trust) -> ForeignRecord:
    """Whether a record of another host counts for this set.

    Raises:
        BackupError: it doesn't, and why.
    """
    by = verify_bytes(data, signature, trust.keys)
    if by is None:
        raise BackupError(
            "signature: of no key that counts here",
            hint="Pin a policy on this host whose verification_keys name the prover's public key (host.pub there).",
        )
    try:
        content = json.loads(data)
        wrong = _wrong_with(content, found)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BackupError(f"record: not one of a proof: {exc}", hint="Let the prover make it anew.") from exc
    if wrong:
        raise BackupError(f"record: {wrong}", hint="Nothing was taken. Let the prover prove this set anew.")
    return ForeignRecord(found, data, signature, content, by)


def _wrong_with(content: dict[str, t.Any], found: RecoverySet) -> str:
    if content["schema_version"] != _records.RECORD_VERSION or content["kind"] != _KIND:
        return f"a {content['kind']} of version {content['schema_version']}, not a proof that this version knows"
    if content["set_id"] != found.set_id:
        return f"it is about {content['set_id']}, not about {found.set_id}"
    if content["sums_sha256"] != found.sums_sha256:
        return "it was made of other bytes than those that lie here"
    if content["verdict"] not in (PASS, FAIL, UNPROVEN) or content["level"] not in ("", *LEVELS):
        return f"{content['verdict']}, level {content['level']}: no verdict"
    if _clock.parse(content["at"]) > _clock.now() + _AHEAD:
        return f"made at {content['at']}, which is still to come: see to the prover's clock"
    return ""


def file_record(record: ForeignRecord, trust: Trust, *, write: bool) -> tuple[str, bool]:
    """Put it among the set's records and into the ledger; (its path, whether it wasn't there)."""
    path, root, set_id = record.path, record.found.root, record.found.set_id
    digest = _digest_of(path)
    known = digest is not None and digest in _ledger.load(root).records_of(set_id) and trust.signed_by(path) is not None
    if known or not write:
        return path, not known
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # The signature first, as the host does with its own: a file without one was never ours.
    write_file(path + SUFFIX, record.signature)
    write_file(path, record.data)
    digest = sha256_file(path)
    _ledger.append(
        root, f"record {_KIND}", set_id=set_id, record_sha256=digest, verdict=record.content["verdict"], by=record.by
    )
    return path, True


def _digest_of(path: str) -> str | None:
    return sha256_file(path) if os.path.isfile(path) else None
