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


def _open_function(scheme: str, class_name: str = "data") -> str:
    """The shell function `plain` or `plain_keys`: it writes an artefact of a class to stdout, however it is stored."""
    name, key = ("plain", "DATA_KEY") if class_name == "data" else ("plain_keys", "KEYS_KEY")
    if scheme == "none":
        return f'{name}() {{ cat -- "$1"; }}'
    if scheme == "age":
        return f'{name}() {{ age -d -i "${key}" "$1.age"; }}'
    return f"""{name}() {{
  for part in "$1".[0-9]*.cms; do
    openssl cms -decrypt -binary -inform DER -in "$part" -recip access/{class_name}.crt -inkey "${key}" || return 1
  done
}}"""


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
    text = f"""## The key of this set

Everything here is encrypted (`{scheme}`). Each of these can open it, with the private key that is kept offline:
{names}. Where that private key is (`IDENTITY`), in a copy of this folder, with {program}:

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
    if any(entry["class"] == "keys" for entry in _archives(manifest)):
        others = ", ".join(f"`{one['name']}`" for one in manifest["recipients"]["keys"])
        text += f"""
Key material (private keys, passwords, the master key) has a key of its own, which only these can open: {others}.

```
{open_command(scheme, "keys")}
```

Bring `keys.key` likewise and say where it is (`KEYS_KEY`). Without it everything else can be restored.
"""
    return text


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


def _database_sections(manifest: t.Mapping[str, t.Any], private: t.Mapping[str, t.Any], scheme: str) -> list[str]:
    postgres, facts = manifest["postgres"], private["postgres"]
    database, dump = facts["database_name"], facts["dump_path"]
    psql = "psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --dbname=template1"
    load = "\n".join(
        _load_block(dump, postgres["format"], postgres["compression"], database, encrypted=scheme != "none")
    )
    main = next((entry for entry in manifest["artefacts"] if entry["path"] == dump), None)
    plain_check = "true"
    if main is not None:
        unpacked = " | zstd -q -d -c" if postgres["compression"] == "zstd" else ""
        plain_check = f'test "$(plain {dump}{unpacked} | sha256sum)" = "{main["sha256_plaintext"]}  -"'
    size = human_size(postgres["size_bytes"])
    return [
        f"""## The database: does the dump come out whole?

For the database you need a superuser of a PostgreSQL server, version {postgres["client_version"]} or newer, that has
no database of this name yet. Tell the programs where it is with `PGHOST`, `PGPORT` and `PGUSER` (and `PGPASSFILE`).
About {size} will be needed there.

```bash
{plain_check}
```
""",
        f"""## Roles (existing ones are left alone; passwords are not part of a set)

```bash
plain postgres/roles.sql | {psql} --file=-
```
""",
        f"""## An empty database with the same encoding and locale

```bash
plain postgres/create.sql | {psql} --file=-
```
""",
        f"""## The data

```bash
{load}
```
""",
        f"""## Owner, privileges, settings, comment and limit of the database; then statistics

```bash
plain postgres/properties.sql | {psql} --file=-
vacuumdb --no-password --analyze --quiet --parallel=0 --dbname={shlex.quote(conninfo(database))}
```

{postgres["tables"]} tables with {postgres["rows"]} rows in all should be there now; exact counts are in
`manifest.private.json`. The server's configuration files are under `postgres/server/`, as far as they could be read.
""",
    ]


_UNWRAP = {"zstd": " | zstd -q -d -c", "gzip": " | gzip -d -c", "none": ""}


def _extract(entry: t.Mapping[str, t.Any], plain: str) -> str:
    """Check what comes out of an archive, then unpack it into a folder of its component."""
    source = f"{plain} {shlex.quote(entry['path'])}{_UNWRAP[entry['compression']]}"
    target = f'"$RESTORED"/{shlex.quote(entry["component"])}'
    return f"""test "$({source} | sha256sum)" = "{entry["sha256_plaintext"]}  -"
mkdir -p {target}
{source} | tar --extract --numeric-owner --same-permissions --acls --xattrs --xattrs-include='*' --directory={target}"""


def _archives(manifest: t.Mapping[str, t.Any]) -> list[t.Mapping[str, t.Any]]:
    return [entry for entry in manifest["artefacts"] if entry["component"] != "postgres"]


def _files_sections(manifest: t.Mapping[str, t.Any], scheme: str) -> list[str]:
    archives = _archives(manifest)
    data = [entry for entry in archives if entry["class"] == "data"]
    keys = [entry for entry in archives if entry["class"] == "keys"]
    if not archives:
        return []
    names = ", ".join(f"`{name}`" for name in sorted({entry["component"] for entry in archives}))
    unpack = "\n".join(_extract(entry, "plain") for entry in data)
    sections = [
        f"""## Files: {names}

They are unpacked to a folder for each component (`RESTORED`, a new one unless you say which), under the names that
they had on the host, and volumes under `volumes/` and their name. Look at them there, then copy them to their places
with `cp -a`. Only root can give files their owners back. `@generation:...` stands where a secret value was; the files
with the values are among the key material.

```bash
export RESTORED="${{RESTORED:-$(mktemp -d)}}"
{unpack}
```
"""
    ]
    if keys:
        inside = "\n".join(_extract(entry, "plain_keys") for entry in keys)
        function, condition = _open_function(scheme, "keys"), 'test -z "${KEYS_KEY:-}" ||' if scheme != "none" else ""
        body = f"{condition} {{\n{inside}\n}}" if condition else inside
        sections.append(
            f"""## Key material

It belongs into memory or onto the restored host, and nowhere else. Without `KEYS_KEY` this block does nothing.

```bash
{function}
{body}
```
"""
        )
    return sections


def restore_instructions(manifest: t.Mapping[str, t.Any], private: t.Mapping[str, t.Any]) -> str:
    """The text of RESTORE.md; its code blocks run as they are, in order, in the folder of the set."""
    scheme, proof = manifest["encryption"]["scheme"], manifest["verification"]
    tools = ["coreutils", "openssl", *(["age"] if scheme == "age" else []), "zstd"]
    sections = [
        f"""## Are these the bytes that were published, and by whom?

`MAZEVAULT_HOST_KEY` is the file of the host's public key: from the card or the policy, never from this folder.

```bash
{check_command()}
sha256sum --check --quiet SHA256SUMS
```
""",
        _key_section(manifest, scheme),
        f"""## How an artefact is opened

To look into one, type `plain` and its name without a number and suffix: `plain manifest.private.json`.

```bash
{_open_function(scheme)}
```
""",
    ]
    if "postgres" in manifest:
        sections += _database_sections(manifest, private, scheme)
        major = manifest["postgres"]["client_version"]
        tools.append(f"the client programs of PostgreSQL {major} (of the target server's version, if that is newer)")
    files = _files_sections(manifest, scheme)
    if files:
        sections += files
        tools.append("tar")
        tools += ["gzip"] if any(entry["compression"] == "gzip" for entry in manifest["artefacts"]) else []
    numbered = "\n".join(
        text.replace("## ", f"## {number}. ", 1) for number, text in enumerate(filter(None, sections), 1)
    )
    return f"""# Restore {manifest["set_id"]} by hand

This folder is one recovery set of the MazeVault installation `{manifest["installation"]}`.
It holds the data of **{manifest["recovery_point"]}** (recovery point, UTC); whatever was written later is not in it.
Verification before publication: level `{proof["level"] or "none"}`, verdict `{proof["verdict"]}`.
Missing in this version: {", ".join(manifest["missing_protection"])}. Not covered: {"; ".join(manifest["not_covered"])}.

You need {", ".join(tools[:-1])} and {tools[-1]}. Run the blocks that are marked `bash` in this folder, in this order,
in one `bash -euo pipefail`.

{numbered}"""


START_HERE_SYMPTOMS = (
    ("the database is wrong, the host is fine", "restore_database.yml"),
    ("the restore was wrong", "rollback_database.yml"),
    (".env, vault.key or secrets.vault is lost", "restore_keys.yml"),
    ("settings, certificates, uploads are wrong", "restore_files.yml"),
    ("are the sets still good?", "verify.yml"),
)


def _keys_line(states: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    if states and "config" in states[-1]["components"]:
        return "Key escrow: none. MASTER_KEY and the other secrets of .env are in the sets, class keys (config-keys)"
    return "Key escrow: none (keys are not part of these sets; without MASTER_KEY the data can't be read)"


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
        _keys_line(states),
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
