"""Chromium without a window, driven through its own debugging pipe: pages are loaded, clicked, typed into, looked at.

The pipe and the DevTools protocol are all it takes: no driver or library has to fit the browser of the machine.
"""

import base64
import io
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

LIMIT_S = 60.0  # for one answer, and for a page to get there: long enough for a busy machine
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # /dev/shm of a container is often too small
]
KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}  # the code of Windows, the text it types


class PageError(Exception):
    """The page threw an error, or the browser refused a command."""


def chromium() -> str:
    """The program; the test that asks for it is skipped where there is none."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name)) is not None), None)
    if program is None:
        pytest.skip("no chromium in PATH to look at the page with")
    return program


@contextmanager
def new_tab(folder: Path, *flags: str) -> Iterator["Tab"]:
    """A page in a browser of its own, whose profile lies in `folder`; the browser and all it started end with the block.

    The test that asks for it is skipped where there is no Chromium.
    """
    program = chromium()
    (their_input, to_browser), (from_browser, their_output) = os.pipe(), os.pipe()
    command = [program, *FLAGS, *flags, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    # The browser reads commands from descriptor 3 and answers on 4.
    script = f'exec "$0" "$@" 3<&{their_input} 4>&{their_output}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, *command],
        pass_fds=(their_input, their_output),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"LC_ALL": "C.UTF-8"},  # names of files that are dropped
        start_new_session=True,
    )
    os.close(their_input)
    os.close(their_output)
    try:
        yield Tab(to_browser, from_browser)
    finally:
        # Killed, all of the group: a browser that hangs would not end when told to, and nobody needs this profile any more.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser)
        os.close(from_browser)


class Tab:
    """One page. Selectors are CSS and mean the first element that fits; what fails raises, and what hangs does after LIMIT_S."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest, self._n_sent, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []  # all that the browser told by itself; clear it to start afresh
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol and its result. Raises: PageError: the browser refuses it."""
        self._n_sent += 1
        message = {"id": self._n_sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT_S
        while (answer := self._receive(method, deadline)).get("id") != self._n_sent:
            self.events.append(answer)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self, method: str, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser does not answer: {method}")
            part = os.read(self._from, 2**20)
            if not part:
                raise EOFError(f"the browser has gone: {method}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    # What to look at, and as whom.

    def open(self, address: str) -> None:
        failure = self.send("Page.navigate", url=address).get("errorText")
        if failure is not None:
            raise PageError(f"{address}: {failure}")
        self.wait("location.href !== 'about:blank'")

    def size(self, width_px: int, height_px: int = 900, *, touch: bool = False) -> None:
        """The window's size; with `touch` it is a phone's, with a finger instead of a mouse."""
        self.send("Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=touch)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefers(self, **features: str) -> None:
        """`prefers(color_scheme="dark")`; what is not named is as the browser has it."""
        listed = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=listed)

    # What a person does.

    def click(self, selector: str) -> None:
        """Click as the mouse does, in the middle of the element, so that nothing may lie over it."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press and release a key of `KEYS`."""
        code, text = KEYS[key]
        for kind, typed in (("keyDown", text), ("keyUp", "")):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=typed)

    def drop(self, selector: str, files: Sequence[Path]) -> None:
        """Drag files or folders in from a file manager and let them go over the middle of the element."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(path) for path in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Pick files in a file input, as the browser's own dialog would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def _middle(self, selector: str) -> tuple[float, float]:
        """Scroll there. Returns: x and y of the element's middle in the window, px."""
        script = (
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'center', behavior: 'instant'}); const box = one.getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        x, y = self.run(script)
        return x, y

    # What there is to see.

    def run(self, script: str) -> Any:
        """What the expression gives, promises awaited. Raises: PageError: it throws."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            raise PageError(f"{script}: {_error(found['exceptionDetails'])}")
        return found["result"].get("value")

    def wait(self, script: str, limit_s: float = LIMIT_S) -> None:
        """Until the page has loaded, its scripts with it, and the expression is true.

        One that throws is tried again: between two pages there may be nothing to ask.
        """
        deadline, trouble = time.monotonic() + limit_s, ""
        while time.monotonic() < deadline:
            try:
                if self.run(f"document.readyState === 'complete' && Boolean({script})"):
                    return
                trouble = ""
            except PageError as error:
                trouble = f" ({error})"
            time.sleep(0.05)
        text = self.run("document.body?.innerText ?? ''")
        raise TimeoutError(f"never true in {limit_s:g} s: {script}{trouble}; the page says: {text[:1500]}")

    def picture(self, path: Path | None = None, *, whole: bool = False) -> NDArray[np.uint8]:
        """What the window shows, or the whole page however long it is: [h, w, 3]; with `path`, it is kept there as a PNG."""
        content = base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        if path is not None:
            path.write_bytes(content)
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))

    def hosts(self) -> set[str]:
        """Every host that the page asked for something, ports included: a page that keeps to itself has one."""
        urls = [one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls} - {""}  # data: and blob: have none

    def complaints(self) -> list[str]:
        """The errors in the browser's console: blocked by the page's policy, not found, thrown."""
        found = []
        for one in self.events:
            if one.get("method") == "Log.entryAdded" and one["params"]["entry"]["level"] == "error":
                found.append(f"{one['params']['entry']['text']} {one['params']['entry'].get('url', '')}")
            elif one.get("method") == "Runtime.exceptionThrown":
                found.append(_error(one["params"]["exceptionDetails"]))
        return found


def _error(details: dict[str, Any]) -> str:
    """An error of the page's scripts in words, with the lines it came through where they are known."""
    return str(details.get("exception", {}).get("description", details["text"]))
