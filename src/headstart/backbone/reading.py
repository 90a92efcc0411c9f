"""Weights files: what is in one, read without running anything that it might carry."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from headstart.backbone import keras, packed
from headstart.errors import WeightsError

if TYPE_CHECKING:
    import torch

_GET_AGAIN = "get the file again"
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.")  # left by data-parallel and compiled training
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


def read_header(path: Path) -> dict[str, Any] | None:
    """The JSON under the metadata key `headstart` of a safetensors file; None where there is none, or for other files.

    Raises: WeightsError: there is no such file, or it is damaged.
    """
    if _kind(path) != "safetensors":
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is damaged or incomplete: {error}", hint=_GET_AGAIN) from error
    text = None if metadata is None else metadata.get("headstart")
    if text is None:
        return None
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"the 'headstart' metadata of {path} is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise WeightsError(f"expected a JSON object as 'headstart' metadata of {path}, found {type(header).__name__}")
    return header


def is_keras(path: Path) -> bool:
    """Whether it is an HDF5 file, as Keras writes them. Raises: WeightsError: there is no such file, or it is no weights file."""
    return _kind(path) == "keras"


def read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """All tensors of a safetensors file, a torch state dict or a Keras file by name, float32 where they are numbers of any precision.

    Packed tensors (backbone/packed.py) are unpacked.

    Raises: WeightsError: damaged, no weights at all, holding code, or with values that are not finite.
    """
    import safetensors.torch  # PyTorch takes seconds to import, and many only look for a file here
    import torch

    kind = _kind(path)
    if kind == "safetensors":
        try:
            tensors = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise WeightsError(f"{path} is damaged or incomplete: {error}", hint=_GET_AGAIN) from error
    else:
        tensors = keras.read(path) if kind == "keras" else _read_torch(path)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors", hint="expected a safetensors file or a torch state dict")
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in packed.unpacked(tensors).items()}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        found = f"{len(broken)} of {len(tensors)} tensors in {path}"
        raise WeightsError(f"{found} hold NaN or infinite values, {broken[0]} first", hint=_GET_AGAIN)
    return tensors


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex; computed once while the file stays as it is (0.1 s for 100 MB)."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@cache
def _sha256(path: Path, n_bytes: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(path: Path) -> str:
    """`safetensors`, `torch` or `keras`, by content. Raises: WeightsError: none of them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {path}", hint="check the path given to --weights") from None
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror}") from error
    if size == 0:
        raise WeightsError(f"{path} is empty (0 bytes)", hint=_GET_AGAIN)
    for beginning, what in ((b"<", "a web page"), (b"version https://git-lfs", "a Git LFS pointer")):
        if start.lstrip().startswith(beginning):
            raise WeightsError(f"expected a file of weights, found {what}: {path}", hint="download the file itself")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER_BYTES:
        return "safetensors"
    raise WeightsError(f"expected safetensors, a torch state dict or Keras's HDF5, found something else: {path}", hint=_GET_AGAIN)


def _read_torch(path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors (pickled Python objects), which could run code, so it is not loaded",
            hint="save only its state dict: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, zipfile's and others for damaged files
        reason = str(error).splitlines()
        raise WeightsError(f"{path} is damaged or incomplete: {reason[0] if reason else 'it ends too early'}", hint=_GET_AGAIN) from error
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise WeightsError(f"expected a state dict (names and tensors) in {path}, found {type(content).__name__}")
    return {_bare(str(name)): tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
