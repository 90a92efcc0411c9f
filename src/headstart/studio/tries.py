"""Photos that were tried: the answer, and where the classifier looked. Kept in memory for a while, never on disk."""

import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from headstart.bundle import explain
from headstart.bundle.format import Bundle, load_bundle
from headstart.bundle.predict import Prediction

MOST = 8  # photos kept
SHOWN_PX = 480  # shorter side of the pictures on the page


@dataclass(frozen=True)
class Tried:
    """A photo and what was said of it."""

    id: str
    content: bytes
    run: Path
    answer: Prediction
    coverage: float
    """for what share of photos `answer.labels` holds the right class; 0 where the model has no such sets"""


class Tries:
    """Asks models about photos, a few of which it remembers. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Tried] = OrderedDict()
        self._bundles: dict[Path, Bundle] = {}
        self._changing = threading.Lock()

    def ask(self, run: Path, content: bytes) -> Tried:
        """What the model of a run says of a photo. Raises: BundleError: the model is damaged."""
        bundle = self._bundle(run)
        answer = bundle.predict(content, top=5, provider="onnxruntime", precision="fp32")
        coverage = 0.0 if bundle.conformal is None else bundle.conformal.coverage
        tried = Tried(secrets.token_urlsafe(12), content, run, answer, coverage)
        if answer.reason is None:
            with self._changing:
                self._kept[tried.id] = tried
                while len(self._kept) > MOST:
                    self._kept.popitem(last=False)
        return tried

    def get(self, tried_id: str) -> Tried | None:
        """A photo that is still remembered."""
        return self._kept.get(tried_id)

    def heat_map(self, tried: Tried) -> bytes:
        """Where it looked for its answer, over the photo: a PNG."""
        found = explain.heat_map(self._bundle(tried.run), tried.content, provider="onnxruntime", precision="fp32")
        return _png(explain.overlay(explain.upright(tried.content, SHOWN_PX), found))

    def _bundle(self, run: Path) -> Bundle:
        with self._changing:
            if run not in self._bundles:
                self._bundles = {run: load_bundle(run)}  # one is enough: the newest
            return self._bundles[run]


def picture(content: bytes | Path, shorter_px: int) -> bytes:
    """A photo as a browser shows it, whatever its format: a JPEG, upright, at most so large. Raises: UnreadableImage."""
    image = explain.upright(content, shorter_px)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
