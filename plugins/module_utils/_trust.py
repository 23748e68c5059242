# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a module goes by when it signs and when it believes: its own key, the keys that count, the pinned policy."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._policy import Policy
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX, Signer, verify_file


@dataclass(frozen=True)
class Trust:
    """Who signs here, and whose signatures count.

    Attributes:
        signer: the host's own key.
        policy: the pinned one; the keys that it names count, and where it names none the host's own.
    """

    signer: Signer
    policy: Policy | None = None
    _answers: dict[tuple[str, str], str | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def policy_sha256(self) -> str | None:
        return self.policy.sha256 if self.policy else None

    @property
    def keys(self) -> tuple[str, ...]:
        if self.policy and self.policy.verification_keys:
            return self.policy.verification_keys
        own = self.signer.public()
        return (own,) if own else ()

    def signed_by(self, path: str) -> str | None:
        """The id of the key that counts and that signed the file as it is now, or None."""
        # One module asks for the same file more than once, and each answer takes a process.
        try:
            asked = (sha256_file(path), sha256_file(path + SUFFIX))
        except FileNotFoundError:
            return None
        if asked not in self._answers:
            self._answers[asked] = verify_file(path, self.keys)
        return self._answers[asked]

    def stamp(self) -> dict[str, t.Any]:
        """What every record and piece of evidence says of the rules it was made under."""
        return {"policy_sha256": self.policy_sha256}
