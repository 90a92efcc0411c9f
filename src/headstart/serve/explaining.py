"""Heat maps on the side: one at a time, few waiting, and giving way to predictions between two batches."""

import asyncio
import base64
import io
import time
from collections.abc import Callable
from typing import Any

from headstart.bundle.explain import find_label, heat_map, overlay, upright
from headstart.data.pixels import UnreadableImage, probe
from headstart.errors import ConfigError
from headstart.serve.models import Loaded
from headstart.serve.refusals import Refused
from headstart.serve.settings import Settings

_MOST_WAITING = 4
_TIMES_TIMEOUT = 2  # a heat map may take this many times as long as a prediction may
_PICTURE_PX = 480  # shorter side of the picture that is sent
_GIVE_WAY_S = 0.01


class _GivenUp(Exception):  # noqa: N818 - ends the thread's work, reaches no one
    pass


class Explainer:
    """Made and used in an event loop."""

    def __init__(self, settings: Settings, n_predicting: Callable[[], int]) -> None:
        """Args: n_predicting: how many photos wait for a prediction now."""
        self._settings = settings
        self._n_predicting = n_predicting
        self._turn = asyncio.Lock()
        self._n_waiting = 0

    async def explain(self, model: Loaded, photo: bytes, label: str | None) -> dict[str, Any]:
        """Where in the photo the label comes from, with the picture as base64 PNG.

        Raises: Refused: 404 no such label, 422 the photo, 429 others wait already, 503 predictions left no time for it.
        """
        if label is not None:
            try:
                find_label(model.bundle, label)
            except ConfigError as error:
                raise Refused(404, error.message[:200], hint=error.hint) from None
        if self._n_waiting >= _MOST_WAITING:
            raise Refused(429, "others wait for heat maps", hint="try again in 5 s", headers={"Retry-After": "5"})
        limit_s = _TIMES_TIMEOUT * self._settings.timeout_s
        deadline = time.monotonic() + limit_s
        self._n_waiting += 1
        try:
            async with asyncio.timeout(limit_s), self._turn:
                return await asyncio.to_thread(self._explain, model, photo, label, deadline)
        except (TimeoutError, _GivenUp):
            raise Refused(
                503,
                f"no time for a heat map within {limit_s:g} s",
                hint="try again when fewer photos come in",
                headers={"Retry-After": "10"},
            ) from None
        finally:
            self._n_waiting -= 1

    def _explain(self, model: Loaded, photo: bytes, label: str | None, deadline: float) -> dict[str, Any]:
        def give_way(n_done: int) -> None:
            while self._n_predicting() > 0 and time.monotonic() < deadline:
                time.sleep(_GIVE_WAY_S)
            if time.monotonic() >= deadline:
                raise _GivenUp

        try:
            _check_size(photo, self._settings.max_pixels)
            give_way(0)
            session = model.session
            found = heat_map(model.bundle, photo, label, provider=session.provider, precision=session.precision, advance=give_way)
        except UnreadableImage as error:
            raise Refused(422, f"the photo cannot be read: {error.reason}") from None
        picture = io.BytesIO()
        overlay(upright(photo, _PICTURE_PX), found).save(picture, "PNG")
        return {
            "model": model.name,
            "version": model.version,
            "label": found.label,
            "probability": found.probability,
            "probability_hidden": found.probability_hidden,
            "found": bool(found.values.any()),
            "png": base64.b64encode(picture.getvalue()).decode("ascii"),
        }


def _check_size(photo: bytes, max_pixels: int) -> None:
    """Raises: UnreadableImage: its header says that it has more pixels than that, or is damaged."""
    facts = probe(photo)
    if facts.width * facts.height > max_pixels:
        raise UnreadableImage(f"{facts.width} x {facts.height} pixels, more than the {max_pixels:,} a photo may have")
