# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe makes of an API's answers, from a small server that gives any answer."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
import time
import typing as t
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.modules import mazevault_probe as probe
from support.modules import Outcome, run_module

TOKEN = "mvt_canary_0123456789"
VALUE = "canary-of-a-secret-value"
Answer = tuple[int, t.Any] | tuple[int, t.Any, dict[str, str]]


@dataclass
class Site:
    """A server whose answers a test decides; it notes who asked."""

    answer: Callable[[str], Answer]
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _token in self.asked]


@contextmanager
def served(answer: Callable[[str], Answer], context: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Authorization")))
            status, body, *headers = site.answer(self.path)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers[0] if headers else {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: t.Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        site.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
        try:
            yield site
        finally:
            server.shutdown()


def vault(count: int = 3, **special: Answer) -> Callable[[str], Answer]:
    """A MazeVault with so many secrets; `special` answers by the path's last word."""

    def answer(path: str) -> Answer:
        address = urllib.parse.urlparse(path)
        word = address.path.rpartition("/")[2]
        if word in special:
            return special[word]
        if word == "health":
            return 200, {"status": "healthy", "version": "1.2.3"}
        if word == "secrets":
            query = dict(urllib.parse.parse_qsl(address.query))
            first = int(query["offset"])
            ids = range(first + 1, min(count, first + int(query["limit"])) + 1)
            return 200, {"data": [{"id": number} for number in ids], "total": count}
        return 200, {"id": int(word), "value": VALUE}

    return answer


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(f"{TOKEN}\n")
    return path


def ask(site: Site, token_file: Path | None, **params: t.Any) -> Outcome:
    given = {"api_url": site.url, "timeout": 0.1, **params}
    if token_file:
        given["token_file"] = str(token_file)
    outcome = run_module("mazevault_probe", given, check=bool(given.pop("check", False)))
    shown = json.dumps(outcome.result) + outcome.stderr
    assert TOKEN not in shown and VALUE not in shown
    assert "Traceback" not in shown
    return outcome


def test_every_secret_is_read_with_the_token(token_file: Path) -> None:
    with served(vault(130)) as site:
        found = ask(site, token_file).result
    assert (found["verdict"], found["secrets_total"], found["secrets_decrypted"]) == ("pass", 130, 130)
    assert (found["healthy"], found["app_version"], found["failures"]) == (True, "1.2.3", [])
    assert found["summary"] == "healthy, 130 of 130 secrets decrypt"
    assert {token for _path, token in site.asked} == {f"Bearer {TOKEN}"}
    assert sum(path.startswith("/api/v1/secrets/") for path in site.paths()) == 130


def test_a_sample_is_spread_and_leaves_the_rest_unproven(token_file: Path) -> None:
    with served(vault(100)) as site:
        found = ask(site, token_file, secrets="4").result
    assert (found["verdict"], found["secrets_total"], found["secrets_decrypted"]) == ("unproven", 100, 4)
    read = [path.rpartition("/")[2] for path in site.paths() if path.startswith("/api/v1/secrets/")]
    assert read == ["1", "26", "51", "76"]


def test_a_sample_of_more_than_all_is_all(token_file: Path) -> None:
    with served(vault(3)) as site:
        assert ask(site, token_file, secrets="99").result["verdict"] == "pass"


def test_no_secrets_prove_nothing(token_file: Path) -> None:
    with served(vault(0)) as site:
        assert ask(site, token_file).result["verdict"] == "unproven"


@pytest.mark.parametrize(
    "broken",
    [(500, {"error": "decrypt"}), (404, {}), (200, {"id": 2, "value": None}), (200, {"id": 2}), (200, [VALUE])],
)
def test_one_secret_that_does_not_decrypt_fails(token_file: Path, broken: Answer) -> None:
    with served(vault(3, **{"2": broken})) as site:
        found = ask(site, token_file).result
    assert (found["verdict"], found["secrets_decrypted"], found["failures"]) == ("fail", 2, [f"2: status {broken[0]}"])
    assert found["summary"] == "healthy, 2 of 3 secrets decrypt, 1 don't"


def test_without_a_token_only_the_health_is_asked_for() -> None:
    with served(vault()) as site:
        found = ask(site, None).result
    assert (found["verdict"], found["secrets_total"]) == ("unproven", None)
    assert site.asked == [("/api/v1/health", None)]


def test_a_preview_reads_no_secret(token_file: Path) -> None:
    with served(vault()) as site:
        found = ask(site, token_file, check=True).result
    assert (found["verdict"], site.paths()) == ("unproven", ["/api/v1/health"])


@pytest.mark.parametrize(
    "body", ["ok", "OK\n", "healthy", {"status": "ok"}, {"status": "Healthy", "components": {}}, '"ok"']
)
def test_healthy_has_several_spellings(body: t.Any) -> None:
    with served(vault(health=(200, body))) as site:
        assert ask(site, None).result["healthy"] is True


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, {"status": "unhealthy"}), "status 503 unhealthy"),
        ((200, {"status": "degraded"}), "status 200 degraded"),
        ((503, "ok"), "status 503"),
        ((200, "<html>ok</html>"), "status 200"),
        ((200, []), "status 200"),
    ],
)
def test_anything_else_is_not_healthy(answer: Answer, said: str) -> None:
    with served(vault(health=answer)) as site:
        found = ask(site, None).result
    assert (found["verdict"], found["healthy"]) == ("fail", False)
    assert found["summary"].endswith(f": {said}"), found["summary"]


def test_it_waits_until_the_application_is_up() -> None:
    begin = time.monotonic()
    with served(vault()) as site:
        healthy, starting = vault(), vault(health=(503, {"status": "starting"}))
        begin = time.monotonic() + 3

        def answer(path: str) -> t.Any:
            return healthy(path) if time.monotonic() > begin else starting(path)

        site.answer = answer
        found = ask(site, None, timeout=30).result
    assert found["healthy"] and 0.5 <= found["waited_seconds"] < 10
    assert len(site.asked) > 1


def test_nobody_there() -> None:
    with served(vault()) as site:
        pass
    found = ask(site, None).result
    assert (found["verdict"], found["healthy"]) == ("fail", False)
    assert "no answer: " in found["summary"]


@pytest.mark.parametrize("key", ["data", "items", "secrets"])
def test_list_shapes(key: str) -> None:
    assert probe.items_of({key: [{"id": 1}, "odd"], "total": 7}) == ([{"id": 1}], 7)
    assert probe.items_of({key: [{"id": 1}]}) == ([{"id": 1}], None)
    assert probe.items_of({key: [], "total": "7"}) == ([], None)


@pytest.mark.parametrize("body", [None, "text", {}, {"data": {"1": {}}}, 5])
def test_an_unknown_list_shape_is_refused(body: t.Any) -> None:
    with pytest.raises(probe.BackupError, match="isn't in a shape that is known"):
        probe.items_of(body)


@pytest.mark.parametrize(
    "listed", [[{"id": 1}, {"id": 2}], {"items": [{"id": 1}, {"id": 2}]}, {"secrets": [{"id": 1}, {"id": 2}]}]
)
def test_an_api_without_pages_is_read_once(token_file: Path, listed: t.Any) -> None:
    with served(vault(2, secrets=(200, listed))) as site:
        assert ask(site, token_file).result["summary"] == "healthy, 2 of 2 secrets decrypt"


def test_an_odd_id_is_quoted(token_file: Path) -> None:
    with served(vault(1, secrets=(200, [{"id": "a b/../c"}]), **{"a%20b%2F..%2Fc": (200, {"value": VALUE})})) as site:
        assert ask(site, token_file).result["verdict"] == "pass"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_said(token_file: Path, status: int) -> None:
    with served(vault(secrets=(status, {"error": TOKEN}))) as site:
        outcome = ask(site, token_file)
    assert outcome.rc != 0
    assert f"token_file: the API refuses the token (status {status}) -> " in outcome.result["msg"]


def test_a_list_that_fails_is_said(token_file: Path) -> None:
    with served(vault(secrets=(500, "oops"))) as site:
        outcome = ask(site, token_file)
    assert outcome.rc != 0 and "the list of secrets answered with status 500 -> " in outcome.result["msg"]


def test_it_waits_as_long_as_the_rate_limit_says(token_file: Path) -> None:
    refused: list[float] = []
    inner = vault(3)

    def answer(path: str) -> Answer:
        if path.endswith("/secrets/2") and not refused:
            refused.append(time.monotonic())
            return 429, {"error": "slow down"}, {"Retry-After": "2"}
        if path.endswith("/secrets/2"):
            refused.append(time.monotonic())
        return inner(path)

    with served(answer) as site:
        assert ask(site, token_file).result["verdict"] == "pass"
    assert len(refused) == 2 and refused[1] - refused[0] >= 2


def test_an_api_that_always_refuses_does_not_hold_the_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(probe.time, "sleep", slept.append)
    with served(lambda _path: (429, {}, {"Retry-After": "60"})) as site:
        api = probe.Api(site.url, "", validate_certs=True, ca_path=None)
        assert api.get("/health")[0] == 429
    assert slept == [60.0] * 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 1), ("", 1), ("0", 1), ("-5", 1), ("7", 7), ("600", 70), ("inf", 70), ("nan", 1), ("Wed, 21 Oct", 5)],
)
def test_pauses(text: str | None, seconds: float) -> None:
    assert probe._pause(text) == seconds


def test_a_redirect_never_takes_the_token_elsewhere(token_file: Path) -> None:
    with served(vault()) as elsewhere:
        moved = (302, "", {"Location": f"{elsewhere.url}/api/v1/health"})
        with served(lambda _path: moved) as site:
            found = ask(site, token_file).result
    assert elsewhere.asked == []
    assert found["summary"].endswith(": status 302")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_that_others_can_read_is_refused(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    with served(vault()) as site:
        outcome = ask(site, token_file)
    assert outcome.rc != 0 and site.asked == []
    assert outcome.result["msg"] == (
        f"token_file: {token_file}: others may read it (mode {mode:04o}) -> chmod 600 {token_file}"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"\n \n", "empty"), (TOKEN.encode() + b"\nsecond", "not one token"), (b"\xff\xfe", "not one")],
)
def test_a_file_without_one_token_is_refused(token_file: Path, content: bytes, said: str) -> None:
    token_file.write_bytes(content)
    with served(vault()) as site:
        outcome = ask(site, token_file)
    assert outcome.rc != 0 and site.asked == []
    assert f"token_file: {token_file}: {said}" in outcome.result["msg"]


def test_a_missing_token_file_is_refused(tmp_path: Path) -> None:
    with served(vault()) as site:
        outcome = ask(site, tmp_path / "none")
    assert outcome.rc != 0 and f"token_file: {tmp_path}/none: No such file" in outcome.result["msg"]


@pytest.mark.parametrize("wanted", ["0", "-1", "some", "1.5", "", " "])
def test_an_odd_number_of_secrets_is_refused(wanted: str) -> None:
    with served(vault()) as site:
        outcome = ask(site, None, secrets=wanted)
    assert outcome.rc != 0 and site.asked == []
    assert outcome.result["msg"].startswith(f"secrets: {wanted}".strip())


@pytest.mark.parametrize("url", ["localhost:8443", "ftp://localhost", "file:///etc/passwd", ""])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    outcome = run_module("mazevault_probe", {"api_url": url})
    assert outcome.rc != 0
    assert outcome.result["msg"].startswith(f"api_url: {url}: not an http or https address -> ")


@pytest.mark.parametrize("url", ["http://[1", "http://local host", "http://localhost:port", "http://"])
def test_an_address_that_leads_nowhere_is_no_traceback(url: str) -> None:
    outcome = run_module("mazevault_probe", {"api_url": url, "timeout": 0})
    assert "Traceback" not in outcome.stderr
    assert outcome.result.get("healthy") is False, outcome


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    files = (folder / "crt", folder / "key")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", "/CN=mazevault", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return files[0], context


def test_an_unknown_certificate_is_not_trusted_and_sees_no_token(
    token_file: Path, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    path, context = certificate
    with served(vault(), context) as site:
        refused = ask(site, token_file).result
        assert site.asked == []
        assert (refused["verdict"], refused["healthy"]) == ("fail", False)
        assert "certificate verify failed" in refused["summary"]
        assert ask(site, token_file, ca_path=str(path)).result["verdict"] == "pass"
        assert ask(site, token_file, validate_certs=False).result["verdict"] == "pass"
