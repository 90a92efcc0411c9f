"""Who may talk to the studio: the person at this machine who has the link from the terminal, and no page of any other site."""

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; sandbox allow-popups"
)
"""Of reports, which are pages of their own with their style in them, and never a script."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>headstart studio</title><h1>{title}</h1><p>{text}</p></html>"""


class Door:
    """The one-time link and the sessions that came in by it. Nothing of it is on disk: a restart of the studio prints a new link."""

    def __init__(self, port: int, *, tell: Callable[[str], None]) -> None:
        self._port, self._tell = port, tell
        self._token: str | None = None
        self._sessions: set[str] = set()
        self.hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self.cookie = f"headstart-studio-{port}"  # cookies are shared by all ports of a machine

    def link(self) -> str:
        """A new link; it lets one browser in, once."""
        self._token = secrets.token_urlsafe(32)
        return f"http://127.0.0.1:{self._port}/?token={self._token}"

    def enter(self, token: str) -> str | None:
        """A session for the right token, which is then used up; else None."""
        if self._token is None or not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        self._token = None
        session = secrets.token_urlsafe(32)
        self._sessions.add(session)
        return session

    def knows(self, session: str) -> bool:
        """Whether a session came in by a link."""
        return any(hmac.compare_digest(session.encode(), known.encode()) for known in self._sessions)

    def show_new_link(self) -> None:
        """Print another link where the last one is used up: only the person at the terminal sees it."""
        if self._token is None:
            self._tell(f"Another browser? {self.link()}")


class Guard:
    """In front of the app: host, session, origin; and the same headers on every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refused = self._refusal(scope)
            await (refused if refused is not None else self._app)(scope, receive, _with_headers(send))
        # Nothing here speaks WebSocket: such a connection is dropped.

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to whoever may not come in, or None."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host") not in self._door.hosts:  # a name of another site that was made to point at this machine
            return _page(421, "Not here", "This address is not the studio's.")
        at_home = self._door.knows(_cookie(headers.get("cookie", ""), self._door.cookie))
        if scope["path"] == "/" and (token := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            return self._let_in(token[0], at_home)
        if not at_home:
            if scope["path"] == "/":
                self._door.show_new_link()
            return _page(403, "Use the link in the terminal", "The studio opens by the link that it printed. Each link works once.")
        if scope["method"] not in ("GET", "HEAD") and not self._is_own(headers):
            return _page(403, "Refused", "This request came from another site.")
        return None

    def _let_in(self, token: str, at_home: bool) -> Response:
        session = self._door.enter(token)
        if session is None and not at_home:
            self._door.show_new_link()
            return _page(403, "This link was used", "Each link works once. A new one is in the terminal now.")
        response = RedirectResponse("/", status_code=303)
        if session is not None:
            response.set_cookie(self._door.cookie, session, httponly=True, samesite="strict", path="/")
        return response

    def _is_own(self, headers: dict[str, str]) -> bool:
        """Whether a request that changes something came from the studio's own pages. Browsers always say where such a one is from."""
        origin = headers.get("origin", "")
        return origin == f"http://{headers['host']}" and headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _page(status: int, title: str, text: str) -> Response:
    return HTMLResponse(_REFUSED.format(title=title, text=text), status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items() if name.lower().encode() not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending
