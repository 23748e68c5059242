# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A recovery set's own keys: made for one run, in memory only; recipients get them wrapped, in `access/`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _encryption
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import CLASSES, Recipient, SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    read_json,
    remove_tree,
    write_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging

LEAST_RECIPIENTS = 2
# Under records/<set id>/: the set's keys, encrypted to recipients of later.
LATER = "access"
_NOTE = "encryption.json"
_IN_MEMORY = ("tmpfs", "ramfs")


class Protection(t.NamedTuple):
    """How a set is to be encrypted.

    Attributes:
        scheme: `cms`, `age` or `none`.
        reason: why there is no encryption, or only one recipient; kept in the manifest and the ledger.
        recipients: of each class.
    """

    scheme: str
    reason: str
    recipients: t.Mapping[str, tuple[Recipient, ...]]

    def fingerprints(self) -> dict[str, list[str]]:
        return {name: [one.fingerprint for one in found] for name, found in self.recipients.items()}

    def described(self) -> dict[str, list[dict[str, str]]]:
        return {name: [one.described() for one in self.recipients.get(name, ())] for name in CLASSES}


def protection(scheme: str, reason: str, texts: t.Mapping[str, t.Sequence[str]]) -> Protection:
    """Check what the operator wants.

    Args:
        texts: of each class, the recipients' certificates (or age's lines).
    Raises:
        BackupError: naming the parameter that is wrong.
    """
    if scheme == "none":
        if not reason:
            raise BackupError(
                "encryption: none, without a reason: sets would be readable for whoever gets a copy",
                hint="Give recipients (recipients_data, recipients_keys), or say why not (encryption_reason).",
            )
        return Protection(scheme, reason, {})
    found: dict[str, tuple[Recipient, ...]] = {}
    for name in CLASSES:
        parameter = f"recipients_{name}"
        given = [text for text in texts.get(name) or () if text.strip()]
        recipients = {
            recipient.fingerprint: recipient
            for recipient in (_encryption.read_recipient(text, scheme, parameter=parameter) for text in given)
        }
        if not recipients:
            raise BackupError(
                f"{parameter}: empty: nobody could ever open what is encrypted",
                hint="Give the certificates of at least two recovery identities; README shows how they are made.",
            )
        if len(recipients) < LEAST_RECIPIENTS and not reason:
            raise BackupError(
                f"{parameter}: one recipient only: when its identity is lost, every set is",
                hint="Give a second one, kept by somebody else, or say why there is none (encryption_reason).",
            )
        found[name] = tuple(recipients.values())
    both = {one.fingerprint for one in found["data"]} & {one.fingerprint for one in found["keys"]}
    if both and not reason:
        raise BackupError(
            f"recipients_keys: {sorted(both)[0][:16]} is among recipients_data too:"
            " who opens the data would open the keys with it",
            hint="Use identities of their own for each class, or say why not (encryption_reason).",
        )
    return Protection(scheme, reason, found)


def make_keys(staging: Staging, wanted: Protection) -> None:
    """Make this set's keys and wrap them; they are forgotten when the run ends, whatever its end."""
    note: dict[str, t.Any] = {"scheme": wanted.scheme, "reason": wanted.reason, "recipients": wanted.described()}
    if wanted.scheme != "none":
        note["memory"] = memory_folder(f"{staging.name}-{_mark(staging.root)}")
        # First the note, then a key: a dead run's keys are found by it.
        write_json(os.path.join(staging.path, _NOTE), note)
        access = os.path.join(staging.set_path, "access")
        os.makedirs(access, mode=0o700, exist_ok=True)
        for name in CLASSES:
            private = os.path.join(note["memory"], f"{name}.key")
            key = _encryption.make_key(
                wanted.scheme,
                private=private,
                public=public_path(staging.set_path, name, wanted.scheme),
                name=f"{staging.name} {name}",
            )
            # Who opens an access file shows it by the code in it; a public half could be copied by anybody.
            code = "-".join(secrets.token_hex(3) for _part in range(4))
            with open(key.private, encoding="ascii") as stream:
                content = f"# {staging.name}, class {name}, proof code {code}\n{stream.read()}"
            write_file(private, content)
            wrapped = wrapped_path(staging.set_path, name, wanted.scheme)
            _encryption.wrap(private, wrapped, wanted.recipients[name], wanted.scheme, work=note["memory"])
            os.chmod(wrapped, 0o600)
    else:
        write_json(os.path.join(staging.path, _NOTE), note)


def noted(staging: Staging) -> dict[str, t.Any]:
    """What `make_keys` left in staging: scheme, reason, recipients."""
    path = os.path.join(staging.path, _NOTE)
    if not os.path.isfile(path):
        return {"scheme": "none", "reason": "", "recipients": {name: [] for name in CLASSES}}
    return t.cast("dict[str, t.Any]", read_json(path))


def key_of(staging: Staging, class_name: str) -> SetKey | None:
    """The key that an open set's artefacts of a class are encrypted to, and opened again with; None: in plain."""
    note = noted(staging)
    if note["scheme"] == "none":
        return None
    private = os.path.join(note["memory"], f"{class_name}.key")
    if not os.path.isfile(private):
        raise BackupError(
            f"set_id: {staging.name}: its keys are no longer in memory: the host was restarted, or the run given up",
            hint="Take a new backup; what was encrypted can be opened by its recipients only.",
        )
    return SetKey(note["scheme"], public_path(staging.set_path, class_name, note["scheme"]), private)


def forget(staging: Staging) -> None:
    """Remove this run's keys, opened or made, from memory."""
    if folder := noted(staging).get("memory"):
        remove_tree(folder)


def public_path(folder: str, class_name: str, scheme: str) -> str:
    return os.path.join(folder, "access", f"{class_name}.{'crt' if scheme == 'cms' else 'recipient'}")


def wrapped_path(folder: str, class_name: str, scheme: str) -> str:
    return os.path.join(folder, "access", f"{class_name}.key.{scheme}")


def opened_key(
    folder: str,
    scheme: str,
    class_name: str,
    *,
    set_key_file: str = "",
    identity_file: str = "",
    records: str = "",
) -> SetKey | None:
    """The key of a published set, by what the operator brought; None: the set is in plain.

    Args:
        folder: the published set.
        set_key_file: this set's key, which a recipient has opened elsewhere.
        identity_file: a recipient's private key, brought for this run.
        records: folder with what was recorded of the set later.
    Returns:
        with the public half only where nothing was brought.
    Raises:
        BackupError: what was brought isn't this set's.
    """
    if scheme == "none":
        return None
    public = public_path(folder, class_name, scheme)
    wrapped = wrapped_path(folder, class_name, scheme)
    if set_key_file:
        private_key_file(set_key_file, "set_key_file")
        key = SetKey(scheme, public, set_key_file)
        if not _encryption.belongs(key):
            raise BackupError(
                f"set_key_file: {set_key_file}: isn't the key of class {class_name} of {os.path.basename(folder)}",
                hint=f"Open {wrapped}; each set has a key of its own.",
            )
        return key
    if identity_file:
        private_key_file(identity_file, "identity_file")
        return _unwrapped([wrapped, *later_wrapped(records, class_name, scheme)], public, identity_file, scheme)
    return SetKey(scheme, public)


def _unwrapped(candidates: t.Sequence[str], public: str, identity_file: str, scheme: str) -> SetKey:
    """From the newest file that the identity opens, and that holds this set's key."""
    refusal: BackupError | None = None
    for path in reversed(candidates):
        try:
            key = _encryption.unwrap(path, public, identity_file, scheme)
        except BackupError as exc:
            refusal = refusal or exc
            continue
        if _encryption.belongs(key):
            return key
        refusal = BackupError(
            f"set: what is in {path} isn't the key of this set", hint="Somebody put it there: choose another copy."
        )
    raise refusal or BackupError("set: nothing is in access/", hint="Choose another copy of the set.")


def later_wrapped(records: str, class_name: str, scheme: str) -> list[str]:
    """A set's key as it was encrypted to other recipients later, oldest first."""
    folder = os.path.join(records, LATER)
    if not records or not os.path.isdir(folder):
        return []
    names = sorted(os.listdir(folder))
    ours = [name for name in names if name.startswith(f"{class_name}.") and name.endswith(f".key.{scheme}")]
    return [os.path.join(folder, name) for name in ours if f"{name}.json" in names]


def keep_key(staging: Staging) -> str | None:
    """Let the key of class data live on after its run, for the restore that this set is the safety of.

    Returns:
        its path; None: the set is in plain.
    """
    key = key_of(staging, "data")
    if key is None:
        return None
    folder = _kept_folder(staging.root, os.path.dirname(noted(staging)["memory"]))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{staging.name}.key")
    os.replace(key.private, path)
    return path


def is_kept(root: str, name: str) -> bool:
    """Whether the key of this set is still kept for a restore."""
    return any(os.path.exists(os.path.join(_kept_folder(root, place), f"{name}.key")) for place in _memory_places())


def forget_kept(root: str) -> None:
    """Remove the keys that earlier runs kept for a restore; the recipients can still open those sets."""
    for place in _memory_places():
        remove_tree(_kept_folder(root, place))


def _kept_folder(root: str, place: str) -> str:
    return os.path.join(place, f"mazevault-kept-{os.getuid()}-{_mark(root)}")


def _mark(root: str) -> str:
    """Tells a backup root's folders from those of another one on the same host."""
    return hashlib.sha256(root.encode()).hexdigest()[:12]


def private_key_file(path: str, parameter: str) -> None:
    try:
        info = os.stat(path)
    except OSError as exc:
        raise BackupError(f"{parameter}: {path}: {exc.strerror}", hint="Name a file on the target host.") from exc
    if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077 or info.st_uid not in (0, os.geteuid()):
        raise BackupError(
            f"{parameter}: {path}: others may read it (mode {stat.S_IMODE(info.st_mode):04o}, user {info.st_uid})",
            hint=f"chmod 0600 {path}; better, put it where nothing is written to a disk, such as /dev/shm.",
        )
    with open(path, "rb") as stream:
        head = stream.read(64)
    if b"ENCRYPTED" in head or head.startswith(b"age-encryption.org"):
        raise BackupError(
            f"{parameter}: {path}: is protected by a passphrase, and nobody could be asked for it here",
            hint="Let its owner open the set's key by hand, as RESTORE.md says, and give that (set_key_file).",
        )


def memory_folder(name: str) -> str:
    """A new private folder on a file system that is in memory.

    Raises:
        BackupError: this machine has none that the user of the run may write to.
    """
    for place in _memory_places():
        return tempfile.mkdtemp(prefix=f"mazevault-{name}-", dir=place)
    raise BackupError(
        "encryption: no file system in memory to keep this run's keys in",
        hint="Mount a tmpfs on /run, or let this user write to /dev/shm.",
    )


@contextlib.contextmanager
def memory_for(name: str) -> t.Iterator[str]:
    """A folder in memory for the length of a block; those that killed processes left under this name go first."""
    ours = re.compile(rf"mazevault-{re.escape(name)}-of-(\d+)-")
    for place in _memory_places():
        for entry in os.listdir(place):
            left = ours.match(entry)
            if left and not os.path.exists(f"/proc/{left[1]}"):
                remove_tree(os.path.join(place, entry))
    folder = memory_folder(f"{name}-of-{os.getpid()}")
    try:
        yield folder
    finally:
        remove_tree(folder)


def _memory_places() -> list[str]:
    places = ("/run", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm")
    return [
        place for place in places if place and _file_system(place) in _IN_MEMORY and os.access(place, os.W_OK | os.X_OK)
    ]


def _file_system(path: str) -> str:
    """The kind of file system that a folder is on."""
    best, kind = "", ""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            _device, place, found = line.split(" ")[:3]
            if len(place) >= len(best) and (path == place or path.startswith(place.rstrip("/") + "/")):
                best, kind = place, found
    return kind
