"""A thrifty HTTP client for load: one thread, keep-alive connections, about 50 microseconds of CPU a request. Used by bench/serve.py.

    python bench/load.py PORT PHOTOS --seconds 10 --connections 16     as many requests as answers come back (closed loop)
    python bench/load.py PORT PHOTOS --seconds 10 --rate 300           so many requests a second, answered or not (open loop)

Prints one JSON object: requests by status, and for each status the times from sending to the whole answer, in ms.
"""

import argparse
import asyncio
import itertools
import json
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MOST_CONNECTIONS = 400


class Connection(asyncio.Protocol):
    """Sends one request at a time and tells `done` the status and the time of each answer."""

    def __init__(self, done: Callable[["Connection", int, float], None]) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._got, self._needed, self._status, self._sent = b"", -1, 0, 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, at: float) -> None:
        self.busy, self._sent = True, at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._needed < 0 and (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            self._status = int(head[9:12])
            self._needed = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if 0 <= self._needed <= len(self._got):
            self._got, self._needed, self.busy = b"", -1, False
            self._done(self, self._status, time.monotonic() - self._sent)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self.busy = False
            self._done(self, 0, time.monotonic() - self._sent)  # 0: lost without an answer

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()


class Tally:
    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = defaultdict(list)

    def to_json(self, wall_s: float) -> dict[str, object]:
        found: dict[str, object] = {"wall_s": wall_s, "statuses": {}}
        for status, seconds in sorted(self.seconds.items()):
            p50, p99, most = (1000 * float(value) for value in (*np.percentile(seconds, (50, 99)), max(seconds)))
            found["statuses"][str(status)] = {"n": len(seconds), "p50_ms": p50, "p99_ms": p99, "max_ms": most}  # type: ignore[index]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {**found, "cpu_s": usage.ru_utime + usage.ru_stime}


def requests(photos: list[bytes], path: str, kind: str) -> Iterator[bytes]:
    """Raw HTTP for each photo, again and again: raw bytes, or a form of one file as browsers send it."""
    made = []
    for photo in photos:
        if kind == "form":
            photo = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n' + photo + b"\r\n--x--\r\n"
        mime = "multipart/form-data; boundary=x" if kind == "form" else "image/jpeg"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {mime}\r\nContent-Length: {len(photo)}\r\n\r\n"
        made.append(head.encode() + photo)
    return itertools.cycle(made)


async def closed(port: int, sent: Iterator[bytes], seconds: float, n_connections: int, tally: Tally) -> float:
    """Each connection sends its next request when it has its answer. The first second is not counted. Returns: seconds counted."""
    loop = asyncio.get_running_loop()
    start = loop.time() + 1.0
    end = start + seconds
    finished = asyncio.Event()
    n_busy = 0

    def done(connection: Connection, status: int, took_s: float) -> None:
        nonlocal n_busy
        if start <= loop.time() <= end:
            tally.seconds[status].append(took_s)
        if loop.time() < end and connection.open:
            connection.send(next(sent), time.monotonic())
            return
        n_busy -= 1
        if n_busy == 0:
            finished.set()

    for _ in range(n_connections):
        _, connection = await loop.create_connection(lambda: Connection(done), "127.0.0.1", port)
        n_busy += 1
        connection.send(next(sent), time.monotonic())
    await finished.wait()
    return seconds


async def open_loop(port: int, sent: Iterator[bytes], seconds: float, rate: float, tally: Tally) -> float:
    """A request every 1 / rate seconds over whichever connection is idle; up to 400 are opened. Returns: seconds it took."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    n_open = n_busy = 0

    def done(connection: Connection, status: int, took_s: float) -> None:
        nonlocal n_open, n_busy
        tally.seconds[status].append(took_s)
        n_busy -= 1
        if connection.open:
            idle.append(connection)
        else:
            n_open -= 1

    start = time.monotonic()
    for i in range(int(rate * seconds)):
        due = start + i / rate
        if (wait := due - time.monotonic()) > 0.001:
            await asyncio.sleep(wait)
        elif i % 8 == 0:
            await asyncio.sleep(0)
        while idle and not idle[-1].open:
            idle.pop()
            n_open -= 1
        if not idle:
            if n_open >= MOST_CONNECTIONS:
                tally.seconds[-1].append(0.0)  # -1: not sent, every connection was busy
                continue
            _, connection = await loop.create_connection(lambda: Connection(done), "127.0.0.1", port)
            n_open += 1
            idle.append(connection)
        n_busy += 1
        idle.pop().send(next(sent), time.monotonic())
    deadline = time.monotonic() + 60
    while n_busy and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("photos", type=Path, help="a folder")
    parser.add_argument("--path", default="/v1/predict")
    parser.add_argument("--kind", choices=("raw", "form"), default="raw")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float)
    asked = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(asked.photos.rglob("*.jp*g"))]
    sent, tally = requests(photos, asked.path, asked.kind), Tally()
    if asked.rate is None:
        run = closed(asked.port, sent, asked.seconds, asked.connections, tally)
    else:
        run = open_loop(asked.port, sent, asked.seconds, asked.rate, tally)
    print(json.dumps(tally.to_json(asyncio.run(run))))


if __name__ == "__main__":
    main()
