"""From a checkpoint to the file that ships: averaged weights, timm's names, the facts a reader needs in the header."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from headstart.backbone.reading import SCALE
from pretrain.augment import MEAN, STD
from pretrain.files import save_tensors
from pretrain.photos import Photos
from pretrain.recipe import Recipe

INPUT_PX = 160
CROP = 1.0


def export(checkpoint: Path, target: Path, photos: Photos) -> None:
    """Write the averaged weights of `checkpoint`: convolutions and matrices in int8, vectors in fp32, with their facts.

    Raises: FileNotFoundError: no checkpoint.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"expected a checkpoint at {checkpoint}; train first")
    with safe_open(checkpoint, "pt") as file:
        recipe = Recipe.from_json(file.metadata()["recipe"])
        names = [name for name in file.keys() if name.startswith("averaged.")]  # noqa: SIM118
        tensors = {name.removeprefix("averaged."): file.get_tensor(name) for name in names}
    stored: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if not name.endswith("num_batches_tracked"):
            stored |= _stored(name, value)
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


def _stored(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Vectors in fp32; kernels and matrices in int8, with one fp32 scale for each output channel beside them."""
    if value.ndim <= 1:
        return {name: value.float().contiguous()}
    scale = value.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    steps = (value / scale.view(-1, *[1] * (value.ndim - 1))).round().clamp(-127, 127)
    return {name: steps.to(torch.int8).contiguous(), name + SCALE: scale.float()}
