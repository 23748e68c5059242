# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a module goes by when it signs and when it believes: its own key, the keys that count, the pinned policy."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer, verify_bytes, verify_file


@dataclass(frozen=True)
class Trust:
    """Who signs here, and whose signatures count.

    Attributes:
        signer: the host's own key.
        named: public keys (PEM) of the pinned policy; empty where it names none, and then the host's own counts.
        policy_sha256: of the pinned policy; None where none is pinned.
    """

    signer: Signer
    named: tuple[str, ...] = ()
    policy_sha256: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        if self.named:
            return self.named
        own = self.signer.public()
        return (own,) if own else ()

    def signed_by(self, path: str) -> str | None:
        """The id of the key that counts and that signed the file as it is now, or None."""
        return verify_file(path, self.keys)

    def signed_bytes_by(self, data: bytes, signature: bytes) -> str | None:
        return verify_bytes(data, signature, self.keys)

    def stamp(self) -> dict[str, t.Any]:
        """What every record and piece of evidence says of the rules it was made under."""
        return {"policy_sha256": self.policy_sha256}
