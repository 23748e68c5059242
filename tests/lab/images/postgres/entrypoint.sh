#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Starts PostgreSQL as the official image does: POSTGRES_USER becomes the bootstrap superuser (there is no role postgres
# when it has another name), 127.0.0.1 and the socket are trusted, other addresses want the password, and a temporary
# server that only listens on the socket makes the database first.
set -euo pipefail

[[ ${1:-} == postgres ]] || exec "$@"

if [[ $EUID -eq 0 ]]; then
    install -d -o postgres -g postgres -m 0700 "$PGDATA"
    install -d -o postgres -g postgres -m 3777 /run/postgresql
    find "$PGDATA" \! -user postgres -exec chown postgres {} +
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    [[ -n ${POSTGRES_PASSWORD:-} ]] || { echo "POSTGRES_PASSWORD is not set" >&2; exit 1; }
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth=trust
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    if [[ $database != postgres ]]; then
        psql -X --username="$user" --dbname=postgres --set=ON_ERROR_STOP=1 --set=name="$database" \
            <<<'CREATE DATABASE :"name"'
    fi
    pg_ctl --wait --mode=fast stop
fi
exec "$@"
