#!/bin/sh
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
exec env PYTHONPATH=/usr/local/lib/podman-compose python3 -m podman_compose "$@"
