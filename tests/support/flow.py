# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a server through the collection's own steps: dump, publish, verify, restore beside, swap."""

from __future__ import annotations

import os
import random
import typing as t
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.modules import Outcome, run_module
from support.servers import PgServer

T = t.TypeVar("T")
FULL = os.environ.get("MAZEVAULT_TEST_FULL") == "1"
HOSTNAME = "vault1"
# Of tests that are about something else.
IN_PLAIN = {"encryption": "none", "encryption_reason": "a test of something else"}


def count(sample: int, full: int) -> int:
    """How often to do something: a sample, or the full count where that was asked for."""
    return full if FULL else sample


def sample(every: Sequence[T], number: int, *, always: Sequence[T] = ()) -> list[T]:
    """Some of them, the same ones each time, and those that are never left out; all where that was asked for."""
    if FULL:
        return list(every)
    rest = [one for one in every if one not in always]
    return [*always, *random.Random(20261123).sample(rest, number)]


class StepFailed(AssertionError):
    """A module ended with an error where the test needs its success."""


@dataclass(frozen=True)
class Flow:
    """One database of a server, and the backup root of its sets."""

    server: PgServer
    root: Path
    database: str = "mazevault"
    accept: Sequence[str] = field(default=("subscriptions",))
    # How sets are encrypted, and what opens them again.
    protection: t.Mapping[str, t.Any] = field(default_factory=lambda: IN_PLAIN)
    opened_by: t.Mapping[str, t.Any] = field(default_factory=dict)

    @property
    def programs(self) -> dict[str, t.Any]:
        return {"bin_dir": str(self.server.install.bin)}

    @property
    def runtime(self) -> dict[str, t.Any]:
        """What also those modules need that start no program of PostgreSQL's themselves."""
        return {}

    @property
    def connection(self) -> dict[str, t.Any]:
        dsn = self.server.dsn()
        return {"host": dsn["host"], "port": dsn["port"], "user": dsn["user"], "database": self.database}

    def must(self, module: str, **params: t.Any) -> dict[str, t.Any]:
        """Run a module that has to succeed, and return its result."""
        if module == "recovery_set" and params.get("state") == "open" and params.get("purpose", "set") == "set":
            params = {**self.protection, **params}
        done = run_module(module, {"backup_root": str(self.root), **params})
        if done.rc:
            raise StepFailed(f"{module}: {done.result.get('msg')}\n{done.result}\n{done.stderr[-3000:]}")
        return done.result

    @contextmanager
    def staging(self, purpose: str) -> Iterator[str]:
        """Open a staging folder and give it up at the end, whatever happened (sealing has removed it by then)."""
        set_id = str(self.must("recovery_set", state="open", purpose=purpose)["set_id"])
        try:
            yield set_id
        finally:
            self.must("recovery_set", state="aborted", set_id=set_id)

    def publish(
        self, dump_format: str = "custom", compression: str = "zstd", *, level: str | None = None
    ) -> dict[str, t.Any]:
        """Dump and publish, without proof unless a level is named; return what sealing returned."""
        with self.staging("set") as set_id:
            self.must(
                "pg_dump",
                **self.connection,
                **self.programs,
                set_id=set_id,
                format=dump_format,
                compression=compression,
                jobs=2,
            )
            proof: dict[str, t.Any] = {}
            if level:
                found = self.must("backup_verify", **self.programs, set=set_id, level=level)
                if found["verdict"] != "pass":
                    raise StepFailed(f"backup_verify: {found['summary']}\n{found['checks']}")
                proof = {"verification": {key: found[key] for key in ("verdict", "level", "wanted")}}
            return self.must("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME, **proof)

    def verify(self, wanted: str, level: str = "restore") -> dict[str, t.Any]:
        return self.must("backup_verify", **self.programs, **self.opened_by, set=wanted, level=level)

    def try_restore(self, wanted: str, set_id: str, **params: t.Any) -> Outcome:
        """Restore beside the live database; the caller judges the outcome."""
        return run_module(
            "pg_restore",
            {
                "backup_root": str(self.root),
                **self.connection,
                **self.programs,
                **self.opened_by,
                "set": wanted,
                "set_id": set_id,
                "installation": HOSTNAME,
                "accept": list(self.accept),
                **params,
            },
        )

    def restore_and_swap(self, wanted: str) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
        """Restore beside, swap in; return the results of both."""
        with self.staging("restore") as set_id:
            done = self.try_restore(wanted, set_id)
            if done.rc:
                raise StepFailed(f"pg_restore: {done.result.get('msg')}\n{done.result}\n{done.stderr[-3000:]}")
            swapped = self.must(
                "pg_swap",
                **self.connection,
                **self.runtime,
                state="swapped",
                set_id=set_id,
                confirm=HOSTNAME,
                inventory_hostname=HOSTNAME,
                accept=list(self.accept),
            )
            return done.result, swapped

    def databases(self) -> list[tuple[t.Any, ...]]:
        """Object ids and names of all databases of the server."""
        return self.server.query("SELECT oid::bigint, datname::text FROM pg_database ORDER BY 1", dbname="template1")
