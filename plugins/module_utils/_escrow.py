# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Every generation of key material in two halves, encrypted to people of whom none has both.

`escrow/<stamp>/` in the backup root holds the encrypted bundles, published by one rename and signed, so that a copy
that was lost at a place can be written again without the keys of that time. Places are `_escrow_place`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _encryption, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._bundle import Sealer, pack, unpack
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import Recipient
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES, Copy, Look
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    fsync_tree,
    read_json,
    remove_tree,
    sha256_file,
    write_file,
)
from ansible_collections.mazevault.backup.plugins.module_utils._fingerprint import NAME as FINGERPRINT_KEY
from ansible_collections.mazevault.backup.plugins.module_utils._generations import Generation, key_of
from ansible_collections.mazevault.backup.plugins.module_utils._ledger import Chain
from ansible_collections.mazevault.backup.plugins.module_utils._material import ENV, KEY, VAULT, Material
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_signed
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import LEAST_RECIPIENTS, memory_for
from ansible_collections.mazevault.backup.plugins.module_utils._signature import SUFFIX
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._vault import Tool, prove
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, Check

VERSION = 1
MADE, ARRIVED, PLACE, HEALED = "escrow made", "escrow arrived", "escrow place", "escrow healed"
# Of media that aren't always there: each day on which one was looked at, and whole.
SEEN = "escrow seen"
# The specification's names, before the stamp.
NAMES = {VAULT: "secrets.vault.", KEY: "vault.key.", ENV: "mazevault-env-"}
HALF_OF = {VAULT: "vault", KEY: "key", ENV: "key"}
_STAMP = re.compile(r"\d{8}_\d{6}\Z")
Content = dict[str, t.Any]


@dataclass(frozen=True)
class Wish:
    """How bundles are to be made: scheme, recipients of each half, whose keys they are."""

    scheme: str
    recipients: t.Mapping[str, tuple[Recipient, ...]]
    installation: str

    def described(self) -> dict[str, list[dict[str, str]]]:
        return {half: [one.described() for one in self.recipients[half]] for half in HALVES}


@dataclass(frozen=True)
class Escrowed:
    """One generation, encrypted.

    Attributes:
        folder: where its files are in the backup root.
        content: its index.
    """

    stamp: str
    folder: str
    content: Content

    @property
    def generation(self) -> str:
        return str(self.content["generation"])

    @property
    def halves(self) -> tuple[str, ...]:
        return tuple(half for half in HALVES if any(entry["half"] == half for entry in self.content["files"]))

    def copies(self, half: str) -> list[Copy]:
        """What has to be at each place of a half: its files, and the signed index."""
        files = [Copy(e["name"], e["bytes"], e["sha256"]) for e in self.content["files"] if e["half"] == half]
        index = [os.path.join(self.folder, name) for name in index_names(self.stamp)]
        return [*files, *(Copy(os.path.basename(path), os.path.getsize(path), sha256_file(path)) for path in index)]

    def read(self, name: str) -> bytes:
        with open(os.path.join(self.folder, name), "rb") as stream:
            return stream.read()

    def damaged(self) -> list[str]:
        """Files of the backup root's own copy that aren't what the index says."""
        return [
            entry["name"]
            for entry in self.content["files"]
            if not os.path.isfile(path := os.path.join(self.folder, entry["name"]))
            or sha256_file(path) != entry["sha256"]
        ]


def top_of(root: str) -> str:
    return os.path.join(root, "escrow")


def index_names(stamp: str) -> tuple[str, str]:
    return f"escrow.{stamp}.json", f"escrow.{stamp}.json{SUFFIX}"


def wish(scheme: str, texts: t.Mapping[str, t.Sequence[str]], reason: str, installation: str) -> Wish:
    """Check what the operator wants.

    Raises:
        BackupError: a half has too few recipients, or somebody could open both.
    """
    found: dict[str, tuple[Recipient, ...]] = {}
    keys = owners(scheme, texts)
    for half in HALVES:
        if len(keys[half]) < (1 if reason else LEAST_RECIPIENTS):
            raise BackupError(
                f"recipients_{half}: {len(keys[half])}: when one identity is lost, this half of the keys is",
                hint="Give at least two recipients, kept by different people, or say why not (few_recipients_because).",
            )
        found[half] = tuple(keys[half].values())
    for key in keys["vault"].keys() & keys["key"].keys():
        raise BackupError(
            f"recipients_key: {keys['key'][key].name}: is among the recipients of the other half:"
            " one person would have both",
            hint="Each half needs people of its own; nothing was written.",
        )
    return Wish(scheme, found, installation)


def owners(scheme: str, texts: t.Mapping[str, t.Sequence[str]]) -> dict[str, dict[str, Recipient]]:
    """Half -> public key -> whose it is."""
    found: dict[str, dict[str, Recipient]] = {}
    for half in HALVES:
        given = [text for text in texts[half] if text.strip()]
        read = [_encryption.read_recipient(text, scheme, parameter=f"recipients_{half}") for text in given]
        found[half] = {_key_of(one): one for one in read}
    return found


def _key_of(one: Recipient) -> str:
    """The public key itself: the same one in two certificates is one person."""
    if one.kind == "age":
        return one.text
    argv = [HostRuntime().program("openssl"), "x509", "-noout", "-pubkey"]
    return HostProcesses().run(argv, stdin=one.text.encode(), timeout=30).check("recipients").stdout


def load(root: str, trust: Trust) -> tuple[list[Escrowed], dict[str, str]]:
    """(what was escrowed, oldest first; folders that aren't as this host signed them, with the reason)."""
    found, wrong = [], {}
    try:
        names = sorted(os.listdir(top_of(root)))
    except FileNotFoundError:
        names = []
    for name in names:
        if not _STAMP.match(name):
            continue
        folder = os.path.join(top_of(root), name)
        index = os.path.join(folder, index_names(name)[0])
        if trust.signed_by(index) is None:
            wrong[name] = "its index isn't as this host signed it"
        else:
            found.append(Escrowed(name, folder, t.cast("Content", read_json(index))))
    return found, wrong


def fitting(known: t.Sequence[Escrowed], generation: str, wanted: Wish) -> Escrowed | None:
    """The newest of this generation, if it is for the people of now."""
    of_it = [one for one in known if one.generation == generation]
    same = of_it and (of_it[-1].content["scheme"], of_it[-1].content["recipients"]) == (
        wanted.scheme,
        wanted.described(),
    )
    return of_it[-1] if same else None


def make(
    root: str,
    material: Material,
    generation: Generation,
    wanted: Wish,
    trust: Trust,
    tool: Tool | None,
    *,
    progress: Progress,
) -> Escrowed:
    """Encrypt this material, prove what was written, publish it in the backup root by one rename."""
    progress.step("encrypt")
    top = top_of(root)
    os.makedirs(top, mode=0o700, exist_ok=True)
    for name in os.listdir(top):
        if name.startswith(".") and name.endswith(".new"):
            remove_tree(os.path.join(top, name))
    moment = _clock.now()
    while os.path.lexists(os.path.join(top, _clock.stamp(moment))):
        moment += _clock.SECOND
    stamp = _clock.stamp(moment)
    building = os.path.join(top, f".{stamp}.new")
    os.mkdir(building, 0o700)
    contents = {name: data for name, data in {**material.files, ENV: material.env}.items() if data}
    with open(key_of(trust).path, "rb") as stream:
        fingerprints = stream.read()
    label = {"generation": generation.id, "stamp": stamp, "installation": wanted.installation}
    files, opened = [], {}
    with memory_for("escrow") as memory:
        sealer = Sealer(wanted.scheme, memory)
        for name, data in contents.items():
            half = HALF_OF[name]
            inside = {name: data, **({FINGERPRINT_KEY: fingerprints} if half == "key" else {})}
            target = os.path.join(building, f"{NAMES[name]}{stamp}.{wanted.scheme}")
            progress.step(f"seal {name}")
            sealer.seal(target, pack(inside, {**label, "half": half}), wanted.recipients[half])
            opened[name] = unpack(sealer.opened(target))[1][name]
            files.append(
                {
                    "name": os.path.basename(target),
                    "half": half,
                    "holds": sorted(inside),
                    "bytes": os.path.getsize(target),
                    "sha256": sha256_file(target),
                }
            )
    progress.step("prove")
    content = {
        "schema_version": VERSION,
        **label,
        "at": _clock.rfc3339(moment),
        "scheme": wanted.scheme,
        "recipients": wanted.described(),
        "names": list(material.names),
        "files": files,
        "checks": [check.as_dict() for check in checks_of(opened, tool)],
        **trust.stamp(),
    }
    write_signed(os.path.join(building, index_names(stamp)[0]), content, trust)
    fsync_tree(building)
    progress.step("publish")
    folder = os.path.join(top, stamp)
    os.rename(building, folder)
    fsync_path(top)
    return Escrowed(stamp, folder, content)


def checks_of(files: t.Mapping[str, bytes], tool: Tool | None) -> list[Check]:
    """Does the key open the vault? Without a vault there is nothing to open."""
    if VAULT not in files and KEY not in files:
        return []
    missing = [name for name in (VAULT, KEY) if name not in files]
    if missing:
        return [Check("opens", "read", FAIL, f"{missing[0]} isn't there: without it the other one is of no use")]
    return [] if tool is None else list(prove(files[VAULT], files[KEY], tool).checks)


def mend(one: Escrowed, places: t.Iterable[str], handed: t.Mapping[str, bytes]) -> list[str]:
    """Write what is damaged in the backup root's own copy again, from any place that has it; what nobody has.

    Args:
        handed: what places on other hosts had.
    """
    lost = []
    sums = {entry["name"]: entry["sha256"] for entry in one.content["files"]}
    for name in one.damaged():
        given = handed.get(name)
        if given is not None and hashlib.sha256(given).hexdigest() == sums[name]:
            write_file(os.path.join(one.folder, name), given)
            continue
        for place in places:
            with contextlib.suppress(OSError), open(os.path.join(place, name), "rb") as stream:
                data = stream.read()
                if hashlib.sha256(data).hexdigest() == sums[name]:
                    write_file(os.path.join(one.folder, name), data)
                    break
        else:
            lost.append(name)
    return lost


def places_known(chain: Chain) -> dict[str, str]:
    """Path of a place -> the id that it had last."""
    return {str(line["path"]): str(line["place"]) for line in chain.of(PLACE)}


def split(chain: Chain, known: t.Sequence[Escrowed], look: Look) -> tuple[dict[str, str], list[Escrowed]]:
    """(why copies that had arrived at a place are no longer good, what has yet to arrive there)."""
    arrived = {(line.get("stamp"), line.get("place")) for line in chain.of(ARRIVED)}
    first = [one for one in known if look.half in one.halves and (one.stamp, look.place_id) not in arrived]
    new = {copy.name for one in first for copy in one.copies(look.half)}
    return {name: why for name, why in look.wrong.items() if name not in new}, first


def last_seen(chain: Chain, place: str) -> str:
    """When all that was at a place was last known to be whole; empty for never."""
    return max(
        (str(line["at"]) for line in (*chain.of(ARRIVED), *chain.of(SEEN)) if line.get("place") == place), default=""
    )


def enter(root: str, known: t.Sequence[Escrowed], looks: t.Sequence[Look], offline: t.Container[str] = ()) -> None:
    """Write into the ledger what it doesn't say yet: bundles, places, what arrived where, what was healed.

    Args:
        offline: paths of media that aren't always there.
    """
    chain = _ledger.load(root)
    made = {str(line.get("stamp")) for line in chain.of(MADE)}
    places = places_known(chain)
    for one in known:
        if one.stamp not in made:
            index = sha256_file(os.path.join(one.folder, index_names(one.stamp)[0]))
            _ledger.append(root, MADE, generation=one.generation, stamp=one.stamp, index_sha256=index)
    for look in looks:
        if not look.place_id:
            continue
        if places.get(look.path) != look.place_id:
            _ledger.append(root, PLACE, path=look.path, half=look.half, place=look.place_id)
        damaged, first = split(chain, known, look)
        if healed := {name: why for name, why in damaged.items() if name in look.healed}:
            _ledger.append(root, HEALED, half=look.half, place=look.place_id, files=healed)
        if look.whole:
            for one in first:
                facts = {"generation": one.generation, "stamp": one.stamp, "half": look.half, "place": look.place_id}
                _ledger.append(root, ARRIVED, **facts)
            today = _clock.rfc3339(_clock.now())[:10]
            if look.path in offline and not first and last_seen(chain, look.place_id)[:10] < today:
                _ledger.append(root, SEEN, half=look.half, place=look.place_id)


def in_escrow(root: str, generation: str, trust: Trust) -> bool:
    """Whether a generation has arrived at a place of each of its halves."""
    # What was only made in the backup root isn't kept apart from anything.
    arrived = {(line.get("stamp"), line.get("half")) for line in _ledger.load(root).of(ARRIVED)}
    return any(
        one.generation == generation and all((one.stamp, half) in arrived for half in one.halves)
        for one in load(root, trust)[0]
    )
