import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headstart.data.fetch import fetch_file
from headstart.errors import DataError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `breaks` connections are cut halfway, then all is sent. Understands ranges if `ranges`."""

    daemon_threads = True
    ranges = True
    breaks = 0
    failures = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.starts: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        if self.path != "/file":
            self.send_error(404)
            return
        if server.failures:
            server.failures -= 1
            self.send_error(503)
            return
        given = self.headers.get("Range")
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given and server.ranges else 0
        server.starts.append(start)
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        rest = CONTENT[start:]
        if server.breaks:
            server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_checked(server, tmp_path):
    path = tmp_path / "deep" / "file"
    for _ in range(2):
        assert fetch_file(server.url, path, md5=MD5).read_bytes() == CONTENT
    assert server.starts == [0]
    assert not path.with_name("file.part").exists()


def test_a_broken_download_goes_on_where_it_broke_off(server, tmp_path):
    server.breaks = 2
    assert fetch_file(server.url, tmp_path / "file", md5=MD5, pause_s=0).read_bytes() == CONTENT
    assert server.starts == [0, 512_000, 768_000]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.breaks, server.ranges = 1, False
    assert fetch_file(server.url, tmp_path / "file", md5=MD5, pause_s=0).read_bytes() == CONTENT
    assert server.starts == [0, 0]


def test_a_later_run_takes_up_what_an_earlier_one_left(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert fetch_file(server.url, tmp_path / "file", md5=MD5).read_bytes() == CONTENT
    (tmp_path / "file").rename(tmp_path / "file.part")  # whole, but killed before it was checked
    assert fetch_file(server.url, tmp_path / "file", md5=MD5).read_bytes() == CONTENT
    assert server.starts == [1000, len(CONTENT)]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.failures = 2
    assert fetch_file(server.url, tmp_path / "file", md5=MD5, pause_s=0).read_bytes() == CONTENT


def test_another_file_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DataError, match=f"not the published file: expected MD5 {'0' * 32}, found {MD5} \\(1024000 bytes\\)\nhint: go away"):
        fetch_file(server.url, tmp_path / "file", md5="0" * 32, hint="go away")
    assert [path.name for path in tmp_path.iterdir()] == ["file.lock"]


def test_what_cannot_be_fetched_is_a_clear_error(server, tmp_path):
    server.breaks = 9
    with pytest.raises(DataError, match=r"cannot fetch .*: the connection broke off"):
        fetch_file(server.url, tmp_path / "file", md5=MD5, pause_s=0)
    with pytest.raises(DataError, match=r"cannot fetch .*/other: 404 Not Found\nhint: look elsewhere"):
        fetch_file(server.url.replace("file", "other"), tmp_path / "other", md5=MD5, hint="look elsewhere")
    server.failures = 3
    with pytest.raises(DataError, match="503"):
        fetch_file(server.url, tmp_path / "more", md5=MD5, pause_s=0)
    with pytest.raises(DataError, match="cannot fetch file:///nowhere"):
        fetch_file("file:///nowhere", tmp_path / "x", md5=MD5, attempts=1)
    with pytest.raises(DataError, match="cannot fetch nonsense: unknown url type"):
        fetch_file("nonsense", tmp_path / "x", md5=MD5)


def test_an_absent_server_is_a_clear_error(tmp_path):
    with Server() as unused:
        url = unused.url
    with pytest.raises(DataError, match=r"cannot fetch .*: .*refused"):
        fetch_file(url, tmp_path / "file", md5=MD5, attempts=1)
