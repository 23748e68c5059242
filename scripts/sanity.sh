#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs all of ansible-test's sanity tests on an export of the tree, in a home of their own.
set -euo pipefail

cd "$(dirname "$0")/.."
bin=$PWD/.venv/test/bin
old_home=$HOME

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
collection=$scratch/ansible_collections/mazevault/backup
export HOME=$scratch/home ANSIBLE_HOME=$scratch/home/.ansible
mkdir -p "$HOME/.config/pip" "$HOME/.pip" "$HOME/.cache" "$ANSIBLE_HOME/test/cache"

scripts/export-tree.sh "$collection"
for ignored in "$collection"/tests/sanity/ignore*.txt; do
    [[ ! -e $ignored ]] || { echo "sanity: findings are mended, not ignored: remove tests/sanity/${ignored##*/}" >&2; exit 1; }
done

# ansible-test passes no environment on to pip, so the user's settings for it travel as files.
for conf in "$old_home/.pip/pip.conf" "$old_home/.config/pip/pip.conf" "${PIP_CONFIG_FILE:-}"; do
    [[ ! -f $conf ]] || cp "$conf" "$HOME/.pip/pip.conf"
done
{
    printf '[global]\nquiet = 1\n'
    env | sed -nE '/^PIP_(QUIET|CONFIG_FILE)=/d; s/^PIP_([A-Z_]+)=(.+)/\L\1\E = \2/p'
} >"$HOME/.config/pip/pip.conf"

# ansible-test fetches its pip from a site of its own unless this file is there; Python brings one along.
read -r python pip <<<"$("$bin/python" - <<'PY'
import platform
import types

from ansible_test._internal.python_requirements import get_venv_packages

version = ".".join(platform.python_version_tuple()[:2])
print(version, get_venv_packages(types.SimpleNamespace(version=version))["pip"])
PY
)"
cat >"$ANSIBLE_HOME/test/cache/get_pip_${pip//./_}.py" <<'PY'
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
PY

cd "$collection"
PATH="$bin:$PATH" ansible-test sanity --color no --venv --python "$python" --requirements "$@"
