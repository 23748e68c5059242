# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Files that are whole or not there: temporary name, fsync, rename; private by mode; space known beforehand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

CHUNK = 1 << 20


def fsync_path(path: str) -> None:
    """Flush one file or folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(top: str) -> None:
    """Flush every file and folder below `top`, then `top` itself."""
    for folder, _folders, files in os.walk(top, topdown=False):
        for name in files:
            fsync_path(os.path.join(folder, name))
        fsync_path(folder)


def write_file(path: str, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file under a temporary name beside it, flush, rename."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = f"{path}.tmp{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_path(os.path.dirname(path) or ".")


def write_json(path: str, value: t.Any, *, mode: int = 0o600) -> None:
    write_file(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", mode=mode)


def read_json(path: str) -> t.Any:
    """Parse a JSON file; damage is a BackupError that names the file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as exc:
        raise BackupError(
            f"{path}: not readable as JSON: {exc}", hint="It is damaged or missing: take another copy of it."
        ) from exc


def sha256_file(path: str) -> str:
    """SHA-256 of a regular file, in hexadecimal."""
    return sha256_files([path])


def sha256_files(paths: t.Iterable[str]) -> str:
    """SHA-256 of files' bytes, one after the other, as `cat ... | sha256sum` gives it."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def tree_files(top: str) -> list[str]:
    """Relative paths of all files below `top`, sorted; links and special files are refused."""
    found: list[str] = []
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted([*files, *(d for d in folders if os.path.islink(os.path.join(folder, d)))]):
            path = os.path.join(folder, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise BackupError(
                    f"{path}: neither a file nor a folder; a recovery set holds nothing else",
                    hint="Somebody changed this set: take another copy of it.",
                )
            found.append(os.path.relpath(path, top))
    return sorted(found)


def remove_tree(path: str) -> None:
    """Remove a folder with all below it; nothing there is fine."""
    shutil.rmtree(path, ignore_errors=False) if os.path.lexists(path) else None


def private_folder(path: str, *, parameter: str) -> None:
    """Refuse a folder that others can write to, and one that can't be written at all.

    Raises:
        BackupError: naming `parameter` and the path.
    """
    try:
        info = os.lstat(path)
    except OSError as exc:
        raise BackupError(
            f"{parameter}: {path}: {exc.strerror}", hint="Create the folder, or name another one."
        ) from exc
    if not stat.S_ISDIR(info.st_mode):
        raise BackupError(f"{parameter}: {path}: not a folder", hint="Name a folder.")
    if info.st_mode & 0o022:
        raise BackupError(
            f"{parameter}: {path}: others may write here (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"A backup that others can replace proves nothing: chmod go-w {path}",
        )
    if info.st_uid not in (0, os.geteuid()):
        raise BackupError(
            f"{parameter}: {path}: belongs to user id {info.st_uid}, not to root or the user of this run",
            hint="Give the folder to the account that makes the backups.",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise BackupError(
            f"{parameter}: {path}: not writable", hint="Run with become, or give the folder to this user."
        )


def existing_parent(path: str) -> str:
    """The nearest folder at or above `path` that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def free_bytes(path: str) -> tuple[int, int]:
    """Bytes that this user may still write on the file system of `path`, and its size."""
    info = os.statvfs(existing_parent(path))
    return info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize


def default_reserve(total: int) -> int:
    """What a backup leaves free: 5 % of the file system, at most 5 GiB (a full disk stops the live database)."""
    return min(5 << 30, total // 20)


def require_space(path: str, needed: int, *, parameter: str, what: str, reserve: int | None = None) -> dict[str, int]:
    """Refuse before anything is touched when `needed` bytes and the reserve don't fit at `path`."""
    free, total = free_bytes(path)
    kept = default_reserve(total) if reserve is None else reserve
    if free < needed + kept:
        raise BackupError(
            f"{parameter}: {path}: too little space: {what} needs about {human_size(needed)}, "
            f"{human_size(kept)} must stay free, {human_size(free)} are there",
            hint="Free some space, or put the folder on a larger file system.",
        )
    return {"free_bytes": free, "needed_bytes": needed, "reserve_bytes": kept}


def human_size(count: int | float) -> str:
    """Bytes as a person reads them: 1023 B, 1.5 MB (powers of 1000, as disks are sold)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")
