# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A medium that lies in a deposit box most of the time."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

from support.escrow_site import Site, made_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    return made_site(tmp_path, "cms")


def test_a_medium_is_asked_for_when_it_lacks_something(site: Site) -> None:
    stick, box = site.top / "stick", site.top / "box"
    stick.mkdir(mode=0o700)
    places = {
        "places_key": [str(site.place("key")), str(stick)],
        "offline_places": [str(stick)],
    }

    def keep(**more: t.Any) -> tuple[str, str]:
        told = site.keep(**places, **more)
        return told["verdict"], "; ".join(check["reason"] for check in told["checks"] if check["verdict"] != "pass")

    assert keep() == ("pass", "")
    stick.rename(box)
    assert keep() == ("pass", "")
    # An empty folder where it would be mounted is no medium, and nothing is written there.
    stick.mkdir()
    assert keep() == ("pass", "")
    assert list(stick.iterdir()) == []
    assert keep(offline_days=0.0000001) == ("unproven", f"it isn't plugged in, and was last looked at on {today(site)}")
    first = [line["generation"] for line in ledger(site) if line["event"] == "escrow made"]
    site.rotate()
    verdict, why = keep()
    second = [line["generation"] for line in ledger(site) if line["event"] == "escrow made"][-1]
    assert verdict == "unproven"
    assert f"lacks {second}: plug it in" in why and first[0] not in why
    stick.rmdir()
    box.rename(stick)
    assert keep() == ("pass", "")
    assert len([path for path in stick.iterdir() if path.name.startswith("vault.key.")]) == 2
    # One that was never here is missing, not away; and one with another mark is no medium of ours.
    never = {"places_key": [str(site.top / "never")], "offline_places": [str(site.top / "never")]}
    assert site.keep(**never)["verdict"] == "fail"
    mark = stick / ".mazevault-escrow.json"
    mark.write_text(mark.read_text().replace('"key"', '"vault"'))
    assert keep()[0] == "fail"


def ledger(site: Site) -> list[dict[str, t.Any]]:
    return [json.loads(line) for line in (site.root / "ledger.jsonl").read_text().splitlines()]


def today(site: Site) -> str:
    return str([line["at"] for line in ledger(site) if line["event"] == "escrow arrived"][-1])[:10]
