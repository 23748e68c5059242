# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP API: routes, tokens and what each endpoint answers."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg2
from psycopg2.extensions import cursor as Cursor

from . import audit, authority, certificate_store, config, health, migrate, secret_store
from .crypto import DecryptionError, Keyring, SealedSecret
from .database import Database, check_master_key
from .heartbeat import Heartbeat
from .ratelimit import RateLimiter
from .web import HttpError, Request, Response, build_server, json_response, serve, stop_on_signal

LOG = logging.getLogger("mazevault")
MAX_VALUE = 64 * 1024
MAX_PAGE = 1000
SECRET_COLUMNS = "id, project_id, key, environment, status, version, created_at, updated_at"
CERTIFICATE_COLUMNS = (
    "id, project_id, authority_id, common_name, serial_number, status, expiry_date, revoked_at, revocation_reason,"
    " created_at, updated_at"
)
AUDIT_COLUMNS = "id, user_id, action, entity_type, entity_id, severity, details, created_at, chain_hash"


@dataclass(frozen=True)
class Caller:
    token_id: int
    user_id: int


def _plain(value: object) -> object:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _records(cursor: Cursor) -> list[dict[str, object]]:
    names = [column[0] for column in cursor.description or ()]
    return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in cursor.fetchall()]


def _number(request: Request, name: str, default: int, largest: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit() or int(text) > largest:
        raise HttpError(400, "bad request", f"{name} must be a number up to {largest}")
    return int(text)


def _text(data: dict[str, object], name: str, default: str | None = None) -> str:
    value = data.get(name, default)
    if not isinstance(value, str) or not value or "\0" in value:
        raise HttpError(400, "bad request", f"{name} must be text")
    return value


def _value(data: dict[str, object]) -> str:
    value = _text(data, "value")
    if len(value.encode()) > MAX_VALUE:
        raise HttpError(400, "bad request", f"value is larger than {MAX_VALUE} bytes")
    return value


def _not_found(what: str, number: int) -> HttpError:
    return HttpError(404, "not found", f"no {what} {number}")


class Api:
    """One method for each endpoint; the table in __init__ says which."""

    def __init__(self, database: Database, keyring: Keyring, limiter: RateLimiter, heartbeat: Heartbeat) -> None:
        self._database = database
        self._keyring = keyring
        self._heartbeat = heartbeat
        self._limiter = limiter
        self._started = time.monotonic()
        open_routes: dict[str, Callable[..., Response]] = {
            "GET /health": self.health,
            "GET /health/database": self.health_database,
            "GET /ca/:id/crl": self.crl,
        }
        token_routes: dict[str, Callable[..., Response]] = {
            "GET /health/system": self.health_system,
            "GET /projects": self.projects,
            "GET /secrets": self.secrets,
            "POST /secrets": self.create_secret,
            "GET /secrets/:id": self.read_secret,
            "PUT /secrets/:id": self.update_secret,
            "GET /certificates": self.certificates,
            "GET /certificates/:id": self.certificate,
            "GET /certificates/:id/status": self.certificate_status,
            "POST /certificates/:id/revoke": self.revoke,
            "GET /audit-logs": self.audit_logs,
        }
        self._routes = [
            (re.compile(route.replace(" ", " /api/v1").replace(":id", r"(\d{1,18})") + "/?"), wants_token, method)
            for wants_token, routes in ((False, open_routes), (True, token_routes))
            for route, method in routes.items()
        ]

    def _find(self, endpoint: str) -> tuple[Callable[..., Response], bool, list[int]]:
        for pattern, wants_token, method in self._routes:
            if match := pattern.fullmatch(endpoint):
                return method, wants_token, [int(text) for text in match.groups()]
        raise HttpError(404, "not found", f"no endpoint {endpoint}")

    def respond(self, request: Request) -> Response:
        verb = "GET" if request.method == "HEAD" else request.method
        method, wants_token, numbers = self._find(f"{verb} {request.path}")
        if not wants_token:
            return method(request, *numbers)
        caller = self._authenticate(request)
        # Health is never limited, also where it wants a token.
        headers = {} if "/health/" in request.path else self._limiter.admit(caller.token_id)
        try:
            response = method(request, caller, *numbers)
        except HttpError as error:
            response = error.response
        return Response(response.status, response.body, response.content_type, {**response.headers, **headers})

    def _authenticate(self, request: Request) -> Caller:
        scheme, _space, token = request.authorization.partition(" ")
        if scheme.lower() == "bearer" and token:
            with self._database.transaction() as cursor:
                cursor.execute(
                    "SELECT t.id, u.id FROM api_tokens t JOIN users u ON u.id = t.user_id"
                    " WHERE t.token_sha256 = %s AND t.status = 'active' AND u.status = 'active'"
                    " AND (t.expires_at IS NULL OR t.expires_at > now())",
                    (hashlib.sha256(token.strip().encode()).digest(),),
                )
                if row := cursor.fetchone():
                    return Caller(*row)
        raise HttpError(401, "unauthorized", "a valid API token is needed", {"WWW-Authenticate": "Bearer"})

    def _page(self, request: Request, table: str, columns: str, filters: tuple[str, ...] = ()) -> Response:
        limit = _number(request, "limit", 100, MAX_PAGE)
        offset = _number(request, "offset", 0, 1 << 40)
        given = [(name, request.query[name]) for name in filters if name in request.query]
        where = " AND ".join(f"{name}::text = %s" for name, _value in given) or "true"
        values = [value for _name, value in given]
        with self._database.transaction() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table} WHERE {where}", values)
            row = cursor.fetchone()
            cursor.execute(
                f"SELECT {columns} FROM {table} WHERE {where} ORDER BY id LIMIT %s OFFSET %s", [*values, limit, offset]
            )
            data = _records(cursor)
        return json_response({"data": data, "total": row[0] if row else 0, "limit": limit, "offset": offset})

    def health(self, _request: Request) -> Response:
        healthy, body = health.overall(self._database)
        return json_response(body, 200 if healthy else 503)

    def health_database(self, _request: Request) -> Response:
        healthy, body = health.database(self._database)
        return json_response(body, 200 if healthy else 503)

    def health_system(self, _request: Request, _caller: Caller) -> Response:
        healthy, body = health.overall(self._database)
        with self._database.transaction() as cursor:
            body["statistics"] = health.statistics(cursor)
        body["license"] = health.licence(self._heartbeat)
        body["uptime_seconds"] = int(time.monotonic() - self._started)
        return json_response(body, 200 if healthy else 503)

    def projects(self, request: Request, _caller: Caller) -> Response:
        return self._page(request, "projects", "id, organisation_id, name, status, created_at, updated_at")

    def secrets(self, request: Request, _caller: Caller) -> Response:
        return self._page(request, "current_secrets", SECRET_COLUMNS, ("project_id", "key"))

    def create_secret(self, request: Request, caller: Caller) -> Response:
        data = request.json()
        project_id = data.get("project_id")
        if not isinstance(project_id, int):
            raise HttpError(400, "bad request", "project_id must be a number")
        key, value, environment = _text(data, "key"), _value(data), _text(data, "environment", "production")
        try:
            with self._database.transaction() as cursor:
                secret_id = secret_store.create(
                    cursor,
                    self._keyring,
                    project_id=project_id,
                    key=key,
                    environment=environment,
                    value=value,
                    user_id=caller.user_id,
                )
                audit.append(cursor, caller.user_id, "secret.create", secret_id, {"version": 1})
        except psycopg2.errors.UniqueViolation:
            raise HttpError(409, "conflict", "the project has a secret of this name") from None
        except (psycopg2.IntegrityError, psycopg2.DataError) as error:
            raise HttpError(400, "bad request", type(error).__name__) from None
        return json_response({"id": secret_id, "project_id": project_id, "key": key, "version": 1}, 201)

    def update_secret(self, request: Request, caller: Caller, secret_id: int) -> Response:
        value = _value(request.json())
        with self._database.transaction() as cursor:
            version = secret_store.add_version(cursor, self._keyring, secret_id, value, caller.user_id)
            if version is None:
                raise _not_found("secret", secret_id)
            audit.append(cursor, caller.user_id, "secret.update", secret_id, {"version": version})
        return json_response({"id": secret_id, "version": version})

    def read_secret(self, _request: Request, caller: Caller, secret_id: int) -> Response:
        with self._database.transaction() as cursor:
            cursor.execute(
                f"SELECT {SECRET_COLUMNS}, wrapped_dek, ciphertext FROM current_secrets WHERE id = %s", (secret_id,)
            )
            found = _records(cursor)
            if not found:
                raise _not_found("secret", secret_id)
            record = found[0]
            wrapped, ciphertext = record.pop("wrapped_dek"), record.pop("ciphertext")
            version = record["version"]
            assert isinstance(version, int)
            try:
                if not isinstance(wrapped, memoryview) or not isinstance(ciphertext, memoryview):
                    raise DecryptionError(f"version {version} is missing")
                sealed = SealedSecret(bytes(wrapped), bytes(ciphertext))
                value = self._keyring.open_secret(sealed, secret_id, version).decode()
            except DecryptionError as error:
                raise HttpError(500, "decryption failed", str(error)) from None
            audit.append(cursor, caller.user_id, "secret.read", secret_id, {"version": version})
        return json_response({**record, "value": value})

    def certificates(self, request: Request, _caller: Caller) -> Response:
        return self._page(request, "certificates", CERTIFICATE_COLUMNS, ("project_id", "status"))

    def _certificate(self, certificate_id: int, columns: str) -> dict[str, object]:
        with self._database.transaction() as cursor:
            cursor.execute(f"SELECT {columns} FROM certificates WHERE id = %s", (certificate_id,))
            found = _records(cursor)
        if not found:
            raise _not_found("certificate", certificate_id)
        return found[0]

    def certificate(self, _request: Request, _caller: Caller, certificate_id: int) -> Response:
        return json_response(self._certificate(certificate_id, f"{CERTIFICATE_COLUMNS}, certificate_pem"))

    def certificate_status(self, _request: Request, _caller: Caller, certificate_id: int) -> Response:
        columns = "id, serial_number, status, expiry_date, revoked_at, revocation_reason"
        return json_response(self._certificate(certificate_id, columns))

    def revoke(self, request: Request, caller: Caller, certificate_id: int) -> Response:
        reason = _text(request.json(), "reason", "unspecified")
        if reason not in certificate_store.REASONS:
            raise HttpError(400, "bad request", f"reason must be one of {', '.join(certificate_store.REASONS)}")
        self._certificate(certificate_id, "id")
        with self._database.transaction() as cursor:
            if not certificate_store.revoke(cursor, certificate_id, reason):
                raise HttpError(409, "conflict", "the certificate is revoked already")
            details: dict[str, object] = {"reason": reason}
            audit.append(cursor, caller.user_id, "certificate.revoke", certificate_id, details, "warning")
        return json_response({"id": certificate_id, "status": "revoked", "revocation_reason": reason})

    def crl(self, _request: Request, authority_id: int) -> Response:
        with self._database.transaction() as cursor:
            try:
                found = certificate_store.load_authority(cursor, self._keyring, authority_id)
            except DecryptionError as error:
                raise HttpError(500, "decryption failed", str(error)) from None
            if found is None:
                raise _not_found("authority", authority_id)
            entries = list(certificate_store.revocations(cursor, authority_id))
        issuer, number = found
        return Response(200, authority.crl(issuer, number, entries, datetime.now(UTC)), "application/pkix-crl")

    def audit_logs(self, request: Request, _caller: Caller) -> Response:
        limit = _number(request, "limit", 100, MAX_PAGE)
        offset = _number(request, "offset", 0, 1 << 40)
        with self._database.transaction() as cursor:
            cursor.execute(
                f"SELECT {AUDIT_COLUMNS} FROM audit_logs ORDER BY id DESC LIMIT %s OFFSET %s", (limit, offset)
            )
            return json_response(_records(cursor))


def run() -> int:
    """Migrate, check the key, serve; a refusal leaves by its exit code before the port is open."""
    stop = stop_on_signal()
    keyring = Keyring(config.master_key())
    config.required("MAZEVAULT_JWT_KEY")
    address, tls_files = config.address("MAZEVAULT_LISTEN_ADDR", "127.0.0.1:8443"), config.tls_files()
    release = config.release_schema()
    database = Database(config.database_url(), name="mazevault-backend")
    stop.wait(config.number("MAZEVAULT_STARTUP_DELAY", 0))
    database.wait(config.number("MAZEVAULT_DATABASE_WAIT", 30), stop)
    if stop.is_set():
        return 0
    if config.flag("RUN_MIGRATIONS", False):
        LOG.info("migrations run: %s", migrate.upgrade(database, release) or "none")
    with database.transaction() as cursor:
        LOG.info("schema version %d", migrate.check(cursor, release))
        check_master_key(cursor, keyring)
    heartbeat = Heartbeat(
        config.text("LICENSE_SERVER_URL", "http://license.invalid/heartbeat"),
        config.number("MAZEVAULT_LICENSE_INTERVAL", 60),
    )
    limiter = RateLimiter(int(config.number("MAZEVAULT_RATE_LIMIT", 100)))
    server = build_server(address, Api(database, keyring, limiter, heartbeat).respond, tls_files)
    if config.flag("ENABLE_LICENSE_CHECK", True):
        heartbeat.start()
    serve(server, stop)
    return 0
