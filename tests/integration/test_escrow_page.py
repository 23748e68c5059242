# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages beside a medium: what is typed from them works with stock tools, and what is read from them compares."""

from __future__ import annotations

import hashlib
import html.parser
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import zxingcpp

from support.escrow_site import Site, made_site
from support.modules import run_module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
        found = made_site(tmp_path_factory.mktemp("page"), "cms")
        found.keep()
        found.rotate()
        found.keep()
        yield found


def bundles(site: Site, *names: str) -> dict[str, t.Any]:
    params = {"backup_root": str(site.root), "signing_key": str(site.top / "signing/host.key")}
    done = run_module("escrow_bundles", {**params, "names_key": list(names)})
    assert done.rc == 0, done.result
    return done.result


def pages(site: Site, folder: Path, **more: t.Any) -> dict[str, t.Any]:
    given = bundles(site)
    params = {"folder": str(folder), "installation": "prague", "indexes": given["indexes"]}
    done = run_module("escrow_page", {**params, "host_key": given["host_key"], **more})
    assert done.rc == 0, done.result
    return done.result


def test_what_the_page_says_is_what_the_tools_say(site: Site, tmp_path: Path) -> None:
    first = pages(site, tmp_path)
    assert first["changed"] and len(first["pages"]) == 4
    assert not pages(site, tmp_path)["changed"]
    for half, other in (("vault", "key"), ("key", "vault")):
        text = (tmp_path / f"prague-escrow-{half}.txt").read_text()
        secret = [one for one in site.secrets if one in text]
        assert not secret
        files = [path for path in site.place(half).iterdir() if re.match(r"secrets|vault|maze", path.name)]
        assert len(files) == (2 if half == "vault" else 4)
        for path in files:
            # The command of the page, and two lines of eight groups.
            words = f"sha256sum {path} | cut -c1-64 | fold -w4 | paste -sd' '"
            assert words.replace(str(path), "FILE") in text
            groups = subprocess.run(["sh", "-c", words], capture_output=True, check=True, encoding="ascii").stdout
            shown = text.partition(path.name)[2].split("\n")[2:4]
            assert " ".join(line.strip() for line in shown) == groups.strip()
            assert f"{path.stat().st_size} bytes" in text.partition(path.name)[2].split("\n")[0]
        assert not [path.name for path in site.place(other).iterdir() if re.match(r"secrets|vault|maze", path.name)
                    and path.name in text]  # fmt: skip
        assert all(generation["generation"] in text for generation in bundles(site)["indexes"])
        assert (site.top / "signing/host.pub").read_text().strip() in text
        counted = re.search(r"head -n (\d+) THIS_FILE", text)
        assert counted is not None
        lines = text.splitlines(keepends=True)
        digest = hashlib.sha256("".join(lines[: int(counted[1])]).encode()).hexdigest()
        assert "".join(re.findall(r"[0-9a-f]{4}", "".join(lines[int(counted[1]) + 1 :]))) == digest


def test_the_command_of_the_page_opens_a_copy(site: Site, tmp_path: Path) -> None:
    pages(site, tmp_path)
    text = (tmp_path / "prague-escrow-key.txt").read_text()
    [command] = re.findall(r"^  (openssl cms .*)$", text, re.MULTILINE)
    newest = site.copies("key", "vault.key.")[-1]
    words = command.replace("FILE", str(newest)).replace("IDENTITY", str(site.people["key-b"].private))
    (tmp_path / "opened").mkdir()
    subprocess.run(["sh", "-euc", words], cwd=tmp_path / "opened", check=True)
    assert (tmp_path / "opened/vault.key").read_bytes() == (site.top / "home/vault.key").read_bytes()


class Loads(html.parser.HTMLParser):
    """What a browser would fetch."""

    found: t.ClassVar[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert tag not in ("script", "link", "iframe", "img")


def test_the_html_needs_nothing_else(site: Site, tmp_path: Path) -> None:
    pages(site, tmp_path)
    for half in ("vault", "key"):
        page = (tmp_path / f"prague-escrow-{half}.html").read_text()
        Loads().feed(page)
        assert Loads.found == [] and "url(" not in page and "@import" not in page
        text = html.unescape(page.partition("<pre>")[2].partition("</pre>")[0])
        assert text == (tmp_path / f"prague-escrow-{half}.txt").read_text()


def test_the_codes_are_the_file(site: Site, tmp_path: Path) -> None:
    newest = site.copies("key", "vault.key.")[-1]
    coded = bundles(site, newest.name)["contents"]["key"]
    told = pages(site, tmp_path, codes=coded)
    assert 1 < told["codes"] < 12
    pictures = re.findall(r"<svg.*?</svg>", (tmp_path / "prague-escrow-key.html").read_text(), re.DOTALL)
    assert len(pictures) == told["codes"]
    assert "<svg" not in (tmp_path / "prague-escrow-vault.html").read_text()
    scanned = tmp_path / "scanned.txt"
    scanned.write_text("".join(read_code(picture) for picture in pictures))
    words = f"grep -v '^MZV ' {scanned} | base64 -d"
    assert subprocess.run(["sh", "-euc", words], capture_output=True, check=True).stdout == newest.read_bytes()


def read_code(picture: str) -> str:
    """By a reader that has never seen the library that drew it."""
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture)
    path = re.search(r' d="([^"]+)"', picture)
    assert size is not None and path is not None
    wide, scale = int(size[1]), 4
    dots = [bytearray(b"\xff" * wide) for _row in range(wide)]
    x = y = 0.0
    for verb, numbers in re.findall(r"([Mmh])([^Mmh]*)", path[1]):
        values = [float(number) for number in re.findall(r"-?\d*\.?\d+", numbers)]
        if verb == "h":
            dots[int(y)][int(x) : int(x + values[0])] = bytes(int(values[0]))
            x += values[0]
        else:
            x, y = (values[0], values[1]) if verb == "M" else (x + values[0], y + values[1])
    rows = [bytes(dot for dot in row for _time in range(scale)) for row in dots for _time in range(scale)]
    image = memoryview(b"".join(rows)).cast("B", (wide * scale, wide * scale))
    # In so many dots there is now and then what looks like another kind of code.
    [found] = zxingcpp.read_barcodes(image, formats=zxingcpp.BarcodeFormat.QRCode)
    return str(found.text)


def test_without_the_library_the_error_says_how_to_get_it(site: Site, tmp_path: Path) -> None:
    coded = bundles(site, site.copies("key", "vault.key.")[-1].name)["contents"]["key"]
    params = {"folder": str(tmp_path), "installation": "prague", "indexes": bundles(site)["indexes"], "codes": coded}
    done = run_module("escrow_page", params, hooks=[("without_package", {"name": "segno"})])
    assert done.rc == 1
    assert "-m pip install segno" in done.result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_print_is_an_error(tmp_path: Path) -> None:
    done = run_module("escrow_page", {"folder": str(tmp_path / "x"), "installation": "prague", "indexes": []})
    assert done.rc == 1 and "nothing of prague is in escrow" in done.result["msg"]
    assert not (tmp_path / "x").exists()
