"""From a checkpoint to the file that ships: averaged weights, timm's names, the facts a reader needs in the header."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from headstart.backbone.packed import BITS, CODES, LEVELS, SCALE, SHAPE
from pretrain.augment import MEAN, STD
from pretrain.files import save_tensors
from pretrain.photos import Photos
from pretrain.recipe import Recipe

INPUT_PX = 160
CROP = 1.0


def export(checkpoint: Path, target: Path, photos: Photos) -> None:
    """Write the averaged weights of `checkpoint`: kernels and matrices packed, vectors in fp32, with their facts.

    Raises: FileNotFoundError: no checkpoint.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"expected a checkpoint at {checkpoint}; train first")
    with safe_open(checkpoint, "pt") as file:
        recipe = Recipe.from_json(file.metadata()["recipe"])
        names = [name for name in file.keys() if name.startswith("averaged.")]  # noqa: SIM118
        tensors = {name.removeprefix("averaged."): file.get_tensor(name) for name in names}
    tensors = {name: value.float() for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    stored = {name: value.contiguous() for name, value in tensors.items() if value.ndim <= 1}
    stored |= packed({name: value for name, value in tensors.items() if value.ndim > 1})
    facts = {
        "architecture": "embedded",
        "timm_architecture": recipe.architecture,
        "model_args": {**recipe.model_args, "num_classes": len(photos.synsets)},
        "complete_through": "classifier",
        "input_px": INPUT_PX,
        "crop": CROP,
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "bn_folded": False,
        "classes": len(photos.synsets),
        "class_names": [{"id": synset, "name": name} for synset, name in zip(photos.synsets, photos.names, strict=True)],
        "source": "trained by headstart's pretrain/ on Tiny ImageNet, 90,000 of its 100,000 training photos at 64 px, with the answers of "
        "vit_tiny_patch16_224 (ImageNet weights) to learn from",
        "licence": "MIT (photos: research use)",
    }
    save_tensors(target, stored, {"headstart": json.dumps(facts, ensure_ascii=False)})


def packed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kernels and matrices in 5 bits a number, as `headstart.backbone.packed` reads them."""
    scales = {name: value.flatten(1).square().mean(1).sqrt().clamp(min=1e-12) for name, value in tensors.items()}
    relative = {name: value.flatten(1) / scales[name][:, None] for name, value in tensors.items()}
    levels = _levels(torch.cat([value.flatten() for value in relative.values()]))
    between = (levels[1:] + levels[:-1]) / 2
    stored = {LEVELS: levels}
    for name, value in relative.items():
        positions = torch.bucketize(value.flatten(), between).to(torch.uint8).numpy()
        bits = np.unpackbits(positions[:, None], axis=1, count=BITS, bitorder="little")
        stored[name + CODES] = torch.from_numpy(np.packbits(bits, bitorder="little"))
        stored |= {name + SCALE: scales[name], name + SHAPE: torch.tensor(tensors[name].shape)}
    return stored


def _levels(values: torch.Tensor, *, most: int = 500_000, rounds: int = 60) -> torch.Tensor:
    """The 32 levels nearest to which all `values` lie, on average of squares. Source: Lloyd 1982, "Least squares quantization in PCM"."""
    chosen = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:most]].double()
    levels = torch.quantile(chosen[:100_000], (torch.arange(2**BITS).double() + 0.5) / 2**BITS)
    for _ in range(rounds):
        nearest = torch.bucketize(chosen, (levels[1:] + levels[:-1]) / 2)
        counts = torch.bincount(nearest, minlength=len(levels))
        levels = torch.where(counts > 0, torch.bincount(nearest, chosen, minlength=len(levels)) / counts.clamp(min=1), levels)
    return levels.float()
