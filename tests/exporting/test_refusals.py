"""Networks whose answers an export really changes: built so, exported, asked about photos, refused or kept to fp32."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import headstart
from headstart.bundle.export import build_bundle
from headstart.bundle.format import Label
from headstart.data.pixels import Preprocessing
from headstart.errors import ExportError
from headstart.features import runtime

pytest.importorskip("openvino")

PX = 32
STEPS = 8  # in which a photo's mean red can lie between two whole numbers


class Picky(nn.Module):
    """Mean colours to two logits by `weights` [2, 3], behind a layer after which only fp32 may still hold what they depend on."""

    def __init__(self, first: nn.Module, weights: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.first = first
        self.last = nn.Linear(3, 2)
        self.last.weight.data, self.last.bias.data = weights, bias

    def forward(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        x = self.first(x_nhwc.permute(0, 3, 1, 2).float() / 255)
        return self.last(torch.relu(x).mean((2, 3)))


def model(folder: Path, module: nn.Module) -> Path:
    about = {"temperature": 1.0, "provenance": {}, "licence": None}
    preprocessing = Preprocessing(PX, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    build_bundle(folder, module=module.eval(), labels=[Label("less"), Label("more")], preprocessing=preprocessing, **about)
    return folder


def scaled(*factors: float) -> nn.Module:
    """A convolution that multiplies each colour by its factor."""
    convolution = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    convolution.weight.data.zero_()
    for channel, factor in enumerate(factors):
        convolution.weight.data[channel, channel, 1, 1] = factor
    return convolution


def loud_and_soft() -> nn.Module:
    """Answers by whether blue is above 102 of 255, beside a red 5,000 times as loud: a scale for both has no step fine enough."""
    return Picky(scaled(5_000, 1, 1), torch.tensor([[0.0, 0.0, -100.0], [0.0, 0.0, 100.0]]), torch.tensor([40.0, -40.0]))


def by_a_hair() -> nn.Module:
    """Answers by whether red is above 200.4 of 255, where bf16 has steps of a whole number."""
    threshold = 200.4 / 255 * 100
    return Picky(scaled(1, 1, 1), torch.tensor([[-100.0, 0.0, 0.0], [100.0, 0.0, 0.0]]), torch.tensor([threshold, -threshold]))


def photos(folder: Path, colours: list[tuple[str, np.ndarray]]) -> Path:
    """One photo of each colour [3], any part of a whole number met by pixels of two neighbouring values."""
    spread = (np.arange(PX * PX).reshape(PX, PX, 1) % STEPS + 0.5) / STEPS
    for i, (label, colour) in enumerate(colours):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.floor(colour + spread).astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def test_an_int8_export_that_loses_accuracy_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blues = [("less", 70), ("more", 134)] * 60
    colours = [(label, np.array([rng.integers(0, 255), rng.integers(0, 255), blue])) for label, blue in blues]
    data, source = photos(tmp_path / "photos", colours), model(tmp_path / "model", loud_and_soft())
    with pytest.raises(ExportError) as caught:
        headstart.export(source, format="openvino", int8=True, data=str(data), out=tmp_path / "int8")
    assert "the export was not kept: openvino" in caught.value.message
    assert "the bar is interval of the accuracy drop not above 0.5 points" in caught.value.message
    assert caught.value.hint == "give --max-drop to accept a larger drop, or leave --int8 out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "photos"]
    kept = headstart.export(source, format="openvino", int8=True, data=str(data), out=tmp_path / "int8", max_drop=100)
    assert kept.certificate.original_accuracy == 1.0
    assert kept.certificate.ways[0].drop > 0.1


@pytest.mark.skipif(not runtime.bf16_is_fast(), reason="this processor does not compute in bf16")
def test_bf16_that_answers_otherwise_is_told_and_not_computed_in(tmp_path: Path) -> None:
    reds = [200 + i / STEPS for i in range(STEPS)] * 3
    colours = [("more" if red >= 200.5 else "less", np.array([red, i, 0])) for i, red in enumerate(reds)]
    data, source = photos(tmp_path / "photos", colours), model(tmp_path / "model", by_a_hair())
    done = headstart.export(source, format="openvino", data=str(data), out=tmp_path / "auto")
    ways = {way.precision: way for way in done.certificate.ways}
    assert ways["fp32"].passed
    assert not ways["bf16"].passed
    assert ways["bf16"].n_differ > 0
    told = [notice for notice in done.certificate.notices if "in bf16 gave another answer at a margin of" in notice]
    assert told[0].endswith("the bar is the same answer wherever the margin exceeds 0.01: readers will compute it in fp32")
    assert headstart.load(done.folder).record.computed_in == ("fp32",)
    certificate = json.loads((done.folder / "certificate.json").read_text(encoding="utf-8"))
    assert [way["passed"] for way in certificate["ways"]] == [True, False]
    with pytest.raises(ExportError, match=r"not kept: openvino .* in bf16: another answer at a margin of") as caught:
        headstart.export(source, format="openvino", data=str(data), out=tmp_path / "asked", precision="bf16")
    assert caught.value.hint == "use --precision auto: it is kept for fp32 alone"
    assert not (tmp_path / "asked").exists()
