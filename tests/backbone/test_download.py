"""The download, against a local server that answers as the Hub does."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from headstart.backbone import download, weights
from headstart.errors import WeightsError

CONTENT = b"weights, as far as a download is concerned" * 1000


class Hub(BaseHTTPRequestHandler):
    announced = hashlib.sha256(CONTENT).hexdigest()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        self.wfile.write(CONTENT)

    def answer(self) -> None:
        self.send_response(200 if "resnet18" in self.path else 404)
        for name, value in {"X-Repo-Commit": "0" * 40, "ETag": f'"{self.announced}"', "Content-Length": str(len(CONTENT))}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A handler class of this test's own, serving."""
    handler = type("OwnHub", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setenv("NO_PROXY", "*")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_lands_in_the_cache_and_is_found_there_next_time(hub: type[Hub]) -> None:
    assert download.cached("timm/resnet18.a1_in1k") is None
    path = download.fetch("timm/resnet18.a1_in1k", "ways out")
    assert path.read_bytes() == CONTENT
    assert download.cached("timm/resnet18.a1_in1k") == path


def test_download_with_another_hash_than_announced_is_thrown_away(hub: type[Hub]) -> None:
    hub.announced = "0" * 64
    with pytest.raises(WeightsError, match="damaged: their sha256 is not 0000"):
        download.fetch("timm/resnet18.a1_in1k", "ways out")
    assert download.cached("timm/resnet18.a1_in1k") is None


def test_a_repository_that_is_not_there_gives_one_line_and_the_ways_out(hub: type[Hub]) -> None:
    with pytest.raises(WeightsError, match=r"cannot download timm/nonesuch: .*\nhint: ways out"):
        download.fetch("timm/nonesuch", "ways out")


def test_no_connection_fails_at_once_and_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(
        WeightsError, match=r"cannot download timm/resnet18.a1_in1k: no connection to 127.0.0.1[\s\S]*hint: .*--weights FILE"
    ):
        weights.locate("resnet18", download=True)
