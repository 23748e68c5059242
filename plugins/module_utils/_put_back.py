# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""From a proven tree beside the target to the target: as a whole, or name by name; what was there is kept."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Busy
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    private_folder,
    read_json,
    remove_tree,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._tree import (
    ACL,
    DEFAULT_ACL,
    FOLDER,
    HARDLINK,
    Difference,
    Entry,
    canonical,
    read_entry,
)
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import (
    Unpacker,
    difference_from,
    implied,
    set_attributes,
)

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WORK = "mazevault-restore"


class Workplace:
    """Where a tree is made before it becomes the target, on the same file system.

    It lies beside the target, or inside where the target is a mount point.

    Attributes:
        tree: the folder that the archive is unpacked into.
        kept: where the former content went; empty for nowhere.
    """

    def __init__(self, target: str, stamp: str) -> None:
        self.target, self.inside = target, os.path.ismount(target)
        parent, name = os.path.split(target)
        self._base = target if self.inside else parent
        self.path = os.path.join(self._base, f".{_WORK}" if self.inside else f".{name}.{_WORK}")
        self.tree = os.path.join(self.path, "tree")
        self.kept = ""
        self._before = self._free(
            os.path.join(target, f".before_{stamp}") if self.inside else f"{target}.before_{stamp}"
        )
        self._marker = os.path.join(self.path, "swap.json")

    @staticmethod
    def _free(path: str) -> str:
        candidate, number = path, 1
        while os.path.lexists(candidate):
            number += 1
            candidate = f"{path}_{number}"
        return candidate

    def check(self) -> None:
        """Refuse a place that others could change while we work there."""
        private_folder(self._base, parameter="target")

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """One restore at a time; the lock leaves no file behind."""
        fd = os.open(self._base, _OPEN_FOLDER)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise Busy(
                f"target: {self.target}: another restore works in {self._base}", hint="Wait for it to end."
            ) from exc
        finally:
            os.close(fd)

    def occupied(self) -> bool:
        """Whether the target is there, with something in it that isn't this work."""
        if not os.path.isdir(self.target):
            return False
        return bool(set(os.listdir(self.target)) - ({os.path.basename(self.path)} if self.inside else set()))

    def leftovers(self) -> list[str]:
        return [self.path] if os.path.lexists(self.path) else []

    def clean(self) -> None:
        """Remove what a killed run left; what had been the target is put where it belongs."""
        if not os.path.lexists(self.path):
            return
        if os.path.exists(self._marker) and os.path.lexists(self.tree):
            facts = read_json(self._marker)
            if os.lstat(self.tree).st_ino != facts["inode"]:
                os.rename(self.tree, self._free(facts["before"]))
        discard(self.path)

    def make(self) -> None:
        os.mkdir(self.path, 0o700)
        for name in (DEFAULT_ACL, ACL):  # else everything in it would get one from the folder above
            try:
                os.removexattr(self.path, name)
            except OSError as exc:
                if exc.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS):
                    raise
        os.mkdir(self.tree, 0o700)

    def flush(self) -> None:
        """Everything in the tree is on the disk then. File by file, it takes minutes for very many of them."""
        fd = os.open(self.tree, _OPEN_FOLDER)
        try:
            if _LIBC.syncfs(fd) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self.tree)
        finally:
            os.close(fd)

    def swap_in(self, *, own: bool) -> None:
        """Let the tree become the target in one step; an existing one is kept.

        Args:
            own: the tree's own folder has the attributes that are wanted; else the target's are taken over.
        """
        if not own and os.path.isdir(self.target):
            set_attributes(os.fsencode(self.tree), read_entry(os.fsencode(self.target), b""))
        if not self.occupied():
            os.rename(self.tree, self.target)  # takes the place of an empty folder
        else:
            write_json(self._marker, {"inode": os.lstat(self.tree).st_ino, "before": self._before})
            _exchange(self.tree, self.target, self._before)
            if os.path.lexists(self.tree):
                os.rename(self.tree, self._before)
            self.kept = self._before
        fsync_path(self._base)

    def merge(self, wanted: t.Mapping[bytes, Entry], wrong: t.Collection[bytes]) -> None:
        """Put what is `wrong` in the target in order, name by name; what it takes the place of is kept.

        No step leads over a symlink: every folder on the way is opened as one.
        """
        touched = {name for name in wrong if name in wanted}
        for entry in wanted.values():
            if entry.kind == HARDLINK and (entry.name in touched or entry.target in touched):
                group = {entry.target} | {
                    other.name for other in wanted.values() if other.kind == HARDLINK and other.target == entry.target
                }
                touched |= group
        top = os.open(self.target, _OPEN_FOLDER)
        try:
            for name in implied(wanted):
                if name:
                    with self._parent(top, name) as (folder, last):
                        if _kind_at(folder, last) is None:
                            os.mkdir(last, 0o700, dir_fd=folder)
                            os.chmod(last, 0o755, dir_fd=folder)
            for name in sorted(touched):
                if name:
                    with self._parent(top, name) as (folder, last):
                        self._put(folder, last, wanted[name])
            for name in sorted((name for name in touched if wanted[name].kind == FOLDER), reverse=True):
                with self._parent(top, name) as (folder, last):
                    fd = os.open(last or b".", _OPEN_FOLDER, dir_fd=folder)
                    try:
                        _drop_others(fd, wanted[name])
                        set_attributes(fd, wanted[name])
                        os.fsync(fd)
                    finally:
                        os.close(fd)
            os.fsync(top)
        finally:
            os.close(top)
        fsync_path(self._base)

    def put(
        self,
        unpacker: Unpacker,
        unpack: t.Callable[[], t.Sequence[Entry]],
        progress: Progress,
        merge: t.Sequence[Difference] | None,
    ) -> dict[str, t.Any]:
        """Unpack here, compare, and put in place: what is in `merge`, or all of it.

        Args:
            unpack: fills the tree by this `unpacker`, and says what is there then.
        Returns:
            `kept`, and `without`: how many entries lack which extended attribute.
        """
        self.make()
        try:
            progress.step("restore: unpack")
            chosen = unpack()
            progress.step("restore: compare what was unpacked")
            problems = unpacker.compare(chosen)
            if problems:
                raise BackupError(
                    f"target: {self.target}: unpacked, it isn't what the archive holds: {problems[0]}",
                    hint="Nothing was changed. See whether this file system can hold such files.",
                )
            wanted = canonical(chosen)
            progress.step("restore: flush")
            self.flush()
            progress.step("restore: put in place")
            if merge is None:
                self.swap_in(own=b"" in wanted)
            else:
                self.merge(wanted, [difference.name for difference in merge])
                progress.step("restore: compare what is in place")
                left = difference_from(self.target, chosen, merge=True, without=unpacker.without)
                if left:
                    raise BackupError(
                        f"target: {self.target}: it isn't what the archive holds: {left[0]}",
                        hint="Something else changes these files: stop it, and run again.",
                    )
            progress.step("restore: in place")
        finally:
            self.clean()
        progress.step("restore: done")
        names = [name for without in unpacker.without.values() for name in without]
        return {"kept": self.kept or None, "without": {name: names.count(name) for name in sorted(set(names))}}

    @contextlib.contextmanager
    def _parent(self, top: int, name: bytes) -> t.Iterator[tuple[int, bytes]]:
        """The open folder that a name of the target lies in, and the last part of the name."""
        *above, last = name.split(b"/")
        fd = os.dup(top)
        try:
            for part in above:
                below = os.open(part, _OPEN_FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd, last
        except OSError as exc:
            if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise BackupError(
                f"target: {self.target}: {os.fsdecode(name)}: a folder above it is a link or a file",
                hint="Remove it, or restore to a new folder.",
            ) from exc
        finally:
            os.fsync(fd)
            os.close(fd)

    def _put(self, folder: int, last: bytes, entry: Entry) -> None:
        there = _kind_at(folder, last)
        if entry.kind == FOLDER:
            if there is not None and not stat.S_ISDIR(there):
                os.rename(last, self._aside(entry.name), src_dir_fd=folder)
                there = None
            if there is None:
                os.mkdir(last, 0o700, dir_fd=folder)
            return
        if there is not None:
            aside = self._aside(entry.name)
            try:
                if stat.S_ISDIR(there):
                    raise IsADirectoryError
                # So the name is never without a file.
                os.link(last, aside, src_dir_fd=folder, follow_symlinks=False)
            except OSError:
                os.rename(last, aside, src_dir_fd=folder)
        os.rename(os.path.join(os.fsencode(self.tree), entry.name), last, dst_dir_fd=folder)

    def _aside(self, name: bytes) -> bytes:
        """Where what has this name goes."""
        self.kept = self._before
        path = os.path.join(os.fsencode(self._before), name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return path


def _kind_at(folder: int, last: bytes) -> int | None:
    try:
        return os.lstat(last, dir_fd=folder).st_mode
    except FileNotFoundError:
        return None


def _drop_others(fd: int, entry: Entry) -> None:
    for name in os.listxattr(fd):
        if name not in entry.xattrs and not name.startswith("security."):
            os.removexattr(fd, name)


def _exchange(new: str, old: str, before: str) -> None:
    """Both change places at once; where the kernel or the file system can't, the old one goes to `before` first."""
    done = -1
    with contextlib.suppress(AttributeError):  # a C library from before 2.28
        done = _LIBC.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
        if done and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), old)
    if done:
        os.rename(old, before)
        os.rename(new, old)


def discard(path: str) -> None:
    """Remove a tree of ours, also one with folders that their owner may not write to."""
    if os.geteuid() != 0:
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            os.chmod(folder, 0o700)
            with os.scandir(folder) as inside:
                waiting += [entry.path for entry in inside if entry.is_dir(follow_symlinks=False)]
    remove_tree(path)
