"""int8 against bf16: rates in one run, accuracy lost, sizes. Each export is a real `headstart export` with its certificate.

    python bench/export.py [--only NAME ...]

Rates: ResNet-50 at 224 px (published Keras weights to layer3, random layer4; calibrated on flowers; its accuracy means nothing),
mobilenetv2_100 and vit_tiny. Accuracy: mobilenetv2_100 and vit_tiny on imagenet-samples (a third calibrates, the others test, top-1),
and as heads trained on the flowers. Photos and weights: shared/. Networks take turns in every round; medians of ratios.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import torch
from torch import nn

import headstart
from headstart.backbone import cut, networks, weights
from headstart.bundle.export import build_bundle
from headstart.bundle.format import Label
from headstart.errors import ExportError
from machine import machine, shared

FILES = {
    "mobilenetv2_100": "mobilenetv2_100.imagenet1001.safetensors",
    "vit_tiny_patch16_224": "vit_tiny_patch16_224.imagenet1000.safetensors",
}
FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def samples(folder: Path) -> Path:
    """A CSV of imagenet-samples: path, label (the synset)."""
    file = folder / "samples.csv"
    photos = sorted((shared() / "data" / "imagenet-samples").glob("*.jpg"))
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label"])
        writer.writerows((photo, photo.name.split("_")[0]) for photo in photos)
    return file


def resnet50(folder: Path) -> Path:
    """A bundle of ResNet-50: published weights to layer3, the last stage random."""
    file = shared() / "weights" / "resnet50_keras_v1.to_layer3.safetensors"
    torch.manual_seed(0)
    whole = networks.untrained("resnet50_keras_v1", n_classes=len(FLOWERS))
    known = networks.build(weights.locate("resnet50_keras_v1", file), stop="layer3").module.state_dict()
    own = whole.module.state_dict()
    whole.module.load_state_dict({**own, **{name: tensor for name, tensor in known.items() if name in own}})
    build_bundle(
        folder,
        module=nn.Sequential(*cut.split(whole, "head")).eval(),
        labels=[Label(name) for name in FLOWERS],
        preprocessing=whole.preprocessing,
        temperature=1.0,
        provenance={"backbone": {"name": "resnet50_keras_v1, random layer4"}},
        licence=None,
    )
    return folder


def show(title: str, model: str | Path, out: Path, **options: object) -> None:
    """Export once in int8 for each form, and print what the certificate says; no accuracy limit where nothing was learned."""
    for form in ("openvino", "onnx"):
        try:
            found = headstart.export(model, format=form, int8=True, out=out / f"{title} {form}".replace(" ", "-"), **options).certificate
        except ExportError as error:
            print(f"{title}, {form}: REFUSED: {error.message}", flush=True)
            continue
        print(f"\n{title}, {form}, {found.n_calibrate} photos calibrate, {found.ways[0].n} test; original {found.original_accuracy}")
        print("\n".join(found.lines()))
        gains = ", ".join(f"{provider} {gain:.2f}" for provider, gain in found.gains().items())
        print(f"times as fast as the original: {found.gain():.2f}; within a provider: {gains}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["resnet50", *FILES, "flowers"], help="parts to run")
    only = parser.parse_args().only
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "resnet50" in only:
            show("resnet50", resnet50(folder / "resnet50"), folder, data=shared() / "data" / "flowers", max_drop=100)
        for name, file in FILES.items():
            if name in only:
                show(f"{name} on imagenet-samples", name, folder, data=samples(folder), weights=shared() / "weights" / file)
            if "flowers" in only:
                run = headstart.fit(
                    shared() / "data" / "flowers",
                    backbone=name,
                    weights=shared() / "weights" / file,
                    recipe="quick",
                    out=folder / f"run-{name}",
                )
                show(f"{name} on flowers", run.folder, folder)


if __name__ == "__main__":
    main()
