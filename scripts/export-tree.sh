#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Writes what "git archive" would pack, uncommitted work included, into a new folder: export-tree.sh FOLDER
set -euo pipefail

mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
top=$PWD

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/objects"

# A checkout may belong to somebody else than the one who tests it.
git() { command git -c safe.directory="$top" "$@"; }

# An index and an object store of our own: the repository is only read.
objects=$(git rev-parse --path-format=absolute --git-path objects)
export GIT_INDEX_FILE="$scratch/index" GIT_OBJECT_DIRECTORY="$scratch/objects" GIT_ALTERNATE_OBJECT_DIRECTORIES="$objects"
git add --all .
git archive "$(git write-tree)" | tar -x -C "$folder"
