# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCSP responder: probes, and answers signed by the authority itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from . import certificate_store, config
from .authority import Authority
from .crypto import DecryptionError, Keyring
from .database import Database
from .errors import DatabaseUnavailable
from .web import HttpError, Request, Response, build_server, json_response, serve, stop_on_signal

LOG = logging.getLogger("mazevault.ocsp")
VALIDITY = timedelta(hours=1)


def is_issuer(certificate: x509.Certificate, request: ocsp.OCSPRequest) -> bool:
    """RFC 6960: the request names its issuer by two hashes."""
    point = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = certificate.subject.public_bytes()
    algorithm = request.hash_algorithm.name
    return (
        hashlib.new(algorithm, name).digest() == request.issuer_name_hash
        and hashlib.new(algorithm, point).digest() == request.issuer_key_hash
    )


class Responder:
    """Holds no state: each answer reads the database and opens the key anew."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def _authorities(self) -> dict[int, Authority]:
        with self._database.transaction() as cursor:
            return certificate_store.load_authorities(cursor, self._keyring)

    def respond(self, request: Request) -> Response:
        if request.method == "POST" and request.path == "/":
            return self._ocsp(request.body)
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "method not allowed", request.method)
        if request.path == "/live":
            return json_response({"status": "alive"})
        if request.path in ("/ready", "/health"):
            return self._health(*(("ready", "not ready") if request.path == "/ready" else ("healthy", "unhealthy")))
        try:
            return self._ocsp(base64.b64decode(unquote(request.path[1:]), validate=True))
        except binascii.Error:
            raise HttpError(404, "not found", "no such page") from None

    def _health(self, good: str, bad: str) -> Response:
        count, connected = 0, True
        try:
            count = len(self._authorities())
        except DatabaseUnavailable:
            connected = False
        except DecryptionError as error:
            LOG.info("signing key not loaded: %s", error)
        components = {
            "database": "connected" if connected else "disconnected",
            "signing_key": "loaded" if count else "not loaded",
            "ca_certificates": count,
        }
        return json_response({"status": good if count else bad, "components": components}, 200 if count else 503)

    def _ocsp(self, der: bytes) -> Response:
        try:
            request = ocsp.load_der_ocsp_request(der)
            answer = self._answer(request)
        except (ValueError, NotImplementedError):
            answer = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        except DatabaseUnavailable:
            answer = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
        except DecryptionError:
            answer = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.INTERNAL_ERROR)
        return Response(200, answer.public_bytes(Encoding.DER), "application/ocsp-response")

    def _answer(self, request: ocsp.OCSPRequest) -> ocsp.OCSPResponse:
        found = None
        for authority_id, authority in self._authorities().items():
            if is_issuer(authority.certificate, request):
                with self._database.transaction() as cursor:
                    found = certificate_store.find(cursor, authority_id, request.serial_number)
                break
        if found is None:
            # Not ours to speak about: RFC 5019's answer for certificates a responder does not know.
            return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        certificate, revocation = found
        now = datetime.now(UTC)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                certificate,
                authority.certificate,
                request.hash_algorithm,
                ocsp.OCSPCertStatus.REVOKED if revocation else ocsp.OCSPCertStatus.GOOD,
                now,
                now + VALIDITY,
                revocation.revoked_at.astimezone(UTC) if revocation else None,
                revocation.reason if revocation else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, authority.certificate)
        )
        for extension in request.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                builder = builder.add_extension(extension.value, critical=False)
        return builder.sign(authority.key, hashes.SHA256())


def run() -> int:
    """Starts in any case; /ready tells whether it can work."""
    stop = stop_on_signal()
    address = config.address("MAZEVAULT_OCSP_LISTEN_ADDR", "127.0.0.1:8081")
    database = Database(config.database_url(), name="mazevault-ocsp")
    responder = Responder(database, Keyring(config.master_key()))
    stop.wait(config.number("MAZEVAULT_STARTUP_DELAY", 0))
    if not stop.is_set():
        serve(build_server(address, responder.respond), stop)
    return 0
