# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A bundle: some small files in a tar, encrypted to all who may open it, each alone and with one stock command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _encryption
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import Recipient
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import fsync_path, write_file

LABEL = "generation.json"
_LARGEST = 64 << 20


def pack(contents: t.Mapping[str, bytes], label: t.Mapping[str, t.Any]) -> bytes:
    """A tar with these files, and first what they are (`generation.json`)."""
    files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    said = json.dumps({**label, "files": files}, indent=2, sort_keys=True).encode() + b"\n"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {LABEL: said, **dict(sorted(contents.items()))}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
        # Two empty blocks end an archive. The rest of a tape's record would be most of a bundle that is to be printed.
        end = archive.offset + 2 * tarfile.BLOCKSIZE
    return out.getvalue()[:end]


def unpack(data: bytes) -> tuple[dict[str, t.Any], dict[str, bytes]]:
    """(what is said of them, the files); nothing is written.

    Raises:
        Damaged: it isn't what `pack` makes, or its files aren't those that it tells of.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is None or info.size > _LARGEST or "/" in info.name or info.name in found:
                    raise ValueError("a member that isn't a plain file of its own")
                found[info.name] = stream.read()
        label = json.loads(found.pop(LABEL))
        sums = {name: entry["sha256"] for name, entry in label["files"].items()}
        if sums != {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}:
            raise ValueError("its files aren't those that it tells of")
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Damaged(f"bundle: not one of this collection: {exc}", hint="Take another copy.") from exc
    return label, found


class Sealer:
    """Encrypts bundles, and opens what it has written by a key that is forgotten with it.

    Args:
        memory: folder on a file system in memory; whoever makes it removes it.
    """

    def __init__(self, scheme: str, memory: str) -> None:
        self._scheme, self._memory = scheme, memory
        # One more recipient: only so can the written bytes be opened by who can't open them later.
        ending = "crt" if scheme == "cms" else "recipient"
        self._key = _encryption.make_key(
            scheme,
            private=os.path.join(memory, "proof.key"),
            public=os.path.join(memory, f"proof.{ending}"),
            name="proof",
        )
        with open(self._key.public, encoding="ascii") as stream:
            self._itself = _encryption.read_recipient(stream.read(), scheme, parameter="proof")

    def seal(self, target: str, data: bytes, recipients: t.Sequence[Recipient]) -> None:
        """Encrypt to recipients, open what was written, compare.

        Raises:
            BackupError: what was written doesn't open, or opens to something else.
        """
        source = os.path.join(self._memory, "bundle")
        write_file(source, data)
        try:
            _encryption.wrap(source, target, [*recipients, self._itself], self._scheme, work=self._memory)
        finally:
            os.unlink(source)
        os.chmod(target, 0o600)
        fsync_path(target)
        if self.opened(target) != data:
            raise BackupError(
                f"{target}: opens to something else than was encrypted", hint="Is the disk or openssl broken?"
            )

    def opened(self, path: str) -> bytes:
        return open_bundle(path, self._key.public, self._key.private, self._scheme)


def open_bundle(path: str, public: str, identity: str, scheme: str) -> bytes:
    """What is in a bundle, in memory only."""
    opened = _encryption.unwrap(path, public, identity, scheme)
    with os.fdopen(opened.descriptor, "rb") as stream:
        stream.seek(0)
        return stream.read()
