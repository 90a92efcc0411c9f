"""A server on a port of its own, and a client that knows nothing of it but HTTP."""

import http.client
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from headstart.serve.app import Server
from headstart.serve.run import configured, listen


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A real server, in a thread: sockets, event loop and all; for signals see test_process.py."""

    def __init__(self, server: Server, **options: float) -> None:
        """Args: options: of `configured`."""
        self.server = server
        listening = listen("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self._uvicorn = uvicorn.Server(configured(server, **options))
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listening],))
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.005)

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(timeout=30)

    def ask(self, path: str, body: bytes | None = None, kind: str | None = None, method: str | None = None, **headers: str) -> Answer:
        return ask(self.port, path, body, kind, method, **headers)


Serve = Callable[..., Running]


def ask(port: int, path: str, body: bytes | None = None, kind: str | None = None, method: str | None = None, **headers: str) -> Answer:
    """One request over a connection of its own. Args: headers: `Sec_Fetch_Site="cross-site"`."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | ({} if kind is None else {"Content-Type": kind})
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.read(), found, time.monotonic() - started)
    finally:
        connection.close()


def form(*photos: bytes, name: str = "photos", file_name: str = "cat.jpg") -> tuple[bytes, str]:
    """A multipart body as browsers send it, and its content type."""
    head = f'--=-b\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"".join(head.encode() + photo + b"\r\n" for photo in photos) + b"--=-b--\r\n"
    return body, 'multipart/form-data; boundary="=-b"'


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(colour: tuple[int, int, int] = (200, 20, 20), size: tuple[int, int] = (40, 36), kind: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", size, colour), kind)


def noise(px: int = 64, kind: str = "JPEG") -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (px, px, 3), dtype=np.uint8)), kind)


def slow_photo(px: int = 5000) -> bytes:
    """A small file that takes some tenths of a second to decode."""
    return photo(size=(px, px))
