# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The witness: its book, other people's knowledge of it (syslog, time stamps), and what a person may accept."""

from __future__ import annotations

import base64
import datetime as dt
import http.server
import json
import shutil
import socket
import stat
import subprocess
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_sets import Site, what_is_seen
from support.flow import HOSTNAME
from support.modules import run_module

TSA_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[stamper]
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = own
[own]
serial = {folder}/serial
signer_cert = {folder}/tsa.crt
certs = {folder}/ca.crt
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def book(site: Site) -> Path:
    return site.witness / f"{HOSTNAME}.jsonl"


def openssl(folder: Path, *args: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, args)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(lines: int = 1, **facts: t.Any) -> dict[str, t.Any]:
    """Something to see, without a backup root."""
    words = ("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    private = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    key = subprocess.run(
        ("openssl", "pkey", "-pubout"), input=private, capture_output=True, text=True, check=True
    ).stdout
    now = dt.datetime.now(dt.timezone.utc).isoformat().replace("+00:00", "Z")
    return {"ledger_head": f"{lines:064d}", "ledger_lines": lines, "host_key": key, "host_time": now, **facts}


def look(site: Site, what: dict[str, t.Any], *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
    return site.module("recovery_set_witness", check=check, installation=HOSTNAME, seen=what, **params)


def test_openssl_and_sha256sum_agree_with_the_book(site: Site, tmp_path: Path) -> None:
    """Whoever gets the book needs nothing of ours to check it."""
    sealed = site.publish()
    done = site.witnessed(sealed)
    site.witnessed(site.publish())
    assert (done["verdict"], done["changed"], done["book"]) == ("pass", False, str(book(site)))
    texts = book(site).read_text(encoding="utf-8").splitlines()
    previous = "0" * 64
    for text in texts:
        line = json.loads(text)
        assert line["previous"] == previous
        previous = subprocess.run(["sha256sum"], input=text, capture_output=True, text=True, check=True).stdout[:64]
        (tmp_path / "signature").write_bytes(base64.b64decode(line.pop("signature")))
        plain = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        (tmp_path / "line").write_text(plain, encoding="utf-8")
        verify = ("dgst", "-sha384", "-verify", site.witness / "witness.pub", "-signature", "signature", "line")
        assert openssl(tmp_path, *verify) == "Verified OK\n"
    first = json.loads(texts[0])
    assert first["sums_sha256"] == sealed["sums_sha256"]
    assert (first["ledger_head"], first["ledger_lines"]) == (sealed["ledger_head"], sealed["ledger_lines"])
    assert first["host_time"] == sealed["host_time"] and first["at"] >= sealed["host_time"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (site.witness, book(site), site.witness / "witness.key")]
    assert modes == [0o700, 0o600, 0o600]


def test_check_mode_and_reading_leave_nothing(site: Site) -> None:
    what = seen()
    assert look(site, what, check=True)["verdict"] == "pass"
    read = site.module("recovery_set_witness", installation=HOSTNAME, state="read")
    assert (read["verdict"], read["testimony"]["points"]) == ("unproven", [])
    assert not site.witness.exists()
    look(site, what)
    before = book(site).read_bytes()
    look(site, what, check=True)
    site.module("recovery_set_witness", installation=HOSTNAME, state="read")
    assert book(site).read_bytes() == before


@pytest.mark.parametrize(("offset", "verdict"), [(0, "pass"), (-55, "pass"), (-65, "unproven"), (65, "unproven")])
def test_a_clock_that_differs_is_recorded(site: Site, offset: int, verdict: str) -> None:
    sealed = site.publish()
    time = dt.datetime.fromisoformat(sealed["host_time"].replace("Z", "+00:00")) + dt.timedelta(seconds=offset)
    done = site.witnessed({**sealed, "host_time": time.isoformat()})
    assert done["verdict"] == verdict
    assert abs(done["skew_seconds"] - offset) < 5
    line = json.loads(book(site).read_text(encoding="utf-8"))
    assert (line["time"], line["verdict"]) == (verdict, verdict)
    checks = {check["name"]: check["verdict"] for check in site.verify(site.testimony())["checks"]}
    assert checks.pop("time") == verdict
    assert set(checks.values()) == {"pass"}


def test_a_torn_line_is_cut_off_and_that_is_said(site: Site) -> None:
    what = seen(1)
    look(site, what)
    whole = book(site).read_bytes()
    look(site, {**what, "ledger_lines": 2})
    book(site).write_bytes(book(site).read_bytes()[: len(whole) + 40])
    look(site, {**what, "ledger_lines": 3})
    events = [json.loads(line)["event"] for line in book(site).read_text(encoding="utf-8").splitlines()]
    assert events == ["witnessed", "healed", "witnessed"]
    assert site.testimony()["problem"] == ""


@pytest.mark.parametrize("how", ["edited", "removed", "edited at the end"])
def test_a_changed_book_gets_no_line_more(site: Site, how: str) -> None:
    what = seen(1)
    for number in range(3):
        look(site, {**what, "ledger_lines": number})
    lines = book(site).read_bytes().splitlines(keepends=True)
    if how == "removed":
        lines = [lines[0], lines[2]]
    else:
        place = 1 if how == "edited" else 2
        lines[place] = lines[place].replace(b'"ledger_lines":', b'"ledger_lines":9')
    book(site).write_bytes(b"".join(lines))
    before = book(site).read_bytes()
    done = look(site, {**what, "ledger_lines": 5})
    assert (done["verdict"], done["line"]) == ("fail", None)
    assert done["checks"][0]["name"] == "book"
    assert book(site).read_bytes() == before


@pytest.mark.parametrize(
    ("then", "name"),
    [
        ({"ledger_lines": 4}, "ledger"),
        ({"ledger_head": "f" * 64}, "ledger"),
        ({"set_id": "mazevault_20261123_020000", "sums_sha256": "b" * 64, "set_sequence": 3}, "set"),
        ({"set_id": "mazevault_20261124_020000", "sums_sha256": "b" * 64, "set_sequence": 3}, "set"),
    ],
)
def test_what_contradicts_the_past_fails_at_once(site: Site, then: dict[str, t.Any], name: str) -> None:
    past = seen(5, set_id="mazevault_20261123_020000", sums_sha256="a" * 64, set_sequence=3)
    look(site, past)
    assert look(site, past)["verdict"] == "pass", "the control: the same again"
    done = look(site, {**past, **then})
    assert done["verdict"] == "fail"
    assert [check["name"] for check in done["checks"] if check["verdict"] == "fail"] == [name]


def test_another_key_of_the_host_fails_until_it_is_accepted(site: Site) -> None:
    look(site, seen(1))
    other = seen(2)
    assert "another key" in look(site, other)["summary"]
    accept = {"state": "accepted", "by": "A. Person", "reason": "the host was made anew"}
    refused = site.try_module("recovery_set_witness", installation=HOSTNAME, seen=other, **accept)
    assert refused.rc and "confirm" in refused.result["msg"]
    look(site, other, confirm=HOSTNAME, **accept)
    assert look(site, {**other, "ledger_lines": 3})["verdict"] == "pass"
    line = json.loads(book(site).read_text(encoding="utf-8").splitlines()[2])
    assert (line["event"], line["by"], line["reason"]) == ("accepted", "A. Person", "the host was made anew")


def test_what_a_person_accepts_is_where_the_comparison_begins(site: Site) -> None:
    for number in range(2):
        site.witnessed(site.publish(b"%d" % number))
    # The disk died; a copy of the first set came back, without a ledger.
    shutil.rmtree(site.sets()[1])
    site.ledger.unlink()
    site.witnessed(site.publish(b"new"))
    found = site.verify(site.testimony())
    assert found["verdict"] == "fail"
    person = {"by": "A. Person", "reason": "disk replaced", "confirm": HOSTNAME}
    site.module("ledger_verify", state="accepted", inventory_hostname=HOSTNAME, **person)
    seen_now = {key: value for key, value in site.verify()["ledger"].items() if value}
    site.module("recovery_set_witness", state="accepted", installation=HOSTNAME, seen=seen_now, **person)
    found = site.verify(site.testimony())
    assert found["verdict"] == "pass", found["checks"]
    # What was accepted is what was there: a set that is changed afterwards is found.
    (site.sets()[0] / "SHA256SUMS").write_text("x", encoding="utf-8")
    assert site.verify(site.testimony())["verdict"] == "fail"


def test_a_broken_ledger_doesnt_stop_a_backup(site: Site) -> None:
    site.witnessed(site.publish(b"first"))
    site.ledger.write_bytes(site.ledger.read_bytes().replace(b"verdict", b"verdikt") + b"{}\n")
    found = site.verify(site.testimony())
    assert found["verdict"] == "fail"
    assert "ledger chain" in {check["name"] for check in found["checks"] if check["verdict"] == "fail"}
    opened = site.module("recovery_set", state="open")
    assert opened["ledger_set_aside"] == "line 2 doesn't follow from the line before it"
    site.module("recovery_set", state="aborted", set_id=opened["set_id"])
    site.publish(b"second")
    listed = {entry["sequence"]: entry["verdict"] for entry in site.module("recovery_set_info")["sets"]}
    assert listed == {1: "unproven", 2: "pass"}
    assert len(list(site.root.glob("ledger.broken.*.jsonl"))) == 1


def test_an_installation_cant_lead_elsewhere(site: Site) -> None:
    for name in ("../x", "a/b", ".hidden", ""):
        done = run_module("recovery_set_witness", {"folder": str(site.witness), "installation": name, "state": "read"})
        assert done.rc and "installation:" in done.result["msg"]


# others who know


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_syslog_gets_the_line_in_short(site: Site, tmp_path: Path, kind: str) -> None:
    family, address = (socket.AF_INET, ("127.0.0.1", 0)) if kind == "udp" else (socket.AF_UNIX, str(tmp_path / "log"))
    with socket.socket(family, socket.SOCK_DGRAM) as log:
        log.bind(address)
        log.settimeout(10)
        where = f"127.0.0.1:{log.getsockname()[1]}" if kind == "udp" else str(tmp_path / "log")
        sealed = site.publish()
        done = site.witnessed(sealed, syslog=where)
        message = log.recv(65536).decode()
    assert done["syslog"] == "sent"
    assert message.startswith("<") and "mazevault.backup witness: witnessed" in message
    for word in (sealed["set_id"], sealed["sums_sha256"], sealed["ledger_head"], done["line"]["sha256"]):
        assert word in message
    assert len(message) < 1024


def test_a_dead_syslog_loses_no_backup(site: Site, tmp_path: Path) -> None:
    done = look(site, seen(), syslog=str(tmp_path / "nobody"))
    assert done["line"] and done["verdict"] == "pass"
    assert done["syslog"].startswith(f"syslog: {tmp_path}/nobody: ")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A time stamp authority by openssl behind HTTP: (address, folder with its certificates)."""
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "tsa.cnf").write_text(TSA_CONFIG.format(folder=folder), encoding="utf-8")
    (folder / "serial").write_text("01\n", encoding="utf-8")
    new = ("req", "-config", "tsa.cnf", "-newkey", "rsa:2048", "-nodes", "-subj")
    openssl(folder, *new, "/CN=ca", "-x509", "-extensions", "authority", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(folder, *new, "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr")
    sign = ("x509", "-req", "-in", "tsa.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tsa.crt")
    openssl(folder, *sign, "-extfile", "tsa.cnf", "-extensions", "stamper")
    openssl(folder, *new, "/CN=other", "-x509", "-extensions", "authority", "-keyout", "o.key", "-out", "other.crt")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = folder / "query"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            openssl(folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", query, "-out", "reply")
            data = b"no stamp" if self.path == "/broken" else (folder / "reply").read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: t.Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def test_a_time_stamp_is_kept_and_verified(site: Site, authority: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = authority
    done = look(site, seen(), tsa_url=url, tsa_ca=str(folder / "ca.crt"))
    stamp = done["time_stamp"]
    assert (stamp["verdict"], stamp["reason"]) == ("pass", "")
    assert "GMT" in stamp["time"]
    # By hand, with nothing but the book and the reply.
    (tmp_path / "line").write_text(book(site).read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    verify = ("ts", "-verify", "-data", "line", "-in", stamp["file"], "-CAfile", folder / "ca.crt")
    assert "Verification: OK" in openssl(tmp_path, *verify)
    events = [json.loads(line)["event"] for line in book(site).read_text(encoding="utf-8").splitlines()]
    assert events == ["witnessed", "time stamp"]
    assert site.testimony()["problem"] == ""


@pytest.mark.parametrize("case", ["another authority", "no certificates", "no reply", "nonsense"])
def test_a_stamp_that_proves_nothing_is_unproven(site: Site, authority: tuple[str, Path], case: str) -> None:
    url, folder = authority
    ca = {"another authority": str(folder / "other.crt"), "no certificates": None}.get(case, str(folder / "ca.crt"))
    address = {"no reply": "http://127.0.0.1:9", "nonsense": f"{url}/broken"}.get(case, url)
    done = look(site, seen(), tsa_url=address, tsa_ca=ca)
    assert done["line"] and done["verdict"] == "pass", "the line stands without it"
    assert done["time_stamp"]["verdict"] == "unproven" and done["time_stamp"]["reason"]


def test_what_the_host_reports_is_what_its_witness_keeps(site: Site) -> None:
    sealed = site.publish()
    assert what_is_seen(sealed)["ledger_lines"] == len(site.ledger.read_text(encoding="utf-8").splitlines())
    last = site.ledger.read_text(encoding="utf-8").splitlines()[-1]
    shown = subprocess.run(["sha256sum"], input=last, capture_output=True, text=True, check=True).stdout.split()[0]
    assert sealed["ledger_head"] == shown
