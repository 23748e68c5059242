#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what the tests need beside Python, or the packages named, as root on Debian; elsewhere says what is missing.
set -euo pipefail

export PATH=$PATH:/usr/sbin:/sbin

indispensable=("$@") useful=()
if [[ $# -eq 0 ]]; then
    command -v zstd >/dev/null || indispensable+=(zstd)
    command -v openssl >/dev/null || indispensable+=(openssl)
    command -v age >/dev/null || useful+=(age)
    command -v strace >/dev/null || useful+=(strace)
    command -v shellcheck >/dev/null || useful+=(shellcheck)
    # Gets another Debian's openssl, for the tests of FIPS mode.
    [[ ! -e /etc/debian_version ]] || command -v mmdebstrap >/dev/null || useful+=(mmdebstrap)
    [[ -x /usr/lib/postgresql/15/bin/postgres || -x /usr/pgsql-15/bin/postgres ]] || useful+=(postgresql-15)
fi

missing=("${indispensable[@]}" "${useful[@]}")
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ ! -e /etc/debian_version || $EUID -ne 0 ]]; then
    echo "Missing on this machine: ${missing[*]}"
    [[ ${#useful[@]} -eq 0 ]] || echo "Without ${useful[*]} the tests run on fewer versions or check less; they say so."
    [[ ${#indispensable[@]} -eq 0 ]] || { echo "It doesn't work without: ${indispensable[*]}" >&2; exit 1; }
    exit 0
fi

echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install_packages() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

apt-get update -qq
if [[ " ${missing[*]} " == *" postgresql-15 "* ]]; then
    # Only the programs: the package would start a server of its own.
    install_packages postgresql-common
    drop_in=/etc/postgresql-common/createcluster.d/no-cluster-for-tests.conf
    trap 'rm -f "$drop_in"' EXIT
    mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' >"$drop_in"
fi
install_packages "${missing[@]}"
