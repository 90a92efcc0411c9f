"""Around every request: who may ask, what browsers may do with the answer, one line in the log, one count."""

import hmac
import ipaddress
import json
import logging
import os
import time
import traceback
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.serve.refusals import Refused, too_many_requests

if TYPE_CHECKING:
    from headstart.serve.app import Server

log = logging.getLogger("headstart.serve")

ROUTES = ("/v1/predict", "/v1/explain", "/v1/model", "/v1/models", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json")
_OPEN = ("/", "/page.css", "/page.js", "/docs", "/openapi.json", "/healthz", "/readyz")  # hold nothing of the model or the photos
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_LAST = [(b"connection", b"close")]  # while the server ends: no further request over this connection


class Access:
    """ASGI: the door of an app."""

    def __init__(self, app: ASGIApp, server: "Server") -> None:
        self._app, self._server = app, server
        self._settings, self._metrics = server.settings, server.metrics
        self._n_open = 0  # requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, request_id = time.perf_counter(), os.urandom(6).hex()
        status, facts = 500, scope.setdefault("state", {}).setdefault("facts", {})
        extra = [*_HEADERS, (b"x-request-id", request_id.encode())]

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra, *(_LAST if self._server.stopping else ())]
            await send(message)

        self._n_open += 1
        try:
            refused = self._refused(scope["path"], Headers(scope=scope)) or self._busy(scope["path"])
            await (self._app if refused is None else refused.response())(scope, receive, send_marked)
        finally:
            self._n_open -= 1
            self._record(scope, status, time.perf_counter() - started, {"request": request_id, **facts})

    def _refused(self, path: str, headers: Headers) -> Refused | None:
        if self._settings.token is not None:
            return None if path in _OPEN or self._has_token(headers) else _unauthorized()
        if not self._settings.only_local:
            return None
        if not _names_this_machine(headers.get("host", "")):
            return Refused(421, "this server answers only requests to localhost", hint="set HEADSTART_TOKEN to reach it by another name")
        if headers.get("sec-fetch-site") == "cross-site" and path not in _OPEN:
            return Refused(403, "another web site may not use this server", hint="set HEADSTART_TOKEN and send it")
        return None

    def _busy(self, path: str) -> Refused | None:
        if self._n_open > self._settings.max_requests and path not in _OPEN:
            return too_many_requests(self._server.batcher.retry_after_s())
        return self._server.full(path)

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = str(self._settings.token).encode()
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), right) and scheme.lower() == "bearer"

    def _record(self, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
        path = scope["path"]
        route = path if path in ROUTES else "page" if path in _OPEN else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_s.labels(route).observe(seconds)
        if route in ("/healthz", "/readyz", "/metrics") and status < 400:
            return  # asked every few seconds, for ever
        client = scope["client"][0] if scope.get("client") else None
        shown = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1), "client": client}
        log.info("request", extra={"facts": {**shown, **facts}})


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, event, and the facts that came with it. Never a photo, a token or a file name."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "event": record.getMessage()}
        values |= getattr(record, "facts", {})
        if record.exc_info:
            values["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(values)


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and is reachable from it alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _names_this_machine(host: str) -> bool:
    """`host` as the header has it, perhaps with a port."""
    name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)


def _unauthorized() -> Refused:
    hint = "send the header 'Authorization: Bearer TOKEN' with the HEADSTART_TOKEN that the server was started with"
    return Refused(401, "expected the server's token", hint=hint, headers={"WWW-Authenticate": "Bearer"})
