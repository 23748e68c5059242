# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A throw-away PostgreSQL server in which a dump is restored to prove it.

A dump is code that runs with the server's rights. In a container the server has no network, no capabilities, and only
the dump to see. On the `host` runtime it runs as an unprivileged account and, where the kernel allows it, in a network
namespace of its own; that is for provers and the demo. It listens on one private socket.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import tempfile
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._container import CagedRuntime, ContainerRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree
from ansible_collections.mazevault.backup.plugins.module_utils._process import (
    Child,
    HostProcesses,
    ProcessRunner,
    TimedOut,
)
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server

# Nothing of it has to survive a crash.
_FAST = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "256MB",
    "shared_buffers": "128MB",
    "jit": "off",
    "logging_collector": "off",
}
_LONGEST_SOCKET_FOLDER = 80
PREFIX = "mazevault-scratch-"
_ACCOUNTS = ("postgres", "nobody")


class Scratch:
    """A running scratch server; use as a context manager.

    Args:
        work: folder on a file system with room for the whole database; the account must be able to pass through it.
        register: told each folder's path before anything runs in it, so that a later run can clean up.
        major: PostgreSQL's major version (of the server that the dump is for).
        superuser: name of the bootstrap superuser; the source's, or its objects find no owner.
        account: operating-system account when run as root; empty: `postgres`, else `nobody`.
        preload: the source's shared_preload_libraries.
        sees: folders and files that the programs which load the dump read.
    Attributes:
        runtime: where the programs that talk to the server have to run.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        work: str,
        major: int,
        superuser: str,
        account: str = "",
        preload: str = "",
        register: t.Callable[[str], None] = lambda _folder: None,
        sees: t.Sequence[str] = (),
    ) -> None:
        self._cage = runtime.caged() if isinstance(runtime, ContainerRuntime) else None
        self.runtime: Runtime = self._cage or runtime
        self._major, self._superuser, self._sees = major, superuser, sees
        self._account = "" if self._cage else scratch_account(account)
        self._preload, self._register = preload, register
        self._work = work
        self.isolated = False
        self._folder = ""
        self._child: Child | None = None

    def __enter__(self) -> Scratch:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def alive(self) -> bool:
        """Whether the server still runs; one that has just been killed is given the moment that its end takes."""
        if self._child is None:
            return False
        with contextlib.suppress(TimedOut):
            self._child.wait(0.5)
        return self._child.poll() is None

    def server(self, database: str) -> Server:
        connector = self._cage.connect if self._cage else None
        return Server(self._socket, 5432, self._superuser, database, connector=connector)

    def _start(self) -> None:
        initdb = self.runtime.program("initdb", major=self._major)
        postgres = self.runtime.program("postgres", major=self._major)
        self._folder = self._socket = tempfile.mkdtemp(prefix=PREFIX, dir=self._work)
        self._register(self._folder)
        if len(self._folder) > _LONGEST_SOCKET_FOLDER:
            self._socket = tempfile.mkdtemp(prefix=PREFIX)
            self._register(self._socket)
        data = os.path.join(self._folder, "data")
        processes, starter = self._caged(self._cage) if self._cage else self._on_host()
        processes.run(
            [initdb, f"--pgdata={data}", f"--username={self._superuser}", "--auth=trust", "--encoding=UTF8",
             "--locale=C", "--no-sync", "--no-instructions"],
            timeout=300,
        ).check("scratch server: initdb")  # fmt: skip
        settings = {
            **_FAST,
            "unix_socket_directories": f"'{self._socket}'",
            "shared_preload_libraries": f"'{self._preload}'",
        }
        with open(os.path.join(data, "postgresql.auto.conf"), "a", encoding="utf-8") as stream:
            stream.writelines(f"{key} = {value or chr(39) * 2}\n" for key, value in settings.items())
        self._child = starter.start([postgres, "-D", data, "-c", "port=5432"])
        self._wait_until_up(self._child)

    def _on_host(self) -> tuple[ProcessRunner, ProcessRunner]:
        """(what runs initdb, what starts the server)."""
        if self._account:
            entry = pwd.getpwnam(self._account)
            for folder in (self._folder, self._socket):
                os.chown(folder, entry.pw_uid, entry.pw_gid)
        prefix = _network_namespace(self._account)
        self.isolated = bool(prefix)
        return (
            HostProcesses(user=self._account or None),
            HostProcesses(user=None if prefix else self._account or None, prefix=prefix),
        )

    def _caged(self, cage: CagedRuntime) -> tuple[ProcessRunner, ProcessRunner]:
        for folder in sorted({self._folder, self._socket}):
            cage.see(folder, writable=True)
        for path in self._sees:
            cage.see(path)
        processes, uid = cage.server_processes()
        for folder in sorted({self._folder, self._socket}):
            os.chown(folder, uid, -1)
            # Clients run as we do and have no rights of their own there: they pass through to the socket.
            os.chmod(folder, 0o711)
        self.isolated = True
        return processes, processes

    def _wait_until_up(self, child: Child) -> None:
        end = time.monotonic() + 60
        while True:
            if child.poll() is not None:
                done = child.wait()
                words = done.stderr.strip().splitlines() or ["no message"]
                raise BackupError(
                    f"scratch server: it ended at once: {words[-1]}",
                    details={"stderr_tail": done.stderr},
                )
            try:
                self.server("template1").connect("mazevault.backup scratch").close()
                return
            except BackupError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.signal("QUIT")  # immediate: nothing of it is kept
            self._child.stop(patience=10)
        if self._cage is not None:
            self._cage.close()
        for folder in {self._folder, getattr(self, "_socket", "")} - {""}:
            remove_tree(folder)


def scratch_account(wanted: str) -> str:
    """The account that a scratch server runs as: none unless we are root (PostgreSQL refuses to run as root)."""
    if os.geteuid() != 0:
        return ""
    for name in (wanted,) if wanted else _ACCOUNTS:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise BackupError(
        f"scratch_user: {wanted or ' or '.join(_ACCOUNTS)}: no such account",
        hint="Name an unprivileged account for scratch servers.",
    )


def _network_namespace(account: str) -> tuple[str, ...]:
    """Words that start a program without any network, or nothing where that can't be had."""
    unshare = shutil.which("unshare")
    if not unshare:
        return ()
    if account:
        entry = pwd.getpwnam(account)
        setpriv = shutil.which("setpriv")
        if not setpriv:
            return ()
        words = [unshare, "--net", "--", setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}",
                 "--clear-groups", "--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"]  # fmt: skip
    else:
        words = [unshare, "--user", "--map-current-user", "--net", "--"]
    try:
        works = HostProcesses().run([*words, "true"], timeout=10).rc == 0
    except BackupError:
        works = False
    return tuple(words) if works else ()


def default_work(runtime: Runtime, staging: str) -> str:
    """Where scratch servers live: root's staging is closed to other accounts of the host, so root uses /var/tmp."""
    return "/var/tmp" if os.geteuid() == 0 and not isinstance(runtime, ContainerRuntime) else staging


def end_orphan(folder: str) -> None:
    """End the scratch server that a killed run left in `folder`, and remove the folder."""
    if not os.path.basename(folder).startswith(PREFIX) or not os.path.isdir(folder):
        return
    data = os.path.join(folder, "data")
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(os.path.join(data, "postmaster.pid"), encoding="utf-8") as stream:
            pid = int(stream.readline())
        # A pid can have a new owner by now; a PostgreSQL server's working folder is its data folder.
        if os.path.realpath(f"/proc/{pid}/cwd") == os.path.realpath(data):
            os.kill(pid, signal.SIGQUIT)
            end = time.monotonic() + 10
            while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
                time.sleep(0.05)
    remove_tree(folder)
