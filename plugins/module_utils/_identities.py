# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Does each recipient still have its private key? A code is encrypted to one of them alone, and comes back read aloud.

The code in a set's access file is one for all recipients of a class, so whoever has heard it could repeat it. And the
halves of the escrow have no access files. The host keeps a hash only; a code is 96 random bits, so that tells nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _encryption, _ledger, _records
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import Recipient
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_record, write_signed
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import memory_for
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import PASS, UNPROVEN, Check

# Beside the sets' own folders of records.
ABOUT = "identities"
LEVEL = "read"
_CODE = re.compile(r"[0-9a-f]{6}(?:-[0-9a-f]{6}){3}\Z")
_BOUNDS = {"cms": ("-----BEGIN CMS-----", "-----END CMS-----")}
_AGE = ("-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----")


@dataclass(frozen=True)
class Identity:
    """A recipient, and all that it opens."""

    recipient: Recipient
    opens: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.recipient.name

    @property
    def mark(self) -> str:
        """Of files."""
        return hashlib.sha256(self.recipient.fingerprint.encode()).hexdigest()[:16]


def identities(scheme: str, texts: t.Mapping[str, t.Sequence[str]]) -> list[Identity]:
    """Each recipient once.

    Args:
        texts: by what they open.
    """
    found: dict[str, Identity] = {}
    for opens, given in texts.items():
        for text in given:
            if not text.strip():
                continue
            one = _encryption.read_recipient(text, scheme, parameter=f"recipients: {opens}")
            before = found[one.fingerprint].opens if one.fingerprint in found else ()
            found[one.fingerprint] = Identity(one, (*before, *([] if opens in before else [opens])))
    return list(found.values())


def folder_of(root: str) -> str:
    return os.path.join(root, "identities")


def _paths(root: str, one: Identity) -> tuple[str, str]:
    """(what is asked, for the custodian; what the host knows of it)."""
    base = os.path.join(folder_of(root), one.mark)
    return f"{base}.pem", f"{base}.json"


def command(scheme: str) -> str:
    """What a custodian types, where the identity is."""
    if scheme == "age":
        return "age -d -i IDENTITY question.pem"
    return "openssl cms -decrypt -inform PEM -in question.pem -inkey IDENTITY"


def open_question(root: str, one: Identity, trust: Trust) -> dict[str, t.Any] | None:
    """What was asked and not answered yet; None where nothing is open, or it isn't as this host signed it."""
    pem, path = _paths(root, one)
    if not os.path.isfile(pem) or trust.signed_by(path) is None:
        return None
    content = t.cast("dict[str, t.Any]", read_json(path))
    return content if content["fingerprint"] == one.recipient.fingerprint else None


def ask(root: str, one: Identity, installation: str, scheme: str, trust: Trust) -> str:
    """Make a question that only this identity can answer; the text to send."""
    os.makedirs(folder_of(root), mode=0o700, exist_ok=True)
    code = "-".join(secrets.token_hex(3) for _part in range(4))
    said = f"{installation}, {one.name} ({', '.join(one.opens)}): proof code {code}\n"
    pem, path = _paths(root, one)
    with memory_for("question") as memory:
        source, target = os.path.join(memory, "question"), os.path.join(memory, "question.out")
        write_file(source, said)
        _encryption.wrap(source, target, [one.recipient], scheme, work=memory)
        with open(target, "rb") as stream:
            text = armoured(stream.read(), scheme)
    content = {
        "schema_version": 1,
        "at": _clock.rfc3339(_clock.now()),
        "name": one.name,
        "fingerprint": one.recipient.fingerprint,
        "opens": list(one.opens),
        "code_sha256": digest_of(code),
        **trust.stamp(),
    }
    # A question without its other half is none: this one last.
    write_signed(path, content, trust)
    write_file(pem, text)
    return text


def armoured(data: bytes, scheme: str) -> str:
    """As text that goes through a mail."""
    begin, end = _BOUNDS.get(scheme, _AGE)
    body = base64.b64encode(data).decode("ascii")
    return "\n".join([begin, *(body[place : place + 64] for place in range(0, len(body), 64)), end, ""])


def text_of(root: str, one: Identity) -> str:
    with open(_paths(root, one)[0], encoding="ascii") as stream:
        return stream.read()


def normal(code: str) -> str:
    """As it was made: people write what they hear in capitals, with blanks or without dashes."""
    digits = re.sub(r"[\s-]", "", code).lower()
    return "-".join(digits[place : place + 6] for place in range(0, len(digits), 6))


def is_code(code: str) -> bool:
    return bool(_CODE.match(normal(code)))


def digest_of(code: str) -> str:
    return hashlib.sha256(normal(code).encode("ascii", "replace")).hexdigest()


def answered(root: str, one: Identity, question: t.Mapping[str, t.Any], trust: Trust) -> str:
    """Record that an identity has answered; the question is closed. The record's path."""
    content = {
        "verdict": PASS,
        "name": one.name,
        "fingerprint": one.recipient.fingerprint,
        "opens": list(one.opens),
        "asked_at": question["at"],
        "code_sha256": question["code_sha256"],
    }
    path = write_record(root, ABOUT, "proof", content, trust)
    os.unlink(_paths(root, one)[0])
    return path


def proofs(root: str, trust: Trust) -> list[dict[str, t.Any]]:
    """What was recorded and counts, oldest first."""
    found = _records.look_at(root, ABOUT, trust, _ledger.load(root)).counting
    return [record for record in found if record.get("kind") == "proof"]


def last_proof(one: Identity, recorded: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """When an identity last answered; empty for never."""
    return max((str(r["at"]) for r in recorded if r.get("fingerprint") == one.recipient.fingerprint), default="")


def is_due(at: str, days: float) -> bool:
    return not at or (_clock.now() - _clock.parse(at)).total_seconds() > days * 86400


def check(one: Identity, at: str, days: float) -> Check:
    name = f"identity {one.name}"
    if not at:
        return Check(name, LEVEL, UNPROVEN, "it has never shown that it still opens what is encrypted to it")
    if is_due(at, days):
        return Check(name, LEVEL, UNPROVEN, f"it last showed that it works at {at[:10]}")
    return Check(name, LEVEL, PASS)
