#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes a virtual environment anew: make-venv.sh FOLDER REQUIREMENTS
set -euo pipefail

folder=$1 requirements=$2
python=${PYTHON:-python3}

die() {
    printf 'make-venv: %s\n' "$*" >&2
    exit 1
}

command -v "$python" >/dev/null || die "no $python here; install Python 3.11 or newer."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or newer is needed, $python is $("$python" -c 'import platform; print(platform.python_version())'); name another one with PYTHON=, as in: make demo PYTHON=python3.12"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    [[ -e /etc/debian_version ]] || die "$python can't make virtual environments; install its modules venv and ensurepip."
    [[ $EUID -eq 0 ]] || die "$python can't make virtual environments; run as root: apt-get install $package"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
fi

echo "Making $folder from $requirements"
"$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --requirement "$requirements"
