# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""escrow, killed or out of space at each step: what is at a place is whole, nothing is lost, the next run heals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.escrow_site import Site, made_site
from support.flow import sample
from support.modules import run_module

STEPS = (
    "generation",
    "encrypt",
    "seal secrets.vault",
    "seal .env",
    "prove",
    "publish",
    "mark vault",
    "copy vault",
    "mark key",
    "copy key",
    "enter",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    return made_site(tmp_path, "cms")


def whole(site: Site) -> list[str]:
    """Generations whose key and vault both open from the places, by stock tools; a half bundle is an error."""
    found: dict[str, list[str]] = {"vault": [], "key": []}
    for half, begin, who in (("vault", "secrets.vault.", "vault-b"), ("key", "vault.key.", "key-a")):
        for path in site.copies(half, begin):
            if ".tmp" in path.name:
                continue
            opened = site.open(path, who)
            assert opened is not None, f"{path} doesn't open"
            found[half].append(json.loads(opened["generation.json"])["generation"])
    return [generation for generation in found["vault"] if generation in found["key"]]


def in_memory() -> set[str]:
    """Folders of runs that are dead, on file systems in memory: they may hold keys."""
    found = {path for place in ("/run", "/dev/shm") for path in Path(place).glob("mazevault-*-of-*")}
    return {str(path) for path in found if not Path("/proc", path.name.split("-of-")[1].split("-")[0]).exists()}


DISKS = [("root", 0), ("root", 1), ("place-vault", 0), ("place-key", 2)]


@pytest.mark.parametrize("step", sample(STEPS, 3))
def test_killed_at_each_step(site: Site, step: str) -> None:
    first = site.keep()["generation"] if not step.startswith("mark") else ""
    if first:
        site.rotate()
    killed = run_module("escrow", site.params(), kill=(step, "self"))
    assert bool(in_memory()) == (step in ("seal secrets.vault", "seal .env"))
    assert killed.rc == -9, f"{step} wasn't entered"
    assert first in whole(site) if first else whole(site) == []
    told = site.keep()
    assert told["verdict"] == "pass"
    assert whole(site) == [one for one in (first, told["generation"]) if one]
    assert told["generations"] == whole(site), "one generation each, however often it was tried"
    again = site.keep()
    assert (again["changed"], again["verdict"]) == (False, "pass")
    left = [path.name for top in (site.root, site.top) for path in top.rglob("*") if ".tmp" in path.name]
    left += [path.name for path in (site.root / "escrow").iterdir() if path.name.endswith(".new")]
    assert left == []
    assert in_memory() == set()


@pytest.mark.parametrize(("where", "files"), sample(DISKS, 2))
def test_a_full_disk(site: Site, where: str, files: int) -> None:
    first = site.keep()["generation"]
    site.rotate()
    full = run_module("escrow", site.params(), hooks=[("full_disk", {"folder": f"{site.top / where}/", "left": files})])
    if where == "root":
        assert full.rc == 1
        assert "No space left on device" in full.result["msg"]
    else:
        assert (full.rc, full.result["verdict"]) == (0, "fail")
        other = "key" if where == "place-vault" else "vault"
        assert len(site.copies(other, {"key": "vault.key.", "vault": "secrets.vault."}[other])) == 2
    assert first in whole(site)
    told = site.keep()
    assert told["verdict"] == "pass"
    assert whole(site) == [first, told["generation"]]
    assert not site.keep()["changed"]
