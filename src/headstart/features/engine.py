"""What runs a frozen trunk: OpenVINO where it is installed and the device is a CPU, else PyTorch, which always works.

Both give float32 rows that agree within the precision's tolerance (tests/features/test_engine.py), but not to the bit:
engine, version and precision are therefore part of the store's key.
"""

import copy
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from headstart.backbone.cut import Trunk
from headstart.errors import ConfigError, HeadstartError
from headstart.features import runtime
from headstart.features.onnx import to_onnx
from headstart.files import cache_folder

log = logging.getLogger("headstart")


class CannotExportError(HeadstartError):
    """This trunk cannot be turned into a graph for the engine; PyTorch can still run it."""


class Session(Protocol):
    """An opened trunk."""

    @property
    def batch_size(self) -> int:
        """Photos a batch that suit this session."""

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        """Batches uint8 [n, h, w, 3] to float32 rows [n, ...], in order, reading ahead while it computes."""


@dataclass(frozen=True)
class Choice:
    """An engine, fully decided. `name` (with the library's version) and `precision` go into store keys."""

    provider: str  # "openvino" or "torch"
    device: str  # "cpu", "cuda", "mps"
    precision: str  # "fp32" or "bf16"

    @property
    def name(self) -> str:
        """For people and keys: `openvino 2026.4.1`, `torch 2.15.0 cuda`."""
        version = importlib.metadata.version(self.provider)
        return f"{self.provider} {version}" if self.provider == "openvino" else f"torch {version} {self.device}"


def choose(provider: str = "auto", device: str = "auto", precision: str = "auto") -> Choice:
    """Decide what `auto` means on this machine.

    The decision depends on the machine and the request alone, never on how much work there is: a run that adds one
    photo must find the rows of the run before it.

    Raises: ConfigError: the device or engine asked for is not there.
    """
    device = choose_device(device)
    has_openvino = importlib.util.find_spec("openvino") is not None
    if provider == "auto":
        provider = "openvino" if has_openvino and device == "cpu" else "torch"
    if provider == "openvino" and not has_openvino:
        raise ConfigError("engine 'openvino' is not installed", hint="pip install 'headstart[fast]', or --set engine=torch")
    if provider == "openvino" and device != "cpu":
        raise ConfigError(f"engine 'openvino' computes on the CPU here, device '{device}' was asked for", hint="--set engine=torch")
    if precision == "auto":
        fast = runtime.bf16_is_fast() if device == "cpu" else device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if fast else "fp32"
    return Choice(provider, device, precision)


def choose_device(device: str) -> str:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises: ConfigError: the device asked for is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise ConfigError(
            f"no device '{device}' on this machine; there is: {', '.join(name for name, is_there in there.items() if is_there)}",
            hint="leave --device out to use the best there is",
        )
    return device


def open_trunk(trunk: Trunk, choice: Choice) -> Session:
    """Make `trunk` ready to run. Raises: CannotExportError: another engine than PyTorch cannot run it."""
    if choice.provider == "torch":
        return TorchSession(trunk, choice)
    path = _graph_path(trunk)
    try:
        if path.exists():
            try:
                return runtime.open_session(path, provider="openvino", precision=choice.precision)
            except HeadstartError:
                raise
            except Exception as error:  # damaged, or of a kind this engine cannot run: only a fresh export tells which
                log.info("the exported trunk %s cannot be opened and is made again: %s", path, error)
                path.unlink(missing_ok=True)
        to_onnx(trunk, path, px=trunk.network.preprocessing.input_px)
        return runtime.open_session(path, provider="openvino", precision=choice.precision)
    except HeadstartError:
        raise
    except Exception as error:  # exporters fail in many ways on networks they do not know; all mean the same here
        log.info("%s cannot run %s up to %s: %s", choice.name, trunk.network.name, trunk.cut, error)
        raise CannotExportError(f"{choice.name} cannot run {trunk.network.name} up to '{trunk.cut}'") from error


def _graph_path(trunk: Trunk) -> Path:
    """Where the exported trunk is kept: exporting takes seconds, and the next run on new photos needs the same graph."""
    network = trunk.network
    parts = [network.name, network.weights_sha256, network.stop, trunk.cut, network.preprocessing.to_json(), torch.__version__]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "graphs" / f"{digest[:32]}.onnx"


class TorchSession:
    """The trunk in PyTorch, channels last, on any device; a batch that does not fit its memory is halved."""

    def __init__(self, trunk: Trunk, choice: Choice) -> None:
        # A copy: `to` moves a module in place, and the caller's trunk becomes part of the whole network, on the caller's device.
        self._trunk = copy.deepcopy(trunk).to(choice.device).to(memory_format=torch.channels_last)
        self._device = torch.device(choice.device)
        self._autocast = choice.precision == "bf16"
        self.batch_size = 32 if choice.device == "cpu" else 256

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        for batch in batches:
            yield self.run(batch)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Rows of one batch, uint8 [n, h, w, 3] to float32 [n, ...]."""
        parts = np.array_split(batch, max(1, -(-len(batch) // self.batch_size)))
        try:
            return np.concatenate([self._forward(part) for part in parts])
        except RuntimeError as error:
            if not is_out_of_memory(error) or self.batch_size == 1:
                raise
        self.batch_size = max(1, self.batch_size // 2)
        log.warning("out of memory: batches of the trunk pass are now %d photos", self.batch_size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.run(batch)

    def _forward(self, batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            rows = self._trunk(torch.from_numpy(batch).to(self._device))
        return rows.float().cpu().numpy()  # type: ignore[no-any-return]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch ran out of memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "not enough memory" in str(error)
