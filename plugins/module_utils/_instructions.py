# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""RESTORE.md and START-HERE.txt: what a person types when there is nothing but the set and stock tools."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size


def conninfo(database: str) -> str:
    """A database name for --dbname, which takes anything with `=` in it for a connection string."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _load_block(dump: str, dump_format: str, compression: str, database: str) -> list[str]:
    target = shlex.quote(conninfo(database))
    restore = f"pg_restore --no-password --exit-on-error --dbname={target}"
    if dump_format == "directory" and compression == "zstd":
        return [
            "unpacked=$(mktemp -d)",
            f'cp {dump}/toc.dat "$unpacked/"',
            f'for file in {dump}/*.zst; do zstd -q -d -o "$unpacked/$(basename "$file" .zst)" "$file"; done',
            f'{restore} "$unpacked"',
            'rm -r "$unpacked"',
        ]
    if compression == "zstd":
        return [f"zstd -q -d -c {dump} | {restore}"]
    return [f"{restore} {dump}"]


def restore_instructions(manifest: t.Mapping[str, t.Any], private: t.Mapping[str, t.Any]) -> str:
    """The text of RESTORE.md; its code blocks run as they are, in order, in the folder of the set."""
    postgres, facts = manifest["postgres"], private["postgres"]
    database, dump = facts["database_name"], facts["dump_path"]
    psql = "psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --dbname=template1"
    load = "\n".join(_load_block(dump, postgres["format"], postgres["compression"], database))
    main = next((entry for entry in manifest["artefacts"] if entry["path"] == dump), None)
    plain_check = ""
    if main is not None and postgres["compression"] == "zstd":
        plain_check = f'test "$(zstd -q -d -c {dump} | sha256sum)" = "{main["sha256_plaintext"]}  -"\n'
    shown = conninfo(database)
    proof = manifest["verification"]
    major, size = postgres["client_version"], human_size(postgres["size_bytes"])
    return f"""# Restore {manifest["set_id"]} by hand

This folder is one recovery set of the MazeVault installation `{manifest["installation"]}`.
It holds the data of **{manifest["recovery_point"]}** (recovery point, UTC); whatever was written later is not in it.
Verification before publication: level `{proof["level"] or "none"}`, verdict `{proof["verdict"]}`.
Missing in this version: {", ".join(manifest["missing_protection"])}. Not covered: {"; ".join(manifest["not_covered"])}.

You need coreutils, zstd and the client programs of PostgreSQL {major} (of the target server's version, if
that is newer), and a superuser of a PostgreSQL server of version {major} or newer that has no database of this
name yet. Tell the programs where it is with `PGHOST`, `PGPORT` and `PGUSER` (and `PGPASSFILE`). About
{size} will be needed there. Run the blocks in this folder, in this order, with `bash -euo pipefail`.

## 1. Are these the bytes that were published?

```bash
sha256sum --check --quiet SHA256SUMS
{plain_check}```

## 2. Roles (existing ones are left alone; passwords are not part of a set)

```bash
{psql} --file=postgres/roles.sql
```

## 3. An empty database with the same encoding and locale

```bash
{psql} --file=postgres/create.sql
```

## 4. The data

```bash
{load}
```

## 5. Owner, privileges, settings, comment and limit of the database; then statistics

```bash
{psql} --file=postgres/properties.sql
vacuumdb --no-password --analyze --quiet --parallel=0 --dbname={shlex.quote(shown)}
```

## 6. What should be there now

{postgres["tables"]} tables with {postgres["rows"]} rows in all; exact counts are in `manifest.private.json`.
The server's configuration files are under `postgres/server/`, as far as they could be read.
"""


START_HERE_SYMPTOMS = (
    ("the database is wrong, the host is fine", "restore_database.yml"),
    ("the restore was wrong", "rollback_database.yml"),
    ("are the sets still good?", "verify.yml"),
)


def start_here(root: str, states: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """The text of START-HERE.txt.

    Args:
        states: the sets as `state_of` gives them, oldest first.
    """
    lines = [
        "START HERE when MazeVault is broken",
        "====================================",
        "",
        f"Recovery sets: {root}/sets",
    ]
    proven = [state for state in states if state["verdict"] == "pass"]
    if proven:
        best = proven[-1]
        lines += [
            f"Newest proven set: {best['set_id']}",
            f"  data of {best['recovery_point']}, proven to level {best['level']}, {human_size(best['bytes'])}",
        ]
    else:
        lines.append("Newest proven set: NONE. Every set here is unproven or has failed.")
    if states and (not proven or states[-1]["set_id"] != proven[-1]["set_id"]):
        newest = states[-1]
        lines.append(f"Newest set of all: {newest['set_id']} ({newest['verdict']}, level {newest['level'] or 'none'})")
    lines += [
        "Copies elsewhere: none (sets on this host only)",
        "Key escrow: none (keys are not part of these sets; without MASTER_KEY the data can't be read)",
        "",
        "What is wrong?                              What to run on the control node",
    ]
    lines += [
        f"  {symptom:<42}ansible-playbook mazevault.backup.{playbook[:-4]}" for symptom, playbook in START_HERE_SYMPTOMS
    ]
    lines += [
        "  (each asks for -e mazevault_confirm=<inventory hostname>; with --check it shows what it would do)",
        "",
        "Without Ansible:",
    ]
    chosen = proven[-1] if proven else states[-1] if states else None
    if chosen:
        lines += [f"  cd {shlex.quote(chosen['path'])}", "  sha256sum --check --quiet SHA256SUMS", "  less RESTORE.md"]
    else:
        lines.append("  there is no set yet")
    return "\n".join(lines) + "\n"
