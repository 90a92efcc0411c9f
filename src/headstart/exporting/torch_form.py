"""A trained model as a torch program (`torch.export`), for those who go on with PyTorch. The only file of this room that needs it.

The network is put together again from the published weights and the trained layers that the bundle carries, and must give the bundle's
own golden answers. The program is a file that torch loads, no bundle: beside it lies a JSON that says how to read its answers.
"""

import importlib.metadata
import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.backbone import cut as cuts
from headstart.backbone import networks, weights
from headstart.backbone.cut import HEAD
from headstart.bundle.export import AGREEMENT
from headstart.bundle.format import Bundle
from headstart.bundle.predict import softmax
from headstart.errors import BundleError, ExportError, WeightsError
from headstart.exporting.forms import about
from headstart.files import write_json
from headstart.runs import Run
from headstart.train.classifier import Linear, Mirrored, dense

PROGRAM_FILE, ABOUT_FILE = "model.pt2", "model.json"
INSIDE = "headstart.json"
"""the same JSON inside the program, as an extra file of `torch.export`, so that a reader can tell whether the two belong together"""

_BATCH = 16


def write_torch(folder: Path, bundle: Bundle, model: Any, weights_file: Path | None) -> "ProgramSession":
    """model.pt2 and model.json in `folder`; the program, read back.

    Args: model: a run folder, or the name of a backbone that predicts its own classes.
    Raises:
        BundleError: a bundle apart from its run, whose network nobody can put together again.
        WeightsError: the published weights are not at hand, or others.
        ExportError: what was put together answers otherwise than the bundle.
    """
    module = _module(bundle, model, weights_file)
    px = bundle.preprocessing.input_px
    _check(module, bundle)
    example = torch.zeros((2, px, px, 3), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
        torch.export.save(program, folder / PROGRAM_FILE, extra_files={INSIDE: about(bundle.record)})
    write_json(folder / ABOUT_FILE, json.loads(about(bundle.record)))
    return ProgramSession(folder / PROGRAM_FILE, px, len(bundle.labels))


class ProgramSession:
    """A saved torch program in fp32 on the CPU; a `features.runtime.Session`."""

    provider = "torch"
    precision = "fp32"

    def __init__(self, file: Path, px: int, n_classes: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = torch.export.load(file).module()
        self.engine = f"torch {importlib.metadata.version('torch')}"
        self.batch_size = _BATCH
        self.input_shape = (px, px, 3)
        self.output_shape: tuple[int, ...] = (n_classes,)

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, px, px, 3] -> logits float32 [n, k]."""
        with torch.inference_mode():
            parts = [self._module(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
        return torch.cat(parts).float().numpy() if parts else np.zeros((0, *self.output_shape), np.float32)

    def map(self, batches: Iterable[np.ndarray], /) -> Iterator[np.ndarray]:
        """`run` for each batch."""
        return map(self.run, batches)


def _check(module: nn.Module, bundle: Bundle) -> None:
    """Raises: ExportError: it does not give the bundle's golden answers."""
    from headstart.data.golden import golden_images

    with torch.inference_mode():
        found = module(torch.from_numpy(golden_images(bundle.preprocessing.input_px))).float().numpy()
    expected = bundle.record.golden.logits
    off = float(np.abs(softmax(expected / bundle.temperature) - softmax(found / bundle.temperature)).max())
    if not off <= AGREEMENT:
        raise ExportError(
            f"the network put together again answers otherwise than the bundle: probabilities of the golden pictures differ by {off:.2g}, "
            f"at most {AGREEMENT:g} allowed",
            hint="the versions of torch or timm differ from the run's; use --format onnx",
        )


def _module(bundle: Bundle, model: Any, weights_file: Path | None) -> nn.Module:
    """uint8 [n, px, px, 3] -> logits [n, k], as the bundle was made from."""
    if not (Path(model) / "run.json").exists():
        if "backbone" not in bundle.provenance or bundle.tail_file is not None or Path(model).exists():
            raise BundleError("a bundle apart from its run cannot become a torch program", hint="name the run folder, or use --format onnx")
        network = networks.build(weights.locate(str(model), weights_file))
        return nn.Sequential(*cuts.split(network, HEAD)).eval()
    record = Run(model).record
    network = _network(record, weights_file)
    tuning = record.get("tuning", {})
    cut = HEAD if tuning.get("kept", "probe") == "probe" or not tuning.get("phases") else tuning["phases"][-1]["cut"]
    trunk, tail = cuts.split(network, cut)
    if bundle.tail_file is None:
        raise BundleError("the run's model has no trained layers beside it", hint="train again, or use --format onnx")
    from safetensors.torch import load_file

    state = load_file(bundle.tail_file)
    tail = tail.with_head(_classifier(state, tail.d_features, len(bundle.labels)))
    tail.load_state_dict(state)
    whole = nn.Sequential(trunk, tail)
    return (whole if record["config"].get("test_views", 1) == 1 else Mirrored(whole)).eval()


def _network(record: dict[str, Any], weights_file: Path | None) -> networks.Network:
    """The published network of a run. Raises: WeightsError: its weights are not at hand, or are others."""
    asked, config, backbone = record["asked"], record["config"], record["backbone"]
    given = asked.get("weights") if weights_file is None else weights_file
    file = weights.locate(asked.get("backbone"), None if given is None else Path(given))
    if file.sha256 != backbone["weights_sha256"]:
        raise WeightsError(
            f"expected the run's weights, sha256 {backbone['weights_sha256'][:16]}..., found {file.sha256[:16]}... in {file.path}",
            hint="name the file that the run was trained with: --weights FILE",
        )
    return networks.build(file, stop=config.get("stop"), px=config.get("px"))


def _classifier(state: dict[str, torch.Tensor], d_features: int, n_classes: int) -> nn.Module:
    """An empty classifier that takes the tail's tensors: a linear head, or dense layers as `train.classifier.dense` stacks them."""
    if "classifier.weight" in state:
        return Linear(d_features, n_classes)
    widths = [len(state[name]) for name in sorted(state, key=_place) if name.startswith("classifier.") and name.endswith(".bias")]
    return dense(np.zeros((2, d_features), np.float32), n_classes, widths[:-1], 0.0, 0)


def _place(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "classifier" and parts[1].isdigit() else -1
