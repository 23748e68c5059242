# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The policy that is pinned on a host: what it may hold, and where a run's wishes are weaker than it.

It is canonical JSON, so that its hash is that of its meaning, and so that a host needs no YAML parser.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._signature import default_folder, key_id
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import LEVELS

VERSION = 1
NAME = "policy.json"
SYSTEM = "/etc/mazevault-backup"
CLASSES = ("data", "keys")
HALVES = ("vault", "key")
SCHEMES = ("cms", "age", "none")
SCENARIOS = ("database_corruption", "node_failure", "datacentre_failure", "key_loss", "ransomware")
RETENTION = ("days", "keep", "evidence_days", "tls_days")
FEWEST = 2
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# age's recipients are their own fingerprints.
_AGE = re.compile(r"age1[0-9a-z]{58}\Z")
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*\Z")
Content = dict[str, t.Any]


@dataclass(frozen=True)
class Policy:
    """A pinned policy: its content, and the SHA-256 of the file."""

    path: str
    content: Content
    sha256: str

    @property
    def verification_keys(self) -> tuple[str, ...]:
        return tuple(self.content.get("verification_keys") or ())


@dataclass(frozen=True)
class Comparison:
    """Where wishes differ from the policy.

    Attributes:
        refusals: one sentence each; such a run must not begin.
        overrides: names of what is weaker; such a run proves nothing above `unproven`.
    """

    refusals: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def seconds_of(span: t.Any) -> float:
    """Seconds of a number or of text such as `24 h`, `45 min`, `30 d`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(span, (int, float)) and not isinstance(span, bool):
        return float(span)
    found = _SPAN.match(str(span))
    if not found or found[2] not in _SECONDS:
        raise ValueError(f"{span}: not a span of time, such as 24 h, 45 min or 30 d")
    return float(found[1]) * _SECONDS[found[2]]


def canonical(content: t.Mapping[str, t.Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def settle(given: t.Mapping[str, t.Any]) -> Content:
    """The policy as it is pinned: lists sorted, empty values left out.

    Raises:
        BackupError: it says something that can't be, or that nobody would read.
    """
    content: Content = {"version": VERSION}
    problems: list[str] = []
    readers: dict[str, t.Callable[[t.Any], t.Any]] = {
        "version": _version,
        "installations": _words,
        "recipients": lambda value: _groups(value, CLASSES, _fingerprint),
        "few_recipients_because": str,
        "escrow": lambda value: _groups(value, HALVES, str),
        "verify_level": lambda value: _one_of(value, LEVELS),
        "encryption": lambda value: sorted({_one_of(word, SCHEMES) for word in _list(value)}),
        "objectives": _objectives,
        "retention": _retention,
        "verification_keys": _keys,
        "witness": _yes_or_no,
    }
    for name, value in given.items():
        if name not in readers:
            problems.append(f"{name}: unknown; it knows {', '.join(readers)}")
        elif value is not None and value not in ("", [], {}):
            try:
                read = readers[name](value)
                if read not in ("", [], {}):
                    content[name] = read
            except (ValueError, TypeError, AttributeError, BackupError) as exc:
                problems.append(f"{name}: {exc}")
    for group, found in (content.get("recipients") or {}).items():
        if len(found) < FEWEST and not content.get("few_recipients_because"):
            problems.append(
                f"recipients.{group}: {len(found)}; with fewer than {FEWEST} one lost key loses all sets"
                " (few_recipients_because takes a reason)"
            )
    if problems:
        raise BackupError(f"policy: {'; '.join(problems)}", hint="Nothing was pinned. Correct it, and pin it again.")
    return content


def find(signing_key: str) -> Policy | None:
    """The pinned policy: the machine's, else the account's, else the one beside a signing key that lies elsewhere.

    A path in a variable, or another account, must not lead past what is pinned, so the usual places come first.
    """
    for folder in dict.fromkeys((SYSTEM, default_folder(), os.path.dirname(signing_key))):
        path = os.path.join(folder, NAME)
        if os.path.lexists(path):
            return load(path)
    return None


def load(path: str) -> Policy:
    """Read a pinned policy.

    Raises:
        BackupError: others may write it, or it isn't what was pinned by this collection.
    """
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o022 or info.st_uid not in (0, os.geteuid()):
        raise BackupError(
            f"policy: {path}: no file that only root or this account may write",
            hint="Find out who changed that; then pin the policy again.",
        )
    with open(path, "rb") as stream:
        data = stream.read()
    try:
        content = json.loads(data)
        settled = settle(content)
    except ValueError as exc:
        raise BackupError(f"policy: {path}: not JSON: {exc}", hint="Pin the policy again.") from exc
    return Policy(path, settled, hashlib.sha256(data).hexdigest())


def compare(policy: t.Mapping[str, t.Any], wanted: t.Mapping[str, t.Any]) -> Comparison:
    """Where `wanted` is another one or weaker. Both have the keys of a policy; what is empty or missing isn't wanted.

    Args:
        wanted: besides a policy's keys `installation`; `encryption` are the schemes that are used.
    """
    refusals: list[str] = []
    overrides: list[str] = []
    for name, groups in (("recipients", CLASSES), ("escrow", HALVES)):
        for group in groups:
            pinned = set((policy.get(name) or {}).get(group) or ())
            asked = {_plain(name, word) for word in _list((wanted.get(name) or {}).get(group) or ())}
            if pinned and asked and pinned != asked:
                refusals.append(_other(f"{name}.{group}", pinned, asked))
    level, least = wanted.get("verify_level"), policy.get("verify_level")
    if level and least and (level not in LEVELS or LEVELS.index(level) < LEVELS.index(least)):
        overrides.append("verify_level")
    used = set(_list(wanted.get("encryption") or ()))
    # Who pins recipients wants encryption, whether that is said or not.
    if not used <= set(policy.get("encryption") or SCHEMES[: 2 if policy.get("recipients") else 3]):
        overrides.append("encryption")
    for scenario, targets in (policy.get("objectives") or {}).items():
        asked_targets = (wanted.get("objectives") or {}).get(scenario) or {}
        overrides += [
            f"objectives.{scenario}.{name}"
            for name, target in targets.items()
            if _longer(asked_targets.get(name), target)
        ]
    for name, least_kept in (policy.get("retention") or {}).items():
        kept = (wanted.get("retention") or {}).get(name)
        if kept is not None and kept != "" and not _at_least(kept, least_kept):
            overrides.append(f"retention.{name}")
    if policy.get("witness") and wanted.get("witness") is False:
        overrides.append("witness")
    installation, expected = wanted.get("installation"), policy.get("installations")
    if installation and expected and installation not in expected:
        overrides.append("installations")
    return Comparison(tuple(refusals), tuple(overrides))


def against(policy: Policy | None, wanted: t.Mapping[str, t.Any]) -> Comparison:
    """`compare`; without a policy everything is as strict as it."""
    return Comparison() if policy is None else compare(policy.content, wanted)


def refuse(policy: Policy | None, wanted: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """Names of what is weaker than the policy.

    Raises:
        BackupError: recipients or escrow are others than the pinned ones.
    """
    found = against(policy, wanted)
    if found.refusals and policy is not None:
        raise BackupError(
            f"policy: {policy.path}: {'; '.join(found.refusals)}",
            hint="Nothing was published. Use the pinned ones, or pin another policy on the host.",
        )
    return found.overrides


def _other(name: str, pinned: set[str], asked: set[str]) -> str:
    parts = [f"{word} isn't pinned" for word in sorted(asked - pinned)]
    parts += [f"{word} is left out" for word in sorted(pinned - asked)]
    return f"{name}: {', '.join(parts)}"


def _plain(name: str, word: t.Any) -> str:
    """Fingerprints as a policy has them; names of escrows as they are."""
    return str(word).replace(":", "").lower() if name == "recipients" else str(word)


def _at_least(kept: t.Any, least: float) -> bool:
    try:
        return float(kept) >= least
    except (TypeError, ValueError):
        return False


def _longer(asked: t.Any, target: float) -> bool:
    if asked is None or asked == "":
        return False
    try:
        return seconds_of(asked) > target
    except ValueError:
        # Nobody can say that it is stricter.
        return True


def _version(value: t.Any) -> int:
    if value != VERSION:
        raise ValueError(f"{value}: this version of the collection knows {VERSION}")
    return VERSION


def _list(value: t.Any) -> list[t.Any]:
    if isinstance(value, str):
        value = [word.strip() for word in re.split(r"[,\n]", value) if word.strip()]
    if not isinstance(value, (list, tuple)):
        raise ValueError("not a list")
    return list(value)


def _words(value: t.Any) -> list[str]:
    return sorted({str(word) for word in _list(value)})


def _one_of(value: t.Any, words: t.Sequence[str]) -> str:
    if value not in words:
        raise ValueError(f"{value}: not one of {', '.join(words)}")
    return str(value)


def _fingerprint(value: t.Any) -> str:
    """SHA-256 of a certificate's DER bytes (openssl prints colons and capitals), or one of age's recipients."""
    text = str(value).replace(":", "").lower()
    if not _SHA256.match(text) and not _AGE.match(text):
        raise ValueError(f"{value}: not a SHA-256 fingerprint, nor one of age's recipients")
    return text


def _groups(value: t.Any, names: t.Sequence[str], read: t.Callable[[t.Any], str]) -> dict[str, list[str]]:
    read_lists = {_one_of(name, names): sorted({read(word) for word in _list(found)}) for name, found in value.items()}
    return {name: found for name, found in read_lists.items() if found}


def _keys(value: t.Any) -> list[str]:
    found = {key_id(str(key)): str(key).strip() + "\n" for key in (value if isinstance(value, list) else [value])}
    return [found[name] for name in sorted(found)]


def _objectives(value: t.Any) -> dict[str, dict[str, float]]:
    return {
        _one_of(scenario, SCENARIOS): {
            _one_of(name, ("rpo", "rto")): seconds_of(target) for name, target in targets.items()
        }
        for scenario, targets in value.items()
    }


def _retention(value: t.Any) -> dict[str, int]:
    found = {_one_of(name, RETENTION): int(count) for name, count in value.items()}
    if any(count < 0 for count in found.values()):
        raise ValueError("a number below 0")
    return found


def _yes_or_no(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value}: neither true nor false")
    return value
