"""A server as a process: the socket, the signals, the log; from the first request until the last is answered."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from headstart.errors import ConfigError, safe_text
from headstart.serve.access import JsonLines, is_loopback
from headstart.serve.app import Server, create_app
from headstart.serve.connections import patient
from headstart.serve.settings import TOKEN_HINT

log = logging.getLogger("headstart.serve")

_KEEP_ALIVE_S = 75  # longer than common proxies keep a connection, so that they end it and never meet one that has just gone
# Before the port is closed: every answer says that its connection ends, so that clients and proxies that keep connections
# do not send into one that closes under them; and /readyz has said no.
_LEAVE_S = 0.5
_SWITCH_S = 0.001  # of Python's lock: the event loop need not wait the usual 5 ms for a thread that decodes, so a refusal is quick
_HEAD_S = 30.0  # from a connection to the whole head of its first request
# More connections than requests, so that there is always one that asks nothing to make room for another. With the requests of
# `Settings` fewer than the 1,024 files that many systems let a process open.
_MORE_CONNECTIONS = 100


def check_host(host: str, token: str | None, no_token: bool) -> None:
    """Raises: ConfigError: other machines could reach the server, and nothing would ask them for a token."""
    if token is None and not no_token and not is_loopback(host):
        raise ConfigError(
            f"expected a token in HEADSTART_TOKEN, since other machines can reach {safe_text(host)}",
            hint=f"{TOKEN_HINT}, or --no-token to let anyone in",
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: ConfigError: the port is taken or may not be used, or the host is none of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "choose another --port; 0 takes a free one"
        raise ConfigError(f"cannot listen at {safe_text(host)}:{port}: {reason}", hint=hint) from error


def address_of(listening: socket.socket) -> str:
    """What to open in a browser on this machine."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def configured(server: Server, head_s: float = _HEAD_S) -> uvicorn.Config:
    """How uvicorn is to run a server. Args: head_s: seconds that a connection may take for the head of its first request."""
    timeout_s = server.settings.timeout_s
    return uvicorn.Config(
        create_app(server),
        # a body, a heat map of twice the time, and its way to the client; then as long as a connection may be kept
        http=patient(head_s, 4 * timeout_s + _KEEP_ALIVE_S, server.settings.max_requests + _MORE_CONNECTIONS),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(2 * timeout_s) + 1,
        lifespan="on",
        ws="none",
    )


def run(server: Server, listening: socket.socket, started: Callable[[], None]) -> None:
    """Answer until SIGTERM or Ctrl-C, then answer what was accepted. A second signal ends it at once.

    Args: started: called once requests are answered.
    """
    _log_json()
    sys.setswitchinterval(_SWITCH_S)
    with _quiet_signals():
        _Process(configured(server), server, started).run([listening])


class _Process(uvicorn.Server):
    """uvicorn, which tells us when it starts and when it is about to stop, and reloads on SIGHUP."""

    def __init__(self, config: uvicorn.Config, server: Server, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._server, self._tell = server, started
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        log.info("started", extra={"facts": {"models": {one.name: one.version for one in self._server.models.all}}})
        self._tell()

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.should_exit:
            self.force_exit = True
        self._server.stopping = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping", extra={"facts": {"photos": self._server.batcher.n_waiting}})
        if not self.force_exit:
            await asyncio.sleep(_LEAVE_S)
        await super().shutdown(sockets)
        log.info("stopped", extra={"facts": {"photos": self._server.batcher.n_waiting}})

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._server.reload(self._server.models.names))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


@contextlib.contextmanager
def _quiet_signals() -> Any:
    """uvicorn raises the signal that ended it once more at its end; a server that was told to stop and did is no failure."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *_: None) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _log_json() -> None:
    """One line of JSON on stderr for each request and event, uvicorn's own included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("headstart.serve", logging.INFO), ("uvicorn.error", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
