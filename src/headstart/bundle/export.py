"""Turn a trained network into a bundle. The only file of this room that needs PyTorch."""

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from headstart.bundle.format import RECORD_FILE, Bundle, load_bundle
from headstart.bundle.predict import softmax
from headstart.bundle.record import NETWORK_FILE, TAIL_FILE, Golden, Label, LabelSets, NoneOfThese, Record
from headstart.data.golden import golden_digest
from headstart.data.pixels import DECODER, Preprocessing
from headstart.errors import BundleError
from headstart.features.onnx import NotReproducedError, to_onnx
from headstart.files import cannot_write, write_json

AGREEMENT = 1e-4
"""Largest difference of any probability between PyTorch and the exported network at which it is kept."""

_N_GOLDEN = 4


def build_bundle(
    folder: Path,
    *,
    module: torch.nn.Module,
    labels: Sequence[Label],
    preprocessing: Preprocessing,
    temperature: float,
    provenance: Mapping[str, Any],
    licence: str | None,
    tail_state: Mapping[str, torch.Tensor] | None = None,
    thresholds: Mapping[str, float] | None = None,
    none_of_these: Mapping[str, Any] | None = None,
    conformal: Mapping[str, Any] | None = None,
) -> Bundle:
    """Export a network, check that the export answers as PyTorch does, and keep it as a bundle at `folder`, all or nothing.

    Args:
        folder: where the bundle goes; one that is there is replaced.
        module: uint8 [n, px, px, 3] -> logits [n, k], its own normalisation inside, in eval mode.
        labels: the k classes in the order of the logits.
        temperature: probabilities are softmax(logits / temperature).
        provenance: how the model came to be; JSON values.
        tail_state: the trained layers, for those who go on training with PyTorch.
        thresholds: label name -> least probability at which to believe it.
        none_of_these, conformal: as bundle.json has them (docs/formats.md); `evaluate.novelty` and `evaluate.conformal` fix them.

    Returns: the bundle, loaded from where it now lies.
    Raises:
        BundleError: the export differs from PyTorch, or is not a network for these labels, or a value is none that bundle.json may hold;
            the text gives the numbers.
        HeadstartError: the disk is full, or the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            draft = Path(temporary) / "model"
            golden = _export(module, draft / NETWORK_FILE, preprocessing.input_px, len(labels), temperature)
            if tail_state is not None:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tail_state.items()}
                (draft / TAIL_FILE).write_bytes(safetensors.torch.save(tensors))
            record = Record(
                labels=tuple(labels),
                preprocessing=preprocessing,
                decoder=DECODER,
                temperature=temperature,
                thresholds={} if thresholds is None else thresholds,
                licence=licence,
                provenance=provenance,
                files={file.name: _sha256(file) for file in sorted(draft.iterdir())},
                golden=golden,
                none_of_these=None if none_of_these is None else NoneOfThese.from_json(none_of_these),
                conformal=None if conformal is None else LabelSets.from_json(conformal),
            )
            write_json(draft / RECORD_FILE, record.to_json())
            checked = load_bundle(draft)  # what cannot be loaded is not kept
            _move(draft, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return Bundle(folder, checked.record)


def _export(module: torch.nn.Module, file: Path, px: int, n_classes: int, temperature: float) -> Golden:
    try:
        difference = functools.partial(_difference, temperature=temperature)
        exported = to_onnx(module, file, px=px, output="logits", difference=difference, at_most=AGREEMENT)
    except NotReproducedError as error:
        raise BundleError(f"the exported network does not answer as PyTorch does, so it was not kept: {error}") from error
    if exported.rows.shape[1:] != (n_classes,):
        raise BundleError(f"expected a network with {n_classes} outputs, one a label, found {list(exported.rows.shape[1:])}")
    return Golden(golden_digest(), exported.rows[:_N_GOLDEN])


def _difference(expected: np.ndarray, found: np.ndarray, *, temperature: float) -> float:
    """Largest difference of probabilities of two sets of logits [n, k]."""
    return float(np.abs(softmax(expected / temperature) - softmax(found / temperature)).max())


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _move(draft: Path, folder: Path) -> None:
    """Put a finished folder in its place; the one that was there goes only once the new one can come."""
    old = draft.with_name("old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(draft, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
