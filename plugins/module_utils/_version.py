# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The collection's version, for manifests; a test holds it against galaxy.yml."""

COLLECTION_VERSION = "0.1.0"
