"""At which size should the network read photos? Asked of photos that are not those it is judged by.

    python -m pretrain.probe

Prints, for several sizes, the accuracy on the held-out photos of Tiny ImageNet (enlarged from 64 px), and how close the student comes to
its teacher on the photos of `imagenet-samples` that training never saw, with the detail that users' photos have: the mean correlation of
their features. What the file
is worth is another question: `python bench/embedded.py`; nothing may be chosen by that.
"""

import argparse
import os
import sys
from pathlib import Path

import timm
import torch
from safetensors import safe_open

from headstart.backbone.reading import read_tensors
from pretrain.augment import normalised
from pretrain.photos import Photos, read_photos
from pretrain.recipe import Recipe
from pretrain.sources import held_out_files, middle
from pretrain.teacher import TEACHER
from pretrain.train import held_out

SIZES_PX = (96, 128, 144, 160, 192)
STEP = 4
"""Of the held-out photos of Tiny ImageNet one in so many is read."""
TEACHER_PX = 224


@torch.inference_mode()
def agreement(student: torch.nn.Module, mimic: torch.nn.Linear, wanted: torch.Tensor, files: list[Path], px: int) -> float:
    """Mean correlation, over the teacher's features, of what the student makes of them with what they are. wanted: float [n, d]."""
    found = [mimic(_pooled(student, normalised(torch.from_numpy(middle(file, px)[None])))) for file in files]
    return torch.stack([torch.corrcoef(pair)[0, 1] for pair in torch.stack([torch.cat(found), wanted]).unbind(2)]).mean().item()


@torch.inference_mode()
def features_of_teacher(weights: Path, files: list[Path]) -> torch.Tensor:
    """What the teacher's classifier reads, at the size it was trained for, float [n, d]."""
    teacher = timm.create_model(TEACHER, pretrained=False).eval()
    with safe_open(weights, "pt") as file:
        teacher.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    pixels = (torch.from_numpy(middle(file, TEACHER_PX)[None]).permute(0, 3, 1, 2) / 255 for file in files)
    return torch.cat([_pooled(teacher, (x_nchw - 0.5) / 0.5) for x_nchw in pixels])


def read_student(checkpoint: Path, exported: Path, photos: Photos) -> tuple[torch.nn.Module, torch.nn.Linear]:
    """The exported network, and the checkpoint's map from its features to the teacher's."""
    with safe_open(checkpoint, "pt") as file:
        recipe = Recipe.from_json(file.metadata()["recipe"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = recipe.network(len(photos.synsets)).eval()
    network.load_state_dict(read_tensors(exported), strict=False)  # but for the counts of batches, which nothing reads
    d = tensors["student.weight"].shape[1]  # behind them comes the mean of the patches, which the teacher's classifier does not read
    weight, bias = tensors["student.mimic.weight"][:d], tensors["student.mimic.bias"][:d]
    mimic = torch.nn.Linear(weight.shape[1], weight.shape[0])
    mimic.load_state_dict({"weight": weight, "bias": bias})
    return network, mimic


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    shared = Path(os.environ.get("HEADSTART_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(prog="python -m pretrain.probe", description="At which size the network should read photos.")
    parser.add_argument("--out", type=Path, default=root / "pretrain" / "work", help="where checkpoint, file and photos lie")
    given = parser.parse_args()
    photos = read_photos(shared / "data" / "tiny-imagenet-200", given.out)
    student, mimic = read_student(given.out / "checkpoint.safetensors", given.out / "embedded.safetensors", photos)
    files = held_out_files(shared / "data" / "imagenet-samples")
    wanted = features_of_teacher(shared / "weights" / f"{TEACHER}.imagenet1000.safetensors", files)
    for px in SIZES_PX:
        _, accuracy = held_out(student, photos, px, step=STEP)
        alike = agreement(student, mimic, wanted, files, px)
        sys.stdout.write(f"{px} px: held-out accuracy {accuracy:.3f}, agreement with the teacher on {len(files)} photos {alike:.3f}\n")
        sys.stdout.flush()


def _pooled(network: torch.nn.Module, x_nchw: torch.Tensor) -> torch.Tensor:
    pooled: torch.Tensor = network.forward_head(network.forward_features(x_nchw), pre_logits=True)  # type: ignore[operator]
    return pooled


if __name__ == "__main__":
    main()
