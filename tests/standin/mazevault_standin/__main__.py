# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: python -m mazevault_standin <command>."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2

from . import api, audit, config, ocsp, secret_store, seed, vault_tool
from .crypto import Keyring
from .database import Database, connect, first_line
from .errors import DatabaseUnavailable, StandinError
from .migrate import upgrade


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mazevault_standin", description="Test equipment that keeps MazeVault's documented behaviour."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("api", help="serve the HTTP API")
    commands.add_parser("ocsp", help="serve OCSP")
    commands.add_parser("migrate", help="run the missing migrations and stop")
    seeding = commands.add_parser("seed", help="fill an empty database with test data")
    seeding.add_argument("--size", default="small", help="small (default), or a size like 100MB, 2GB")
    seeding.add_argument("--seed", type=int, default=1, help="the same number gives the same data")
    seeding.add_argument("--token-file", type=Path, required=True, help="where the API token is written, mode 0600")
    commands.add_parser("verify-audit", help="check the audit chain in the database")
    checking = commands.add_parser("verify-secrets", help="decrypt every secret's newest version in the database")
    checking.add_argument("--all-versions", action="store_true", help="every version instead")
    vault_tool.add_arguments(commands.add_parser("vault-tool", help="the vault file's tool"))
    return parser


def _migrate(_arguments: argparse.Namespace) -> int:
    done = upgrade(Database(config.database_url(), name="mazevault-migrate"), config.release_schema())
    print(f"migrations run: {done or 'none'}")
    return 0


def _seed(arguments: argparse.Namespace) -> int:
    counts = seed.run(size=arguments.size, seed=arguments.seed, token_file=arguments.token_file)
    print(json.dumps({"token_file": str(arguments.token_file.resolve()), "rows": counts}, indent=2))
    return 0


def _verify_audit(_arguments: argparse.Namespace) -> int:
    with closing(connect(config.database_url(), "mazevault-verify")) as connection:
        verdict = audit.verify(connection)
    if verdict.broken_id is None:
        print(f"audit chain intact: {verdict.events} events, head {verdict.head}")
        return 0
    print(f"audit chain broken at event {verdict.broken_id}, after {verdict.events} good events", file=sys.stderr)
    return 1


def _verify_secrets(arguments: argparse.Namespace) -> int:
    keyring = Keyring(config.master_key())
    with closing(connect(config.database_url(), "mazevault-verify")) as connection:
        tally = secret_store.verify(connection, keyring, all_versions=arguments.all_versions)
    print(f"decrypted {tally.decrypted}, failed {len(tally.failed_ids)}")
    if tally.failed_ids:
        print(f"failed ids, the first ten: {tally.failed_ids[:10]}", file=sys.stderr)
    return 1 if tally.failed_ids else 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "api": lambda _arguments: api.run(),
    "ocsp": lambda _arguments: ocsp.run(),
    "migrate": _migrate,
    "seed": _seed,
    "verify-audit": _verify_audit,
    "verify-secrets": _verify_secrets,
    "vault-tool": vault_tool.run,
}


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(name)s %(message)s")
    try:
        return COMMANDS[arguments.command](arguments)
    except StandinError as error:
        print(f"mazevault_standin: {error}", file=sys.stderr)
        return error.exit_code
    except psycopg2.Error as error:
        print(f"mazevault_standin: the database refused: {first_line(error)}", file=sys.stderr)
        return DatabaseUnavailable.exit_code


if __name__ == "__main__":
    sys.exit(main())
