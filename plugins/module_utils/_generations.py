# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Key generations of an installation: each state of its key material has a random id, and keeps it.

`generations.json` in the backup root lists every generation that was ever seen, with keyed fingerprints and never with
a value. The host has signed it, and each generation is a line of the ledger.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
import os
import re
import secrets
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    private_folder,
    sha256_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._fingerprint import (
    NAME,
    FingerprintKey,
    strong_and_weak,
)
from ansible_collections.mazevault.backup.plugins.module_utils._signature import verify_bytes
from ansible_collections.mazevault.backup.plugins.module_utils._staging import locked
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

VERSION = 1
EVENT = "key generation"
ID = re.compile(r"[0-9a-f]{16}\Z")
# So often a generation that stays is written down as seen again; a run every few minutes writes nothing.
SEEN_EVERY = 3600.0
Entry = dict[str, t.Any]


@dataclass(frozen=True)
class Generation:
    """One state of the key material.

    Attributes:
        id: 16 hexadecimal digits; empty where nothing was to be written and it would be a new one.
        new: it was, or would be, seen for the first time.
        changed: names that differ from the generation before; all of them for the first one.
        weak: names without a fingerprint, as a person may have chosen them.
        notes: what a person should know, such as a list that was set aside.
    """

    id: str
    new: bool
    first_seen: str = ""
    changed: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def path_of(root: str) -> str:
    return os.path.join(root, "generations.json")


def key_of(trust: Trust) -> FingerprintKey:
    """The host's key for fingerprints, beside the one that it signs with."""
    return FingerprintKey(os.path.join(os.path.dirname(trust.signer.key), NAME))


def current(
    root: str,
    values: t.Mapping[str, str],
    files: t.Mapping[str, bytes],
    trust: Trust,
    *,
    sources: t.Iterable[str] = (),
    write: bool = True,
) -> Generation:
    """The generation that this key material is; a new one is entered before it is returned.

    Args:
        values: secrets by name (`MASTER_KEY`).
        files: contents by name (`secrets.vault`, `vault.key`).
        sources: paths that the material was read from. Of weak values nothing is kept, so that one of them has changed
            is seen only by a file that was written anew.
        write: False for check mode: nothing is made or written.
    Raises:
        BackupError: there is no material at all, or the backup root isn't private.
    """
    strong, weak = strong_and_weak(values, files)
    if not strong and not weak:
        raise BackupError(
            "keys: no key material: no value and no file was found",
            hint="Name the .env and the vault's files of this installation.",
        )
    key = key_of(trust)
    if not write:
        return _looked_up(root, trust, key, strong, weak, sources)
    private_folder(root, parameter="backup_root")
    trust.signer.ensure()
    key.ensure()
    prints = {name: make(key) for name, make in strong.items()}
    stamps = _stamps(sources) if weak else {}
    with locked(os.path.join(root, ".generations.lock")):
        state, notes = _load(root, trust)
        if notes:
            _set_aside(root, notes[0])
        found = _same(state, key.key_id, prints, weak, stamps)
        now = _clock.rfc3339(_clock.now())
        if found is None:
            generation, entry = _made(state, key.key_id, prints, weak, stamps, now)
            _save(root, {"current": entry["id"], "generations": [*state["generations"], entry]}, trust)
        else:
            generation, entry = _as_found(found, weak), found
            if _write_down_again(state, found, now):
                found["last_seen"] = now
                _save(root, {**state, "current": found["id"]}, trust)
        _enter(root, entry)
    return replace(generation, notes=tuple(notes))


def adopt(
    root: str,
    generation: str,
    values: t.Mapping[str, str],
    files: t.Mapping[str, bytes],
    trust: Trust,
    *,
    sources: t.Iterable[str] = (),
) -> Generation:
    """Enter material that came back from escrow, under the id that lay beside it; it is the one in use then.

    Raises:
        BackupError: this host knows other material by that id, or it is no id.
    """
    if not ID.match(generation):
        raise BackupError(
            f"generation: {generation[:40]!r}: not the id of a key generation", hint="It has 16 hexadecimal digits."
        )
    private_folder(root, parameter="backup_root")
    trust.signer.ensure()
    key = key_of(trust)
    key.ensure()
    strong, weak = strong_and_weak(values, files)
    prints = {name: make(key) for name, make in strong.items()}
    with locked(os.path.join(root, ".generations.lock")):
        state, notes = _load(root, trust)
        if notes:
            _set_aside(root, notes[0])
        now = _clock.rfc3339(_clock.now())
        known_one = next((entry for entry in state["generations"] if entry["id"] == generation), None)
        other = _differences(known_one, key.key_id, prints) if known_one else []
        if other:
            raise BackupError(
                f"generation: {generation}: this host knows other material by that id: {', '.join(other)}",
                hint="The copy was changed, or is another installation's: take another one.",
            )
        entry = known_one or _entry(generation, key.key_id, prints, weak, {}, now)
        before = (state["current"], entry["stamps"]) if known_one else None
        entry["stamps"] = _stamps(sources) if weak else {}
        if before != (generation, entry["stamps"]):
            entry["last_seen"] = now
            others = state["generations"] if known_one else [*state["generations"], entry]
            _save(root, {"current": generation, "generations": others}, trust)
        _enter(root, entry)
    changed = () if known_one else tuple(sorted(prints))
    return Generation(generation, known_one is None, entry["first_seen"], changed, tuple(weak), tuple(notes))


def known(root: str, trust: Trust) -> list[Entry]:
    """Every generation that was ever seen, oldest first: `id`, `first_seen`, `last_seen`, `names`, `weak`.

    A list that isn't as it was signed tells nothing, and is an empty one.
    """
    return [_told(entry) for entry in _load(root, trust)[0]["generations"]]


def latest(root: str, trust: Trust) -> Entry | None:
    """The generation that was in use when somebody last looked, as `known` tells it."""
    state, _notes = _load(root, trust)
    return next((_told(entry) for entry in state["generations"] if entry["id"] == state["current"]), None)


def seen_since(
    root: str, generation: str, names: t.Collection[str], moment: dt.datetime, trust: Trust
) -> tuple[str, ...]:
    """Other generations that were seen since then and don't have the same values of these names, newest first."""
    entries = _load(root, trust)[0]["generations"]
    own = next((entry for entry in entries if entry["id"] == generation), None)
    return tuple(
        entry["id"]
        for entry in reversed(entries)
        if entry["id"] != generation and _clock.parse(entry["last_seen"]) >= moment and not _alike(entry, own, names)
    )


def _alike(one: Entry, other: Entry | None, names: t.Collection[str]) -> bool:
    """Whether both have these names with the same fingerprints; what has none can't be told to be the same."""
    if other is None or one["key"] != other["key"]:
        return False
    weak = {*one["weak"], *other["weak"]} & {*names}
    return not weak and all(one["fingerprints"].get(name) == other["fingerprints"].get(name) for name in names)


def _told(entry: Entry) -> Entry:
    said = {name: entry[name] for name in ("id", "first_seen", "last_seen", "weak")}
    return {**said, "names": sorted([*entry["fingerprints"], *entry["weak"]])}


def differences(
    root: str, generation: str, values: t.Mapping[str, str], files: t.Mapping[str, bytes], trust: Trust
) -> dict[str, str]:
    """How this material differs from what a generation was, by name: `other`, `missing`, `extra` or `uncompared`.

    Raises:
        BackupError: this host knows no such generation, or no longer has the key of its fingerprints.
    """
    state, _notes = _load(root, trust)
    entry = next((one for one in state["generations"] if one["id"] == generation), None)
    key = key_of(trust)
    if entry is None or not key.exists() or entry["key"] != key.key_id:
        raise BackupError(
            f"generation: {generation}: this host has nothing to compare it with",
            hint="It is another host's, or the key of its fingerprints is gone; the id inside the copy still tells.",
        )
    strong, weak = strong_and_weak(values, files)
    prints = {name: make(key) for name, make in strong.items()}
    found = {name: "other" for name in _differences(entry, key.key_id, prints)}
    found.update({name: "missing" for name in entry["fingerprints"] if name not in prints})
    found.update({name: "extra" for name in prints if name not in entry["fingerprints"]})
    found.update({name: "uncompared" for name in (*weak, *entry["weak"])})
    return found


def _looked_up(
    root: str, trust: Trust, key: FingerprintKey, strong: t.Mapping[str, t.Any], weak: list[str], sources: t.Any
) -> Generation:
    """`current` without writing."""
    state, notes = _load(root, trust) if trust.keys else ({"current": "", "generations": []}, [])
    found = None
    if key.exists():
        prints = {name: make(key) for name, make in strong.items()}
        found = _same(state, key.key_id, prints, weak, _stamps(sources) if weak else {})
    if found is None:
        return Generation("", True, changed=tuple(sorted([*strong, *weak])), weak=tuple(weak), notes=tuple(notes))
    return replace(_as_found(found, weak), notes=tuple(notes))


def _same(
    state: t.Mapping[str, t.Any],
    key_id: str,
    prints: t.Mapping[str, str],
    weak: t.Sequence[str],
    stamps: t.Mapping[str, t.Any],
) -> Entry | None:
    """The newest generation with the same fingerprints.

    Where a value is weak, only one whose files are these very files can be it: what a person has chosen might be
    anything in others. Files may have been moved: keys that were kept before a rotation lay elsewhere until then.
    """
    files = sorted(stamps.values())
    for entry in reversed(state["generations"]):
        same = entry["key"] == key_id and entry["fingerprints"] == prints and entry["weak"] == list(weak)
        unmoved = sorted(entry["stamps"].values()) == files and (files or entry["id"] == state["current"])
        if same and (not weak or unmoved):
            return t.cast("Entry", entry)
    return None


def _differences(entry: Entry, key_id: str, prints: t.Mapping[str, str]) -> list[str]:
    if entry["key"] != key_id:
        return []
    return sorted(name for name, print_ in prints.items() if entry["fingerprints"].get(name, print_) != print_)


def _made(
    state: t.Mapping[str, t.Any],
    key_id: str,
    prints: dict[str, str],
    weak: list[str],
    stamps: dict[str, t.Any],
    now: str,
) -> tuple[Generation, Entry]:
    entry = _entry(secrets.token_hex(8), key_id, prints, weak, stamps, now)
    former = next((one for one in state["generations"] if one["id"] == state["current"]), None)
    before = former["fingerprints"] if former and former["key"] == key_id else {}
    # A weak one may have changed or not.
    changed = [name for name in {**before, **prints} if before.get(name) != prints.get(name)]
    return Generation(entry["id"], True, now, tuple(sorted({*changed, *weak})), tuple(weak)), entry


def _entry(
    name: str, key_id: str, prints: dict[str, str], weak: t.Sequence[str], stamps: dict[str, t.Any], now: str
) -> Entry:
    return {
        "id": name,
        "first_seen": now,
        "last_seen": now,
        "key": key_id,
        "fingerprints": prints,
        "weak": list(weak),
        "stamps": stamps,
    }


def _as_found(entry: Entry, weak: t.Sequence[str]) -> Generation:
    return Generation(entry["id"], False, entry["first_seen"], (), tuple(weak))


def _write_down_again(state: t.Mapping[str, t.Any], entry: Entry, now: str) -> bool:
    age = (_clock.parse(now) - _clock.parse(entry["last_seen"])).total_seconds()
    return bool(state["current"] != entry["id"] or not 0 <= age < SEEN_EVERY)


def _stamps(sources: t.Iterable[str]) -> dict[str, t.Any]:
    """Which file lies at each path, and when it was written; nothing that depends on what is in it."""
    found: dict[str, t.Any] = {}
    for path in sorted(set(sources)):
        try:
            info = os.stat(path)
        except OSError:
            continue
        found[path] = [info.st_ino, info.st_mtime_ns]
    return found


def _signed_part(state: t.Mapping[str, t.Any]) -> bytes:
    content = {"version": VERSION, "current": state["current"], "generations": state["generations"]}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _save(root: str, state: t.Mapping[str, t.Any], trust: Trust) -> None:
    """One file holds list and signature: a crash leaves the former list or this one."""
    signature = base64.b64encode(trust.signer.sign_bytes(_signed_part(state))).decode("ascii")
    whole = {
        "version": VERSION,
        "current": state["current"],
        "generations": state["generations"],
        "signature": signature,
    }
    write_json(path_of(root), whole)


def _load(root: str, trust: Trust) -> tuple[dict[str, t.Any], list[str]]:
    """(the list, why it can't be believed)."""
    nothing: dict[str, t.Any] = {"current": "", "generations": []}
    try:
        with open(path_of(root), "rb") as stream:
            whole = json.load(stream)
        state = {"current": whole["current"], "generations": whole["generations"]}
        signature = base64.b64decode(whole["signature"], validate=True)
        signed = verify_bytes(
            _signed_part(state), signature, {trust.signer.public(): None, **dict.fromkeys(trust.keys)}
        )
    except FileNotFoundError:
        return nothing, []
    except (ValueError, KeyError, TypeError, binascii.Error) as exc:
        return nothing, [f"generations.json can't be read: {type(exc).__name__}"]
    if signed is None:
        return nothing, ["generations.json isn't as this host signed it"]
    return state, []


def _set_aside(root: str, problem: str) -> None:
    """Keep a list that can't be believed under another name; what it named stays in the ledger, sets and escrow."""
    moment = _clock.now()
    name = f"generations.broken.{_clock.stamp(moment)}_{moment.microsecond:06d}.json"
    digest = sha256_file(path_of(root))
    os.rename(path_of(root), os.path.join(root, name))
    fsync_path(root)
    _ledger.append(root, "key generations set aside", problem=problem, former_file=name, former_sha256=digest)


def _enter(root: str, entry: Entry) -> None:
    """Each generation is a line of the ledger; one that a crash kept from it gets it now."""
    chain = _ledger.load(root)
    if any(line.get("generation") == entry["id"] for line in chain.of(EVENT)):
        return
    # Fingerprints aren't told: their hash is enough to show later that they are those of that day.
    digest = hashlib.sha256(json.dumps(entry["fingerprints"], sort_keys=True).encode()).hexdigest()
    _ledger.append(root, EVENT, generation=entry["id"], names=sorted(entry["fingerprints"]), fingerprints_sha256=digest)
