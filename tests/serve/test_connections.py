"""Clients that connect and ask nothing, or ask too much at once, keep nobody else from an answer."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator

from serve_tools import Running, Serve, photo

from headstart.bundle.format import Bundle

HALF_A_HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
HALF_A_BODY = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc"


@contextlib.contextmanager
def _connected(running: Running, n: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, over each of which this much was sent."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=30)) for _ in range(n)]
        for one in found:
            one.sendall(sent)
        yield found


def _is_closed(connection: socket.socket) -> bool:
    """Whether the server ends it without an answer; waits for that."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_connection_without_a_whole_head_is_closed_and_others_are_answered(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, head_s=1)
    kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    with contextlib.closing(kept), _connected(running, 3) as silent, _connected(running, 3, HALF_A_HEAD) as half:
        started = time.monotonic()
        kept.request("GET", "/v1/models")
        assert kept.getresponse().read().startswith(b"{")
        assert running.ask("/v1/predict", photo()).status == 200
        assert all(_is_closed(one) for one in (*silent, *half))
        assert time.monotonic() - started < 20
        kept.request("GET", "/v1/models")  # asked before, so it may stay longer
        assert kept.getresponse().status == 200


def test_where_connections_are_many_the_oldest_that_ask_nothing_make_room(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, max_requests=1)
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(_connected(running, 1, HALF_A_BODY))
        old = stack.enter_context(_connected(running, 4))
        time.sleep(0.1)
        young = stack.enter_context(_connected(running, 100))
        assert all(_is_closed(one) for one in old)
        for one in (asking[0], *young):
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert one.recv(100) != b"", "it is open"
        assert running.ask("/healthz").status == 200
    assert running.ask("/v1/predict", photo()).status == 200


def test_requests_that_are_too_many_at_once_answer_503_in_json_and_are_counted(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, max_requests=2)
    with _connected(running, 2, HALF_A_BODY):
        while running.server.held.n_bytes < 6:
            time.sleep(0.01)
        for path, body in (("/v1/predict", photo()), ("/v1/models", None)):
            found = running.ask(path, body)
            assert (found.status, found.headers["retry-after"]) == (503, "1")
            assert found.json == {"error": "too many requests at the same time", "hint": "try again in 1 s"}
        assert running.ask("/healthz").status == 200
    refused = running.server.metrics.registry.get_sample_value("headstart_requests_total", {"route": "/v1/models", "status": "503"})
    assert refused == 1
    deadline = time.monotonic() + 30
    while running.ask("/v1/predict", photo()).status == 503:
        assert time.monotonic() < deadline, "the room is not given back"
