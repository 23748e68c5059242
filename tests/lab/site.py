# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host with its MazeVault as seen without the collection: by the engine, SQL and files."""

from __future__ import annotations

import json
import re
import shutil
import time
import typing as t
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from support.flow import IN_PLAIN
from support.plays import Place as ControlNode
from support.plays import Play, RunningPlay

from . import hosts, stack
from .client import Client
from .hosts import Host
from .place import Place
from .process import wait_for

ROOT = f"{stack.HOME}/backups"
POSTGRES = "mazevault-postgres-1"
LABEL = "mazevault.backup"
_CASTS = re.compile(r"::(text|character varying)(\[\])?|[()]")
_OWN = ("postgres", "template0", "template1")

# Every table's rows and every sequence, whatever the order of the rows; then the definitions.
CONTENT_SQL = r"""
SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'; SET statement_timeout = 0;
SELECT format('SELECT %L, count(*), sum((''x'' || left(md5(t::text), 15))::bit(60)::bigint) FROM ONLY %s AS t',
              name, name)
  FROM (SELECT format('%I.%I', nspname, relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_') AS tables
 ORDER BY name
\gexec
SELECT format('SELECT %L, last_value, is_called FROM %s', name, name)
  FROM (SELECT format('%I.%I', schemaname, sequencename) AS name FROM pg_sequences) AS sequences ORDER BY name
\gexec
SELECT 'column ' || table_schema || '.' || table_name || '.' || column_name, data_type, is_nullable, column_default
  FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1;
SELECT 'constraint ' || conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE conrelid <> 0 AND connamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema') ORDER BY 1;
SELECT 'index ' || schemaname || '.' || indexname, indexdef FROM pg_indexes WHERE schemaname !~ '^pg_' ORDER BY 1;
SELECT 'relation ' || oid::regclass, relkind, relowner::regrole, relacl FROM pg_class
 WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1;
SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname, pg_get_triggerdef(oid) FROM pg_trigger
 WHERE NOT tgisinternal ORDER BY 1;
SELECT 'function ' || oid::regprocedure, md5(prosrc) FROM pg_proc
 WHERE pronamespace::regnamespace::text = 'public' ORDER BY 1;
"""

_STACK = r"""
for id in $("$ENGINE" ps --all --quiet --no-trunc); do
    "$ENGINE" inspect --format 'container {{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.Image}}
{{- range .Mounts}} {{.Type}}:{{.Name}}:{{.Source}}:{{.Destination}}:{{.RW}}{{end}}
{{- range $name, $net := .NetworkSettings.Networks}} {{$name}}:{{$net.NetworkID}}:{{$net.IPAddress}}{{end}}' "$id"
done | sort
"$ENGINE" volume ls --format 'volume {{.Name}}' | sort
"$ENGINE" network ls --no-trunc --format 'network {{.Name}} {{.ID}}' | sort
"$ENGINE" images --all --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
find /opt/mazevault "$VOLUMES/mazevault_certs" "$VOLUMES/mazevault_backend_data" -path /opt/mazevault/backups -prune \
    -o -printf 'entry %p %y %m %U:%G %T@\n' | sort
find /opt/mazevault "$VOLUMES/mazevault_certs" "$VOLUMES/mazevault_backend_data" "$VOLUMES/mazevault_pgdata/_data" \
    -path /opt/mazevault/backups -prune -o -path "$VOLUMES/mazevault_pgdata/_data/*/*" -prune \
    -o -type f ! -name postmaster.pid -print0 | sort -z | xargs -0 sha256sum | sed 's/^/sum /'
"""

_BACKUPS = r"""
cd /opt/mazevault/backups 2>/dev/null || exit 0
find . -printf '%p %y %m %U:%G %T@\n' | sort
find . -type f -print0 | sort -z | xargs -0 --no-run-if-empty sha256sum
"""

_LEFTOVERS = r"""
"$ENGINE" ps --all --filter label=mazevault.backup --format 'container {{.Names}} {{.Status}}'
for entry in /opt/mazevault/backups/staging/*; do [ ! -e "$entry" ] || echo "staging $entry"; done
for entry in /tmp/mazevault*; do [ ! -e "$entry" ] || echo "temporary $entry"; done
"""

# A lock is held by the module that works there, also by one whose control node is gone.
_IDLE = r"""
for lock in /opt/mazevault/backups/staging/*/lock; do
    [ ! -e "$lock" ] || flock --nonblock "$lock" true || exit 1
done
"""

_SETS = r"""
cd /opt/mazevault/backups/sets 2>/dev/null || exit 0
for folder in *; do
    [ -e "$folder" ] || continue
    (cd "$folder" && sha256sum --check --quiet SHA256SUMS && test -s manifest.json && test -s RESTORE.md \
        && for dump in postgres/*.zst; do [ ! -e "$dump" ] || zstd --quiet --test "$dump" || exit 1; done) \
        >/dev/null 2>&1 && echo "whole $folder" || echo "damaged $folder"
done
"""


@dataclass(frozen=True)
class Site:
    """A host of the lab, and a control node that reaches it by ssh."""

    place: Place
    host: Host
    folder: Path
    """Of the control node."""
    control_path: Path
    env: t.Mapping[str, str] = field(default_factory=dict)
    protection: t.Mapping[str, t.Any] = field(default_factory=lambda: IN_PLAIN)
    """How its sets are encrypted."""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def control_node(self) -> ControlNode:
        return ControlNode(self.folder)

    @cached_property
    def client(self) -> Client:
        return Client.of(self.place, self.host)

    # What an operator does.

    def play(self, playbook: str | Path, *arguments: str, timeout: float = 600, **extra: t.Any) -> Play:
        """Run a playbook on this host, with no variable but those named here."""
        words = ("--limit", self.name, *arguments)
        return self.control_node.run(
            playbook, self.inventory(), *words, extra=extra, env=self.environment(), timeout=timeout
        )

    def started(self, playbook: str, *arguments: str, **extra: t.Any) -> t.ContextManager[RunningPlay]:
        words = ("--limit", self.name, *arguments)
        return self.control_node.started(playbook, self.inventory(), *words, extra=extra, env=self.environment())

    def inventory(self) -> Path:
        """How the host is reached, how its sets are kept, and nothing of what runs there."""
        variables = {
            "ansible_host": str(self.place.address(self.host.number)),
            "ansible_user": "operator",
            "ansible_become": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_pipelining": True,
            "ansible_ssh_common_args": f'-F "{self.place.ssh_config}"',
            **{f"mazevault_{name}": value for name, value in self.protection.items()},
        }
        path = self.folder / "inventory.yml"
        path.write_text(json.dumps({"mazevault": {"hosts": {self.name: variables}}}), encoding="utf-8")
        return path

    def environment(self) -> dict[str, str]:
        # Sockets have short paths; temporary folders of this machine mean nothing over there.
        return {
            "ANSIBLE_REMOTE_TMP": "~/.ansible/tmp",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control_path),
            **self.env,
        }

    def tidy(self) -> None:
        """Nothing of former runs: neither backups, nor who saw them, nor kept databases."""
        self.shell(f"find {ROOT} -mindepth 1 -delete")
        shutil.rmtree(self.folder / "home/.mazevault-backup", ignore_errors=True)
        for name in self.databases():
            if name != stack.DATABASE:
                self.sql(f'DROP DATABASE "{name}" WITH (FORCE)', database="postgres")

    # What is there.

    def shell(self, script: str, *words: str) -> str:
        """The script finds the engine's program and the folder of its volumes in ENGINE and VOLUMES."""
        engine = self.host.engine
        known = ("env", f"ENGINE={engine.program}", f"VOLUMES={engine.volumes}")
        return hosts.inside(self.place, self.host, *known, "bash", "-c", script, "bash", *words)

    def sql(self, statement: str, *, database: str = stack.DATABASE) -> str:
        words = ("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", stack.DATABASE, "-d", database)
        return stack.execute(self.place, self.host, "postgres", *words, data=statement.encode()).strip()

    def content(self, database: str = stack.DATABASE) -> dict[str, str]:
        """Every table's number of rows and digest, sequences and definitions."""
        return content_of(self.sql(CONTENT_SQL, database=database))

    def databases(self) -> dict[str, int]:
        lines = self.sql("SELECT datname, oid FROM pg_database", database="postgres").splitlines()
        return {name: int(oid) for name, oid in (line.split("|") for line in lines) if name not in _OWN}

    def stack_state(self) -> list[str]:
        """Containers, volumes, networks, images, and every file of the installation and its volumes but the backups."""
        # The engine tells a container's mounts in any order.
        return [" ".join(sorted(line.split())) for line in self.shell(_STACK).splitlines()]

    def state(self) -> dict[str, t.Any]:
        """All that a backup must leave as it is."""
        found = self.databases()
        content = {name: self.content(name) for name in found}
        return {"stack": self.stack_state(), "databases": found, "content": content}

    def backups(self) -> list[str]:
        return self.shell(_BACKUPS).splitlines()

    def sets(self) -> dict[str, bool]:
        """Published sets, and whether each is whole by its own sums."""
        lines = [line.split() for line in self.shell(_SETS).splitlines()]
        return {name: word == "whole" for word, name in lines}

    def manifest(self, name: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.shell('cat "$1"', f"{ROOT}/sets/{name}/manifest.json")))

    def leftovers(self) -> list[str]:
        """What a run must not leave: containers, staging folders, temporary ones, databases beside the live one."""
        strays = [f"database {name}" for name in self.databases() if re.search(r"_restore_", name)]
        return self.shell(_LEFTOVERS).splitlines() + strays

    def wait_idle(self, *, seconds: float = 180) -> None:
        """Until no module works on the host any more."""
        words = ("bash", "-c", _IDLE)
        wait_for(f"{self.name}: idle", lambda: hosts.succeeds(self.place, self.host, *words), seconds)

    def wait_healthy(self, *, seconds: float = 120) -> float:
        """Seconds until a user outside finds the application healthy, with nobody's help."""
        began = time.monotonic()
        wait_for(f"{self.name}: the application", self.client.healthy, seconds)
        return time.monotonic() - began

    def started_at(self) -> dict[str, str]:
        """When each container was last started."""
        return self._of_each("{{.State.StartedAt}}")

    def status(self) -> dict[str, str]:
        """State by name of container."""
        return self._of_each("{{.State.Status}}")

    def _of_each(self, form: str) -> dict[str, str]:
        """What the engine says of each container, by its name."""
        script = """for id in $("$ENGINE" ps --all --quiet); do "$ENGINE" inspect --format "{{.Name}} $1" "$id"; done"""
        return dict(line.lstrip("/").split(maxsplit=1) for line in self.shell(script, form).splitlines())


def content_of(text: str) -> dict[str, str]:
    """The answers of psql as key and rest; a restore may write a definition with other casts and brackets."""
    found = dict(line.partition("|")[::2] for line in text.splitlines())
    return {key: _CASTS.sub("", rest) if key.startswith("constraint ") else rest for key, rest in found.items()}
