# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""check_host.yml tries a backup on a host, says under which conditions, and leaves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from lab.site import POSTGRES, ROOT, Site

NAME = "mv-site-b"


@pytest.fixture(scope="module")
def target(site: Callable[[str], Site]) -> Site:
    found = site(NAME)
    found.tidy()
    return found


def seen(site: Site) -> tuple[list[str], list[str]]:
    """Files of the installation, and of its backups."""
    return sorted(site.shell("find /opt/mazevault -printf '%p %y %m %T@\\n'").splitlines()), site.backups()


def differing(one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]) -> set[str]:
    """But for the time of the folder that the trial was in."""
    changed = {*one[0], *one[1]} ^ {*other[0], *other[1]}
    return {line for line in changed if not re.match(r"/opt/mazevault d ", line)}


@pytest.mark.parametrize("arguments", [("--check",), ()], ids=["preview", "run"])
def test_a_host_on_which_it_works(target: Site, arguments: tuple[str, ...]) -> None:
    before = seen(target)
    done = target.play("check_host", *arguments)
    assert done.rc == 0, done.output
    assert differing(before, seen(target)) == set()
    assert target.leftovers() == []
    version = re.escape(target.shell("docker version --format '{{.Server.Version}}'").strip())
    for shown in (r"System +Debian 12\.", "SELinux +disabled", "FIPS mode +off", f"Engine +docker {version}"):
        assert re.search(shown, done.output), shown
    proven = "not tried in check mode" if arguments else "pass: proven to level restore"
    assert re.search(f"Backup +{proven}", done.output)


def test_a_host_on_which_it_fails(target: Site) -> None:
    before = seen(target)
    target.shell(f"docker pause {POSTGRES}")
    try:
        done = target.play("check_host")
    finally:
        target.shell(f"docker unpause {POSTGRES}")
    assert done.rc == 2
    assert "The check failed at 'Postgres | Dump the database'" in done.failures[-1].msg
    assert re.search("Backup +failed", done.output)
    assert differing(before, seen(target)) == set()
    assert target.leftovers() == []


def test_the_place_of_the_backups_is_never_removed(target: Site) -> None:
    target.shell(f"install -d -m 0700 {ROOT} && touch {ROOT}/kept")
    done = target.play("check_host", mazevault_backup_root=ROOT)
    assert done.rc == 2
    assert f"mazevault_backup_root: {ROOT}: can't be chosen here" in done.failures[-1].msg
    assert target.shell(f"ls {ROOT}/kept").strip() == f"{ROOT}/kept"
    target.tidy()
