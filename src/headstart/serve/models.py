"""The models of a server: opened, named, replaced while requests run when their files change."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.bundle.format import RECORD_FILE, Bundle, load_bundle
from headstart.bundle.predict import open_engine
from headstart.bundle.record import IR_FILE, IR_WEIGHTS_FILE, NETWORK_FILE, TAIL_FILE
from headstart.data.pixels import DECODER
from headstart.errors import ConfigError, HeadstartError, did_you_mean, safe_text
from headstart.features.runtime import Session
from headstart.serve.refusals import Refused

log = logging.getLogger("headstart.serve")

_CARD_FILE = "MODEL_CARD.md"
_LARGEST_CARD_BYTES = 2**20
_WATCHED = (RECORD_FILE, NETWORK_FILE, IR_FILE, IR_WEIGHTS_FILE, TAIL_FILE)

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """One state of a model, ready to answer. A request keeps the one it was accepted with."""

    name: str
    bundle: Bundle
    session: Session
    version: str
    """the first 12 digits of the digest of its bundle.json"""
    card: str | None
    """MODEL_CARD.md of its run, where there is one"""
    loaded: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """What anyone may know of the model: no path of this machine."""
        record = self.bundle.record
        return {
            "name": self.name,
            "version": self.version,
            "labels": [{"name": one.name, "id": one.id, "threshold": record.thresholds.get(one.name)} for one in record.labels],
            "preprocessing": record.preprocessing.to_json(),
            "temperature": record.temperature,
            "none_of_these": None if record.none_of_these is None else record.none_of_these.to_json(),
            "conformal": None if record.conformal is None else record.conformal.to_json(),
            "licence": record.licence,
            "provenance": dict(record.provenance),
            "card": self.card,
            "engine": f"{self.session.engine}, {self.session.precision}",
            "decoder": DECODER,
            "loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.loaded)),
        }


def load(name: str, bundle: Bundle, provider: str = "auto", precision: str = "auto") -> Loaded:
    """Open a model's network and check it on the golden pictures. Raises: BundleError, ConfigError: as `open_engine`."""
    session = open_engine(bundle, provider, precision)
    digest = str(bundle.record.to_json()["digest"])
    return Loaded(name, bundle, session, digest[:12], _card(bundle.folder))


class Models:
    """Models by name; the first is the one that is meant where none is named."""

    def __init__(self, loaded: Sequence[Loaded], provider: str = "auto", precision: str = "auto") -> None:
        self._engine = provider, precision
        self._loaded = {one.name: one for one in loaded}
        self._signatures = {one.name: _signature(one.bundle.folder) for one in loaded}
        self._reloading = threading.Lock()
        if len(self._loaded) < len(loaded):
            raise ConfigError("two models have the same name", hint="name them: headstart serve first=runs/a second=runs/b")

    @property
    def names(self) -> list[str]:
        return list(self._loaded)

    @property
    def all(self) -> list[Loaded]:
        return list(self._loaded.values())

    def of(self, name: str | None) -> Loaded:
        """The model of that name. Raises: Refused: 404, there is none."""
        if name is None:
            return next(iter(self._loaded.values()))
        try:
            return self._loaded[name]
        except KeyError:
            near = did_you_mean(name, self._loaded)
            raise Refused(
                404, f"no model is called {safe_text(name)[:100]!r}", hint=near or f"one of {', '.join(self.names)}"[:300]
            ) from None

    def changed(self) -> list[str]:
        """Names of the models whose files are no longer those that were last looked at."""
        return [name for name, one in self._loaded.items() if _signature(one.bundle.folder) not in (None, self._signatures[name])]

    def reload(self, name: str) -> bool:
        """Load a model again from its folder and let it answer from now on; where that fails, the one that runs stays.

        Requests that were accepted before are answered by the model they were accepted with.
        """
        with self._reloading:
            running = self._loaded[name]
            self._signatures[name] = _signature(running.bundle.folder)
            try:
                found = load(name, load_bundle(running.bundle.folder), *self._engine)
            except (HeadstartError, OSError) as error:
                text = error.message if isinstance(error, HeadstartError) else str(error)
                log.error("not reloaded", extra={"facts": {"model": name, "error": safe_text(text), "version": running.version}})
                return False
            self._loaded[name] = found
            log.info("reloaded", extra={"facts": {"model": name, "version": found.version, "before": running.version}})
            return True


def _signature(folder: Path) -> Signature | None:
    """What tells one state of a model's files from another without reading them; None while the model is not there."""
    found = []
    for name in _WATCHED:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found) if found and found[0][0] == _WATCHED[0] else None


def _card(folder: Path) -> str | None:
    path = folder.parent / _CARD_FILE
    try:
        fits = folder.name == "model" and path.stat().st_size <= _LARGEST_CARD_BYTES
        return path.read_text(encoding="utf-8", errors="replace") if fits else None
    except OSError:
        return None


def names_of(models: Sequence[str]) -> list[tuple[str, str]]:
    """`[NAME=]MODEL` as the user writes them -> name and model. A run folder is called as its folder is.

    Raises: ConfigError: two have the same name, or a name cannot stand in an address.
    """
    found = []
    for text in models:
        given, equals, model = text.partition("=")
        if not equals or "/" in given or not given:
            given, model = "", text
        path = Path(model)
        name = given or (path.resolve().parent.name if path.name == "model" else path.resolve().name or path.name)
        if not name or not name.isprintable() or len(name) > 100:
            raise ConfigError(f"expected a model's name of printable letters, found {safe_text(name)!r}", hint="name it: NAME=MODEL")
        found.append((name, model))
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several models are called {', '.join(twice)}", hint="name them: headstart serve first=runs/a second=runs/b")
    return found
