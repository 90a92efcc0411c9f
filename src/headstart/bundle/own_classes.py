"""A MODEL by its name: a run folder, a bundle, or a pretrained network that predicts its own classes."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbone import EMBEDDED_FILE
from headstart.bundle.format import Bundle, Label, load_bundle
from headstart.errors import BundleError, ConfigError
from headstart.files import cache_folder

if TYPE_CHECKING:
    from headstart.backbone.weights import WeightsFile


def open_model(model: str | Path, weights: Path | None = None) -> Bundle:
    """The model that `model` names. Only a network met for the first time needs PyTorch: it becomes a cached bundle.

    Args: weights: with a backbone's name, its file of weights.
    Raises:
        BundleError: the folder holds no model, or a damaged one.
        ConfigError: neither a folder nor a backbone has that name.
        WeightsError: the backbone's weights are not at hand.
    """
    path = Path(model)
    if any(os.path.exists(path / name) for name in ("run.json", "bundle.json")):
        if weights is not None:
            raise ConfigError(f"{path} carries its own weights", hint="leave --weights out; it goes with a backbone's name")
        return load_bundle(path)
    if os.path.exists(path) or re.search(r"[\\/]", str(model)):
        what = "holds neither run.json nor bundle.json" if os.path.exists(path) else "does not exist"
        raise BundleError(f"no model at {path}: it {what}", hint="give the folder that `headstart train --out` wrote, or a backbone's name")
    return _own_classes(str(model), weights)


def _own_classes(name: str, weights: Path | None) -> Bundle:
    """The bundle of a pretrained network with the classes it was pretrained on, made once and cached."""
    if (folder := _made_earlier(name, weights)) is not None:
        return load_bundle(folder)
    from headstart.backbone.weights import locate

    file = locate(name, weights, download=True)
    folder = _folder(name, file.sha256)
    if not os.path.exists(folder / "bundle.json"):
        _convert(name, file, folder)
    return load_bundle(folder)


def _folder(name: str, sha256: str) -> Path:
    return cache_folder() / "bundles" / f"{name.replace('/', '_')}-{sha256[:16]}"


def _made_earlier(name: str, weights: Path | None) -> Path | None:
    """The cached bundle, found without PyTorch: by the file's hash; or, where no file is given, among those whose weights
    headstart found by itself. A file that was given once is not assumed again."""
    file = EMBEDDED_FILE if weights is None and name == "embedded" else weights
    if file is not None:
        if not os.path.isfile(file):
            return None
        with file.open("rb") as opened:
            folder = _folder(name, hashlib.file_digest(opened, "sha256").hexdigest())
        return folder if os.path.exists(folder / "bundle.json") else None
    for record in sorted((cache_folder() / "bundles").glob(f"{name.replace('/', '_')}-*/bundle.json")):
        try:
            backbone = json.loads(record.read_text(encoding="utf-8"))["provenance"]["backbone"]
            if backbone["name"] == name and backbone["origin"] != "given":
                return record.parent
        except (ValueError, KeyError, TypeError, OSError):
            continue  # a damaged bundle is made again
    return None


def _convert(name: str, file: "WeightsFile", folder: Path) -> None:
    from torch import nn

    from headstart.backbone import cut, networks
    from headstart.bundle.export import build_bundle

    network = networks.build(file)
    if network.n_classes == 0:
        raise ConfigError(f"the weights of {network.name} come without a classifier", hint="train one: headstart train PHOTOS --out RUN")
    trunk, tail = cut.split(network, "head")
    names = network.classes if network.classes is not None else tuple(f"class {i}" for i in range(network.n_classes))
    ids = network.synsets if network.synsets is not None else (None,) * len(names)
    build_bundle(
        folder,
        module=nn.Sequential(trunk, tail).eval(),
        labels=[Label(label, synset) for label, synset in zip(names, ids, strict=True)],
        preprocessing=network.preprocessing,
        temperature=1.0,
        provenance={"backbone": {"name": name, "weights_sha256": network.weights_sha256, "origin": network.origin}},
        licence=network.licence,
        tail_state=None,
    )
