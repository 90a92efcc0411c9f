"""`headstart serve` as a process: what it prints, how it starts, reloads and ends."""

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serve_tools import Answer, ask, form, photo, slow_photo

from headstart.errors import ConfigError
from headstart.serve.models import names_of

COMMAND = [sys.executable, "-c", "from headstart.cli.main import main; main()", "serve"]
Start = Callable[..., "Process"]


class Process:
    def __init__(self, *words: str, **environment: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, `close` closes it; a pipe that nobody reads would be full after some hundred requests
        self.process = subprocess.Popen(
            [*COMMAND, *words, "--port", "0"], stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, **environment}
        )
        self.said = self.process.stdout.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+)$", self.said.strip())
        assert found is not None, (self.said, self.log())
        self.port = int(found[1])

    def ends(self) -> tuple[int, list[dict]]:
        """Its exit status, and its log."""
        self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in self.log().splitlines()]

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._log.close()


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def make(*words: str, **environment: str) -> Process:
        started.append(Process(*words, **environment))
        return started[-1]

    yield make
    for one in started:
        one.close()


def test_sigterm_answers_what_was_accepted_and_exits_with_0(start: Start, built: Path) -> None:
    server = start(f"tiny={built}", "--provider", "onnxruntime")
    assert server.said.startswith("Serving tiny (3 classes) at http://127.0.0.1:")
    found: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server.port, "/v1/predict", *form(*[slow_photo(3000)] * 4)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while int(_metric(server.port, "headstart_queue_photos")) < 12:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    status, log = server.ends()
    assert [one.status for one in found] == [200] * 4
    assert status == 0
    assert [one["event"] for one in log if one["event"] != "request"] == ["started", "stopping", "stopped"]
    assert (log[-1]["photos"], [one["photos"] for one in log if one["event"] == "request" and "photos" in one]) == (0, [4] * 4)
    with pytest.raises(ConnectionRefusedError):
        ask(server.port, "/healthz")


def test_clients_that_keep_connections_lose_no_request_when_the_server_ends(start: Start, built: Path) -> None:
    server = start(f"tiny={built}", "--provider", "onnxruntime")
    answers: list[int] = []
    lost: list[Exception] = []

    def client() -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                connection.connect()
            except OSError:
                return  # the port is closed
            for n_before in itertools.count():
                try:
                    connection.request("POST", "/v1/predict", photo())
                    response = connection.getresponse()
                    response.read()
                except OSError as error:
                    lost.extend([error] if n_before else [])  # a new connection may meet the port's end; a kept one may not
                    connection.close()
                    return
                answers.append(response.status)
                if response.will_close:
                    connection.close()
                    break

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answers) < 20:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(timeout=60)
    assert (lost, set(answers), server.ends()[0]) == ([], {200}, 0)


def _metric(port: int, name: str) -> float:
    found = re.search(rf"(?m)^{name} (\S+)$", ask(port, "/metrics").body.decode())
    assert found is not None
    return float(found[1])


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_sighup_loads_the_models_again_and_ctrl_c_ends(start: Start, built: Path, folder: Path, other_built: Path) -> None:
    token = {"Authorization": "Bearer a-token-for-this-test"}
    server = start(str(folder), f"b={built}", "--host", "0.0.0.0", "--provider", "onnxruntime", HEADSTART_TOKEN="a-token-for-this-test")
    assert server.said.startswith("Serving flowers (3 classes), b (3 classes) at ")
    assert ask(server.port, "/v1/models").status == 401

    def version() -> str:
        return ask(server.port, "/v1/models", **token).json["models"][0]["version"]

    before = version()
    shutil.rmtree(folder)
    shutil.copytree(other_built, folder)
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while version() == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ask(server.port, "/v1/predict?model=b", photo(), **token).json["model"] == "b"
    server.process.send_signal(signal.SIGINT)
    status, log = server.ends()
    assert status == 0
    assert "reloaded" in [one["event"] for one in log]
    assert "a-token-for-this-test" not in json.dumps(log)


def _fails(*words: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "HEADSTART_TOKEN"}
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_what_cannot_start_says_why(built: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1:{port}: Address already in use\nhint: choose another --port" in _fails(
            str(built), "--port", port
        )
    said = _fails(str(built), "--host", "0.0.0.0")
    assert said.startswith(
        "error: expected a token in HEADSTART_TOKEN, since other machines can reach 0.0.0.0\nhint: export HEADSTART_TOKEN="
    )
    with pytest.raises(ConfigError, match="several models are called run"):
        names_of([str(built), str(built.parent)])
    assert names_of([f"a={built}", str(built)]) == [("a", str(built)), ("run", str(built))]
    assert names_of(["mobilenetv2_100", "x/a=b"]) == [("mobilenetv2_100", "mobilenetv2_100"), ("a=b", "x/a=b")]
