# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""RESTORE.md and START-HERE.txt: what a person types when there is nothing but the set and stock tools."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size
from ansible_collections.mazevault.backup.plugins.module_utils._signature import check_command


def conninfo(database: str) -> str:
    """A database name for --dbname, which takes anything with `=` in it for a connection string."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _open_function(scheme: str) -> str:
    """A shell function `plain` that writes an artefact to stdout, whatever it is stored as."""
    if scheme == "none":
        return 'plain() { cat -- "$1"; }'
    if scheme == "age":
        return 'plain() { age -d -i "$DATA_KEY" "$1.age"; }'
    return """plain() {
  for part in "$1".[0-9]*.cms; do
    openssl cms -decrypt -binary -inform DER -in "$part" -recip access/data.crt -inkey "$DATA_KEY" || return 1
  done
}"""


def open_command(scheme: str, class_name: str = "data") -> str:
    """What a recipient types, in the folder of the set, to open its key of a class."""
    if scheme == "age":
        return f"age -d -i IDENTITY -o {class_name}.key access/{class_name}.key.age"
    return (
        f"openssl cms -decrypt -binary -inform DER -in access/{class_name}.key.cms -inkey IDENTITY"
        f" -out {class_name}.key"
    )


def _key_section(manifest: t.Mapping[str, t.Any], scheme: str) -> str:
    if scheme == "none":
        return ""
    names = ", ".join(f"`{one['name']}`" for one in manifest["recipients"]["data"])
    program = "openssl 3.0 or newer" if scheme == "cms" else "age"
    return f"""
## 2. The key of this set

Everything here is encrypted (`{scheme}`). Each of these can open it, with the private key that is kept offline and with
{program}: {names}. Where that private key is (`IDENTITY`), in a copy of this folder:

```
{open_command(scheme)}
```

Bring `data.key`, which opens this set and no other, to the restoring machine, into memory and not onto a disk; then
say where it is. Remove it when you are done (`shred -u "$DATA_KEY"`).

```bash
export DATA_KEY="${{DATA_KEY:-/dev/shm/data.key}}"
test -s "$DATA_KEY"
```
"""


def _load_block(dump: str, dump_format: str, compression: str, database: str, encrypted: bool) -> list[str]:
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
        return [f"plain {dump} | zstd -q -d -c | {restore}"]
    if encrypted:
        return [f"plain {dump} | {restore}"]
    return [f"{restore} {dump}"]


def restore_instructions(manifest: t.Mapping[str, t.Any], private: t.Mapping[str, t.Any]) -> str:
    """The text of RESTORE.md; its code blocks run as they are, in order, in the folder of the set."""
    postgres, facts = manifest["postgres"], private["postgres"]
    database, dump = facts["database_name"], facts["dump_path"]
    scheme = manifest["encryption"]["scheme"]
    psql = "psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --dbname=template1"
    load = "\n".join(
        _load_block(dump, postgres["format"], postgres["compression"], database, encrypted=scheme != "none")
    )
    main = next((entry for entry in manifest["artefacts"] if entry["path"] == dump), None)
    plain_check = ""
    if main is not None:
        unpacked = " | zstd -q -d -c" if postgres["compression"] == "zstd" else ""
        plain_check = f'test "$(plain {dump}{unpacked} | sha256sum)" = "{main["sha256_plaintext"]}  -"'
    shown = conninfo(database)
    proof = manifest["verification"]
    major, size = postgres["client_version"], human_size(postgres["size_bytes"])
    opener = "age, " if scheme == "age" else ""
    return f"""# Restore {manifest["set_id"]} by hand

This folder is one recovery set of the MazeVault installation `{manifest["installation"]}`.
It holds the data of **{manifest["recovery_point"]}** (recovery point, UTC); whatever was written later is not in it.
Verification before publication: level `{proof["level"] or "none"}`, verdict `{proof["verdict"]}`.
Missing in this version: {", ".join(manifest["missing_protection"])}. Not covered: {"; ".join(manifest["not_covered"])}.

You need coreutils, openssl, {opener}zstd and the client programs of PostgreSQL {major} (of the target
server's version, if that is newer), and a superuser of a PostgreSQL server of version {major} or newer that has no
database of this name yet. Tell the programs where it is with `PGHOST`, `PGPORT` and `PGUSER` (and `PGPASSFILE`). About
{size} will be needed there. Run the blocks that are marked `bash` in this folder, in this order, in one
`bash -euo pipefail`.

## 1. Are these the bytes that were published, and by whom?

`MAZEVAULT_HOST_KEY` is the file of the host's public key: from the card or the policy, never from this folder.

```bash
{check_command()}
sha256sum --check --quiet SHA256SUMS
```
{_key_section(manifest, scheme)}
## 3. Does what is in them come out whole?

```bash
{_open_function(scheme)}
{plain_check}
```

## 4. Roles (existing ones are left alone; passwords are not part of a set)

```bash
plain postgres/roles.sql | {psql} --file=-
```

## 5. An empty database with the same encoding and locale

```bash
plain postgres/create.sql | {psql} --file=-
```

## 6. The data

```bash
{load}
```

## 7. Owner, privileges, settings, comment and limit of the database; then statistics

```bash
plain postgres/properties.sql | {psql} --file=-
vacuumdb --no-password --analyze --quiet --parallel=0 --dbname={shlex.quote(shown)}
```

## 8. What should be there now

{postgres["tables"]} tables with {postgres["rows"]} rows in all; exact counts are in `manifest.private.json`.
The server's configuration files are under `postgres/server/`, as far as they could be read.
To look into an artefact, type `plain` and its name without a number and suffix: `plain manifest.private.json`.
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
