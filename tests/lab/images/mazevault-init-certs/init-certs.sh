#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Fills the volume of certificates once: the site's own ones where it brought some, otherwise new ones of an own authority.
set -euo pipefail

certs=/certs custom=/custom-certs
[[ ! -s $certs/server.crt ]] || { echo "init-certs: there are certificates already"; exit 0; }

umask 077
if [[ -s $custom/server.crt && -s $custom/server.key ]]; then
    cp "$custom/server.crt" "$custom/server.key" "$certs/"
    cp "$custom/ca.crt" "$certs/ca.crt" 2>/dev/null || cp "$certs/server.crt" "$certs/ca.crt"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${new_key[@]}" -keyout "$work/ca.key" -out "$work/ca.crt" -days 3650 \
        -subj "/O=MazeVault stand-in/CN=Installation CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
    openssl req "${new_key[@]}" -keyout "$work/server.key" -out "$work/server.csr" -subj "/CN=mazevault" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "${CERT_NAMES:-DNS:localhost}" >"$work/extensions"
    openssl x509 -req -in "$work/server.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial \
        -days 825 -extfile "$work/extensions" -out "$work/server.crt" 2>/dev/null
    cp "$work/server.crt" "$work/server.key" "$work/ca.crt" "$certs/"
fi
cp "$certs/ca.crt" "$certs/ca-bundle.crt"
chown 70:70 "$certs/server.key"
chmod 0600 "$certs/server.key"
chmod 0644 "$certs/"*.crt
echo "init-certs: done"
