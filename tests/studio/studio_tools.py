"""Talk with a studio that runs as a process of its own, as a browser's page does."""

import http.client
import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

WAIT_S = 120.0


@dataclass
class Running:
    """A studio process."""

    process: "subprocess.Popen[str]"
    link: str
    port: int
    errors: Path
    cookie: str = field(default="", repr=False)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of an answer; the request comes from the studio's own page unless told otherwise."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        own = {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {key: value for key, value in (own | named).items() if value})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def enter(self) -> str:
        """Use the link. Returns: the base path of the only project."""
        split = urlsplit(self.link)
        status, headers, _ = self.ask("GET", f"/?{split.query}")
        assert status == 303
        self.cookie = headers["set-cookie"].split(";")[0]
        _, headers, _ = self.ask("GET", "/")
        return headers["location"].rstrip("/")

    def post(self, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask("POST", path, urlencode(fields).encode(), Content_Type="application/x-www-form-urlencoded")


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """The journal as it is on disk, read as anybody might."""
    files = sorted((folder / ".headstart" / "jobs").glob("[0-9]*.json"))
    return [json.loads(path.read_text()) for path in files if re.fullmatch(r"\d+\.json", path.name)]


def until(what: Any, seconds: float = WAIT_S) -> Any:
    """Call `what` until it is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.1)
    return value
