"""A real browser to look at the page with, and what tests of the report share."""

import csv
import html
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MakeRun = Callable[..., Path]


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def text_of(page: Path, section: str | None = None) -> str:
    """The page's words without tags, or those of the section that is headed by this id: none where it is absent."""
    body = page.read_text(encoding="utf-8").split("</style>", 1)[1]
    if section is not None:
        found = re.search(rf'<section aria-labelledby="{section}">(.*?)</section>', body, flags=re.DOTALL)
        body = "" if found is None else found[1]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body))).replace("\u00a0", " ").strip()


class Browser:
    """Chromium without a window."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder

    def _run(self, *arguments: str) -> str:
        command = [self._program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        command += [f"--user-data-dir={self._folder / 'profile'}", "--allow-file-access-from-files", *arguments]
        # A file, not a pipe: the browser's helper processes may keep a pipe open for a while after it has answered.
        with (self._folder / "stdout").open("w+b") as answer:
            subprocess.run(
                command, stdout=answer, stderr=subprocess.DEVNULL, timeout=120, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"}
            )
            answer.seek(0)
            return answer.read().decode("utf-8", "replace")

    def dom(self, page: Path) -> str:
        """The page's document after loading, as HTML."""
        return self._run("--dump-dom", page.as_uri())

    def content_widths(self, page: Path, widths_px: Sequence[int]) -> dict[int, int]:
        """By width of the window, how wide the page's content is: the same, where nothing sticks out sideways."""
        # Frames, because windows narrower than 500 px do not exist; the page's own rules allow no script, so the page around it measures.
        wrapper = self._folder / "frames.html"
        measure = "const d = this.contentDocument.documentElement; this.title = d.clientWidth + ' holds ' + d.scrollWidth"
        frame = '<iframe src="{}" style="border:0;width:{}px;height:2000px" onload="{}"></iframe>'
        wrapper.write_text("<!doctype html>" + "".join(frame.format(page.as_uri(), width_px, measure) for width_px in widths_px))
        dom = self._run("--dump-dom", "--window-size=1400,2100", wrapper.as_uri())
        return {int(width): int(content) for width, content in re.findall(r'title="(\d+) holds (\d+)"', dom)}

    def title_of(self, page: Path, width_px: int, script: str, *, later: bool = False) -> str:
        """What `script`, run on a frame of this width when the page has loaded in it, makes the frame's title.

        Args: later: it does so within four seconds of the page's own time, rather than at once.
        """
        wrapper = self._folder / "frame.html"
        frame = f'<iframe src="{page.as_uri()}" style="border:0;width:{width_px}px;height:2000px" onload="{script}"></iframe>'
        wrapper.write_text(f"<!doctype html>{frame}")
        waiting = ["--virtual-time-budget=4000"] if later else []
        dom = self._run("--dump-dom", "--window-size=1400,2100", *waiting, wrapper.as_uri())
        found = re.search(r'title="([^"]*)"', dom)
        return "" if found is None else found[1]

    def picture(self, page: Path, width_px: int, *, dark: bool = False) -> np.ndarray:
        """What the page looks like: uint8 [h, w, 3]."""
        target = self._folder / "picture.png"
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        self._run(f"--window-size={width_px},1000", scheme, f"--screenshot={target}", page.as_uri())
        with Image.open(target) as image:
            return np.asarray(image.convert("RGB"))
