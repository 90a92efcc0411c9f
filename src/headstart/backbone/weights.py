"""Where pretrained weights come from: a file given, the embedded one, the local cache, a download when asked for by name."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headstart.backbone import EMBEDDED_FILE, keras
from headstart.backbone import download as hub
from headstart.backbone.catalog import EMBEDDED, KERAS_INCEPTION_V3, KERAS_RESNET50, Record, find, from_header
from headstart.backbone.reading import is_keras, read_header, read_tensors, sha256_of
from headstart.errors import WeightsError
from headstart.files import cache_folder

if TYPE_CHECKING:
    import torch

Origin = Literal["given", "embedded", "cache", "download"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and what is known of it."""

    path: Path
    sha256: str
    record: Record
    origin: Origin


def locate(name: str | None, weights: Path | None = None, *, download: bool = False) -> WeightsFile:
    """Find the weights to use: the file given; the embedded backbone; the local cache; the download.

    Args:
        name: a backbone's name; None: what the given file says, else the embedded one.
        weights: a file of weights.
        download: whether the network may be used where nothing is at hand.

    Raises:
        ConfigError: no such backbone.
        WeightsError: no weights at hand (the text says where they were looked for and the hint names the ways out), a damaged
            file, or a file whose header names another network.
    """
    if weights is not None:
        return _given(weights, name)
    if name is None or name == EMBEDDED:
        return embedded()
    record = find(name)
    path = local_file((name, record.name), record.hub_id)
    if path is not None:
        return _described(path, record, "cache")
    if download and record.hub_id is not None:
        return _described(hub.fetch(record.hub_id, ways_out(record)), record, "download")
    raise WeightsError(f"no weights of {record.name} at hand", hint=ways_out(record))


def embedded() -> WeightsFile:
    """The backbone that comes with headstart. Raises: WeightsError: this installation lacks it."""
    record = find(EMBEDDED)
    return WeightsFile(EMBEDDED_FILE, sha256_of(EMBEDDED_FILE), record, "embedded")


def local_file(stems: Iterable[str], hub_id: str | None) -> Path | None:
    """A file called by one of `stems` in headstart's own cache, or the file of `hub_id` in Hugging Face's, if it is there."""
    folder = cache_folder() / "weights"
    for stem in stems:
        for suffix in _SUFFIXES:
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None if hub_id is None else hub.cached(hub_id)


def load_state(file: WeightsFile) -> dict[str, "torch.Tensor"]:
    """Its tensors by name, float32. Raises: WeightsError: damaged, holding code, not finite."""
    return read_tensors(file.path)


def ways_out(record: Record) -> str:
    """What to do when the weights of `record` are not at hand, in one line."""
    place = cache_folder() / "weights" / f"{record.name}.safetensors"
    there = f" (from https://huggingface.co/{record.hub_id})" if record.hub_id is not None else ""
    keras_file = " (Keras keeps its own in ~/.keras/models: *_notop.h5)" if record.name in (KERAS_RESNET50, KERAS_INCEPTION_V3) else ""
    return f"give a file with --weights FILE{keras_file}, or put one at {place}{there}, or use --backbone {EMBEDDED}, which is here"


def _given(path: Path, name: str | None) -> WeightsFile:
    record = _own_record(path)
    if record is None:
        if name is None:
            raise WeightsError(f"{path} does not say which network it is for", hint="name it with --backbone")
        record = find(name)
    else:
        _check_name(name, record, path)
    return WeightsFile(path, sha256_of(path), record, "given")


def _described(path: Path, record: Record, origin: Origin) -> WeightsFile:
    """A file found by name: what it says itself, where it does, is better informed than the catalogue."""
    own = _own_record(path)
    if own is not None:
        _check_name(record.name, own, path)
        record = own if is_keras(path) else replace(own, name=record.name)
    return WeightsFile(path, sha256_of(path), record, origin)


def _own_record(path: Path) -> Record | None:
    """What the file itself says of its network: its header, or what a Keras file shows by its layers."""
    if is_keras(path):
        return find(keras.network_of(path))
    header = read_header(path)
    return None if header is None else from_header(header, str(path))


def _check_name(name: str | None, record: Record, path: Path) -> None:
    """Whether the file is of the network asked for; for a Keras file timm's name of the architecture is close enough."""
    known = {record.name.split(".")[0], *([record.architecture] if record.record_source == "headstart" else [])}
    if name is not None and name.split(".")[0] not in known:
        raise WeightsError(f"expected weights of {name}, found those of {record.name} in {path}", hint=f"use --backbone {record.name}")
