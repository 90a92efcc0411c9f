"""Connections that ask nothing: closed after a while, and at once where others need their places."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def patient(head_s: float, next_s: float, most: int) -> type[asyncio.Protocol]:
    """uvicorn's connection, which by itself waits for ever for a request's head, and for an answer to be read.

    Args:
        head_s: seconds from the connection to its first whole head.
        next_s: seconds from one whole head to the next, in which an answer is computed and read.
        most: connections, beyond which those that ask nothing make room for others.
    """

    class Connection(HttpToolsProtocol):
        _timer: asyncio.TimerHandle

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(head_s, self.drop)
            if len(self.connections) > most:
                silent = [one for one in self.connections if isinstance(one, Connection) and one is not self and one.asks_nothing]
                if silent:
                    min(silent, key=lambda one: one._timer.when()).drop()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._timer.cancel()
            self._timer = self.loop.call_later(next_s, self.drop)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        @property
        def asks_nothing(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def drop(self) -> None:
            self.connections.discard(self)  # now, so that the next one to need a place takes another's
            self.transport.abort()

    return Connection
