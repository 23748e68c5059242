#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Style, types, licence headers, and the project's own habits. Runs everything, then fails if anything failed.
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/test/bin:$PATH
mkdir -p .venv/cache

# ansible-lint must see this checkout and nothing that was installed on this machine.
export ANSIBLE_HOME ANSIBLE_COLLECTIONS_PATH=$PWD/playbooks/collections
ANSIBLE_HOME=$(mktemp -d)
trap 'rm -rf "$ANSIBLE_HOME"' EXIT

failed=()
check() {
    printf -- '-- %s\n' "$*"
    "$@" || failed+=("$*")
}

check ruff check --quiet --output-format concise
check ruff format --check --quiet --output-format concise
check mypy
check vermin --quiet --no-tips --eval-annotations --violations --target=3.9- plugins
check yamllint --strict .
check ansible-lint --offline -q
check python scripts/check_habits.py
check reuse lint --lines
check antsibull-changelog lint

[[ ${#failed[@]} -eq 0 ]] || { printf 'lint: failed: %s\n' "${failed[@]}" >&2; exit 1; }
