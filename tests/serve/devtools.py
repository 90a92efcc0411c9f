"""Chromium without a window, driven through its own debugging pipe: pages are loaded, clicked, typed into, looked at."""

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

LIMIT_S = 60.0


class Tab:
    """One page in a browser of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip("no chromium in PATH to look at the page with")
        (their_input, self._to), (self._from, their_output) = os.pipe(), os.pipe()
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", *flags, "about:blank"]
        # The browser reads commands from descriptor 3 and answers on 4.
        script = f'exec "$0" "$@" 3<&{their_input} 4>&{their_output}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, *command],
            pass_fds=(their_input, their_output),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(their_input)
        os.close(their_output)
        self._rest, self._n_sent, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)

    def send(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol and its result. Raises: AssertionError: the browser refuses it."""
        self._n_sent += 1
        message = {"id": self._n_sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._n_sent:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 2**20)
            assert part, "the browser has gone"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def size(self, width_px: int, height_px: int = 900, *, touch: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=touch)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefers(self, **features: str) -> None:
        """`prefers(color_scheme="dark")`"""
        listed = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=listed)

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """What the expression gives, promises awaited. Raises: AssertionError: it throws."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Until the expression is true."""
        deadline = time.monotonic() + LIMIT_S
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"never: {script}; the page says: {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Pick files in a file input, as the browser's own dialog would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def drop(self, x: int, y: int, files: Sequence[Path]) -> None:
        """Drag files from outside and let them go at a place of the page."""
        data = {"items": [], "files": [str(path) for path in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def picture(self, path: Path | None = None, *, whole: bool = False) -> np.ndarray:
        """What the page looks like: uint8 [h, w, 3]."""
        data = base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        if path is not None:
            path.write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    def hosts(self) -> set[str]:
        """Every host that the page asked for something, ports included."""
        urls = [one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return {url.split("/")[2] for url in urls if url.startswith("http")}

    def complaints(self) -> list[str]:
        """What the browser's console holds of errors: blocked by the page's policy, not found, thrown."""
        found = [one["params"] for one in self.events if one.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
        return [json.dumps(one) for one in found if one.get("entry", {}).get("level", "error") == "error"]
