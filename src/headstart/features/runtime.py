"""Runs ONNX files, and OpenVINO's own, without PyTorch: OpenVINO where it is installed, ONNX Runtime elsewhere.

The frozen trunk's pass over the training photos and every prediction of a trained model go through here. Networks take
uint8 [n, px, px, 3] (n images of px x px RGB) and give float32 [n, ...]; their own preprocessing is part of the graph.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from headstart.errors import ConfigError, did_you_mean

PROVIDERS = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("auto", "fp32", "bf16")

# Images a batch at 224 px: enough to hide Python's share, few enough that a batch of feature maps stays small.
_BATCH_AT_224_PX = 16


class Session(Protocol):
    """An opened network."""

    provider: str
    """`openvino` or `onnxruntime`"""
    precision: str
    """`fp32` or `bf16`: what it computes in; inputs and outputs are the same either way"""
    engine: str
    """provider and version, as store keys hold it: `openvino 2026.4.1`"""
    batch_size: int
    """images a batch that suit this network"""
    input_shape: tuple[int, int, int]
    """(px, px, 3)"""
    output_shape: tuple[int, ...]
    """of one image's row"""

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, px, px, 3] -> float32 [n, *output_shape], any n, also 0."""

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        """`run` for each batch, in order; the next batches are fetched while earlier ones are computed."""


def open_session(
    path: Path,
    *,
    provider: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Session:
    """Make the network of an ONNX file, or of OpenVINO's own (.xml), ready to run on this machine's CPU.

    Args:
        provider: `openvino`, `onnxruntime`, or `auto`: OpenVINO where it is installed, for it is 2 to 4 times as fast.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the provider and the CPU compute in it fast.
        threads: CPU threads (>= 1); by default all cores.

    Raises:
        ConfigError: an unknown name, a provider that is not installed or cannot compute in that precision.
        Exception: of the provider's own kind, where it cannot run the network.
    """
    provider, precision = resolve(provider, precision)
    threads = cores() if threads is None else threads
    if provider == "openvino":
        return OpenVinoSession(path, precision, threads)
    return OnnxRuntimeSession(path, threads)


def resolve(provider: str, precision: str) -> tuple[str, str]:
    """What `auto` means on this machine, and whether the rest can be had. Raises: ConfigError: see `open_session`."""
    for name, choices, what in ((provider, PROVIDERS, "provider"), (precision, PRECISIONS, "precision")):
        if name not in choices:
            hint = did_you_mean(name, choices)
            raise ConfigError(f"expected a {what} of {', '.join(choices)}, found {name!r}", hint=hint)
    has_openvino = importlib.util.find_spec("openvino") is not None
    if provider == "openvino" and not has_openvino:
        raise ConfigError("provider 'openvino' is not installed", hint="pip install 'headstart[fast]', or use onnxruntime")
    if provider == "auto":
        provider = "openvino" if has_openvino else "onnxruntime"
    if provider == "onnxruntime" and precision == "bf16":
        raise ConfigError("onnxruntime does not compute in bf16 on a CPU", hint="use provider openvino, or precision fp32")
    if precision == "auto":
        precision = "bf16" if provider == "openvino" and bf16_is_fast() else "fp32"
    return provider, precision


def bf16_is_fast() -> bool:
    """Whether this CPU multiplies bf16 in hardware. Costs microseconds on Linux, OpenVINO's import elsewhere."""
    try:
        # OpenVINO also reports bf16 where AVX-512 only emulates it; the CPU's own list does not.
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    except OSError:
        if importlib.util.find_spec("openvino") is None:
            return False
        return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = os.cpu_count()
    return 1 if count is None else count


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which would report the import to Google Analytics and write to the home folder."""
    return import_without_telemetry("openvino")


def import_without_telemetry(name: str) -> ModuleType:
    """Import OpenVINO, or what is built on it, without the module that reports it. Raises: ModuleNotFoundError: it is not installed."""
    blocked = "openvino_telemetry"
    if name in sys.modules or blocked in sys.modules:
        return importlib.import_module(name)
    sys.modules[blocked] = None  # type: ignore[assignment]  # importing it then fails, and OpenVINO takes its own stub
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[blocked]


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU, fp32: quick to import and to open, and on every platform."""

    provider = "onnxruntime"
    precision = "fp32"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # 4: fatal; what fails is raised as well
        if platform.system() == "Windows":
            onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Threads that wait for work by spinning would take the cores from those that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.engine = f"onnxruntime {onnxruntime.__version__}"
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self.input_shape = _image_shape(self._session.get_inputs()[0].shape[1:])
        self.output_shape = _fixed(self._session.get_outputs()[0].shape[1:])
        self.batch_size = _batch_size(self.input_shape[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        _check(images, self.input_shape)
        parts = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        rows: list[np.ndarray] = [self._session.run([self._output], {self._input: part})[0] for part in parts]
        if len(rows) == 1:
            return rows[0]
        return np.concatenate(rows) if rows else np.zeros((0, *self.output_shape), np.float32)

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        return map(self.run, batches)


class OpenVinoSession:
    """OpenVINO on the CPU, in fp32 or bf16, with several small requests in flight so that no core waits for another.

    A request holds a fixed number of images, 1 at 224 px: static shapes compile to faster code, one image's feature maps
    stay in the CPU's cache, and a photo's answer cannot depend on what else is in its batch.
    Source: docs/LOG.md, "Batch size and streams in OpenVINO".
    """

    provider = "openvino"

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        # Weights that stay mapped change with their file: where another model is copied over it, answers go wrong or the process dies.
        core.set_property({"ENABLE_MMAP": False})
        model = core.read_model(path)
        self.input_shape = _image_shape([side.get_length() if side.is_static else -1 for side in list(model.input(0).partial_shape)[1:]])
        self._rows = _rows_a_request(self.input_shape[0])
        model.reshape([self._rows, *self.input_shape])
        hints = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision], "PERFORMANCE_HINT": "THROUGHPUT"}
        if path.suffix == ".onnx" and any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops()):
            hints["NUM_STREAMS"] = "1"  # several streams' compilers spoil one another's int8 weights: docs/LOG.md, "Exports"
        compiled = core.compile_model(model, "CPU", {**hints, "INFERENCE_NUM_THREADS": threads})
        self.output_shape = tuple(compiled.output(0).shape)[1:]
        self.precision = precision
        self.engine = f"openvino {importlib.metadata.version('openvino')}"
        self.batch_size = _batch_size(self.input_shape[0])
        self.n_streams = int(compiled.get_property("NUM_STREAMS"))
        # Two more than can run at once: one is being filled and one being emptied meanwhile.
        self._n_in_flight = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 2
        self._compiled = compiled

    def run(self, images: np.ndarray) -> np.ndarray:
        return next(self.map([images]))

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        idle: list[Any] = []  # requests are made here, not kept: so that two threads may use one session
        running: deque[tuple[Any, np.ndarray]] = deque()  # (request, where its rows go), oldest first
        unfinished: deque[tuple[np.ndarray, int]] = deque()  # (rows of a batch, n_started when it was complete)
        n_started = 0

        def finish_oldest() -> None:
            request, target = running.popleft()
            request.wait()
            target[...] = request.get_output_tensor(0).data[: len(target)]
            idle.append(request)

        for images in batches:
            _check(images, self.input_shape)
            rows = np.empty((len(images), *self.output_shape), np.float32)
            for start in range(0, len(images), self._rows):
                if len(running) == self._n_in_flight:
                    finish_oldest()
                request = idle.pop() if idle else self._compiled.create_infer_request()
                part = images[start : start + self._rows]
                request.get_input_tensor(0).data[: len(part)] = part  # what lies beyond a short part is computed and dropped
                request.start_async()
                running.append((request, rows[start : start + self._rows]))
                n_started += 1
            unfinished.append((rows, n_started))
            while unfinished and unfinished[0][1] <= n_started - len(running):
                yield unfinished.popleft()[0]
        while running:
            finish_oldest()
        yield from (rows for rows, _ in unfinished)


def _rows_a_request(px: int) -> int:
    """1 from 160 px on, up to 8 for small photos, whose few operations would drown in the cost of a call."""
    return max(1, min(8, round((224 / px) ** 2)))


def _batch_size(px: int) -> int:
    return _BATCH_AT_224_PX * _rows_a_request(px)


def _image_shape(shape: Iterable[Any]) -> tuple[int, int, int]:
    found = tuple(shape)
    if len(found) != 3 or not all(isinstance(side, int) and side > 0 for side in found) or found[0] != found[1] or found[2] != 3:
        raise ValueError(f"expected a network that takes images [n, px, px, 3], found one for {['n', *found]}")
    return found[0], found[1], found[2]


def _fixed(shape: Iterable[Any]) -> tuple[int, ...]:
    found = tuple(shape)
    if not all(isinstance(side, int) for side in found):
        raise ValueError(f"expected a network whose rows have a fixed shape, found {['n', *found]}")
    return found


def _check(images: np.ndarray, shape: tuple[int, int, int]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"expected images as uint8 {['n', *shape]}, found {images.dtype} {list(images.shape)}")
