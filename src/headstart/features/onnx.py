"""A PyTorch network as an ONNX file that provably computes the same."""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headstart.data.golden import check_images
from headstart.features.runtime import open_session
from headstart.files import cannot_write

log = logging.getLogger("headstart")

_OPSET = 18


class NotReproducedError(RuntimeError):
    """No exporter gave a file that computes what the network computes. The text holds the numbers."""


@dataclass(frozen=True)
class Exported:
    """What is known of a file that was kept."""

    rows: np.ndarray
    """the network's own outputs for the images it was checked on, float32 [n, ...], from PyTorch"""
    difference: float
    """largest difference between these and the file's, as `difference` measures it"""
    exporter: str
    """`trace` or `torch.export`"""


def relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest absolute difference, in units of the largest expected value."""
    return float(np.abs(expected - found).max() / max(float(np.abs(expected).max()), 1e-12))


def to_onnx(
    module: torch.nn.Module,
    path: Path,
    *,
    px: int,
    output: str = "rows",
    difference: Callable[[np.ndarray, np.ndarray], float] = relative_difference,
    at_most: float = 1e-3,
) -> Exported:
    """Write `module` to one ONNX file, check it against PyTorch through ONNX Runtime, and only then move it to `path`.

    Tracing is tried first: it takes 0.3 to 1.5 s where torch.export takes 4 to 6 s, and every run waits for it. What
    a trace bakes in by mistake (the batch size, a branch) the check sees, for it uses another batch size and other images; then, and where
    a future PyTorch has no tracer, torch.export is asked.

    Args:
        module: takes uint8 [n, px, px, 3], any n, gives one tensor [n, ...]; in eval mode.
        output: the name of the file's output; its input is `image`.
        difference: of expected and found rows; the file is refused where it exceeds `at_most`.

    Raises:
        NotReproducedError: neither exporter's file computes the same; the text says why.
        HeadstartError: the file cannot be written.
    Source: docs/LOG.md, "ONNX: trace or torch.export".
    """
    images = check_images(px)
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        expected = module(torch.from_numpy(images).to(device)).float().cpu().numpy()
    example = torch.from_numpy(images[:2]).to(device)  # another batch size than the check's
    refusals = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            for name, exporter in (("trace", _trace), ("torch.export", _torch_export)):
                file = Path(folder) / "network.onnx"
                try:
                    exporter(module, example, file, output)
                    _declare(file, expected.shape)
                    found = difference(expected, _run(file, images, expected.shape))
                except OSError:
                    raise
                except Exception as error:  # exporters and runtimes fail in many ways on what they do not know; all mean "not so"
                    log.debug("%s could not export to %s", name, path, exc_info=True)
                    refusals.append(f"{name}: {_first_line(error)}")
                    continue
                if found <= at_most:
                    with file.open("rb+") as written:  # on the disk before it has its name: a crash leaves no half file behind
                        os.fsync(written.fileno())
                    os.replace(file, path)
                    return Exported(expected, found, name)
                refusals.append(f"{name}: difference {found:.2g}, at most {at_most:.2g} allowed")
    except OSError as error:
        raise cannot_write(path, error) from error
    raise NotReproducedError("; ".join(refusals))


def _declare(file: Path, shape: tuple[int, ...]) -> None:
    """Say in the file what shape its rows are of; `shape`: of all, [n, ...].

    A trace loses track of it where padding is computed from a map's size (TensorFlow's `same`), though the values are right.
    """
    import onnx

    model = onnx.load(file)
    declared = model.graph.output[0].type.tensor_type.shape.dim
    if len(declared) == len(shape) and [side.dim_value for side in declared[1:]] != list(shape[1:]):
        for side, length in zip(declared[1:], shape[1:], strict=True):
            side.dim_value = length
        onnx.save(model, file)


def _run(file: Path, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    found = open_session(file, provider="onnxruntime").run(images)
    if found.shape != shape:
        raise ValueError(f"expected rows {list(shape)}, found {list(found.shape)}")
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _trace(module: torch.nn.Module, example: torch.Tensor, file: Path, output: str) -> None:
    with torch.no_grad(), warnings.catch_warnings():  # that tracing is old, and that Python values are baked in: the check after it decides
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            str(file),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=[output],
            dynamic_axes={"image": {0: "n"}, output: {0: "n"}},
        )


def _torch_export(module: torch.nn.Module, example: torch.Tensor, file: Path, output: str) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        )
    if program is None:
        raise RuntimeError("torch.export gave no program")
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with paths of this machine
    program.save(file, external_data=False)
