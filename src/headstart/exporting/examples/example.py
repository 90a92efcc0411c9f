"""What is in a photo, with numpy, Pillow and what runs the model beside this file:

    pip install numpy pillow onnxruntime     # for model.onnx
    pip install numpy pillow openvino        # for model.xml and model.bin
    pip install numpy pillow torch           # for model.pt2

    python example.py photo.jpg [more.jpg ...]

The model tells by itself which labels it has and how a photo is prepared for it.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

DRAFT_HEADROOM = 2  # a big JPEG is decoded small, but never below so many times the size it is resized to

Network = Callable[[np.ndarray], np.ndarray]
"""uint8 [n, px, px, 3] -> logits [n, labels]"""


def main() -> None:
    network, about = open_model(Path(__file__).parent)
    for name in sys.argv[1:]:
        pixels = prepare(name, **{key: about["preprocessing"][key] for key in ("input_px", "crop", "interpolation")})
        (logits,) = network(pixels[None])
        print("\n".join([name, *answer(logits.astype(np.float64), about)]))


def open_model(folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network, and what says how to read its answers."""
    if (folder / "model.onnx").exists():
        return open_onnx(folder / "model.onnx")
    return open_openvino(folder / "model.xml") if (folder / "model.xml").exists() else open_torch(folder / "model.pt2")


def open_onnx(file: Path) -> tuple[Network, dict[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0], json.loads(
        session.get_modelmeta().custom_metadata_map["headstart"]
    )


def open_openvino(file: Path) -> tuple[Network, dict[str, Any]]:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing OpenVINO then reports nothing to anyone
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    about = json.loads(model.get_rt_info(["headstart", "about"]).astype(str))
    return lambda images: compiled(images)[0], about


def open_torch(file: Path) -> tuple[Network, dict[str, Any]]:
    import torch

    inside = {"headstart.json": ""}
    module = torch.export.load(file, extra_files=inside).module()
    about = json.loads(inside["headstart.json"])
    if about != json.loads(file.with_name("model.json").read_text(encoding="utf-8")):
        sys.exit("model.json is another than the one that model.pt2 was written with: export the model again")

    def network(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images.copy())).float())

    return network, about


def prepare(name: str, input_px: int, crop: float, interpolation: str) -> np.ndarray:
    """The photo as the network takes it, uint8 [px, px, 3]: upright, RGB, its shorter side resized, the centre cut out."""
    resize_px = math.floor(input_px / crop)
    image: Image.Image = Image.open(name)
    drafted = image.draft(None, (DRAFT_HEADROOM * resize_px,) * 2)
    width, height = image.size if drafted is None else drafted[1][2:]
    # Of a JPEG decoded small, the photo may end inside the last row and column: that part stays out, whichever way it is turned.
    turned = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)  # Pillow turns a TIFF itself, its size included
    image = to_rgb(ImageOps.exif_transpose(image))
    if turned in (5, 6, 7, 8):
        width, height = height, width
    left = image.width - width if turned in (2, 3, 6, 7) else 0
    top = image.height - height if turned in (3, 4, 7, 8) else 0
    shorter = min(width, height)
    whole_w, whole_h = (max(resize_px, int(resize_px * side / shorter)) for side in (width, height))
    x, y = round((whole_w - input_px) / 2), round((whole_h - input_px) / 2)
    scale_x, scale_y = width / whole_w, height / whole_h
    right, bottom = min(left + width, left + (x + input_px) * scale_x), min(top + height, top + (y + input_px) * scale_y)
    box = (left + x * scale_x, top + y * scale_y, right, bottom)
    return np.asarray(image.resize((input_px, input_px), Image.Resampling[interpolation.upper()], box=box))


def to_rgb(image: Image.Image) -> Image.Image:
    """Transparency over white, 16-bit grey scaled by 257, the rest as Pillow converts it."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def answer(logits: np.ndarray, about: dict[str, Any]) -> list[str]:
    """The three most probable labels, and what else the model has to say of the photo."""
    scaled = logits / about["temperature"]
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    lines = [f"{rank}: {about['labels'][i]['name']} {probs[i]:.2f}" for rank, i in enumerate(order[:3], 1)]
    unknown = about.get("none_of_these")
    if unknown and -(logits.max() + np.log(np.exp(logits - logits.max()).sum())) > unknown["threshold"]:
        return ["none of these; the nearest are", *lines]
    sets = about.get("conformal")
    possible = [i for rank, i in enumerate(order) if rank == 0 or (sets and probs[i] >= sets["threshold"])]
    if len(possible) > 1:
        lines.append("one of " + ", ".join(about["labels"][i]["name"] for i in possible))
    return lines


if __name__ == "__main__":
    main()
