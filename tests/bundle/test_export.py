import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from tiny import LABELS, PREPROCESSING, TinyNet
from torch import nn

from headstart.bundle.export import build_bundle
from headstart.bundle.format import Bundle, Label, load_bundle
from headstart.bundle.predict import open_engine, softmax
from headstart.bundle.record import LabelSets, NoneOfThese
from headstart.data.golden import check_images
from headstart.errors import BundleError
from headstart.features import onnx


def build(folder: Path, module: nn.Module, labels: list[Label] = LABELS) -> Bundle:
    return build_bundle(
        folder, module=module, labels=labels, preprocessing=PREPROCESSING, temperature=1.5, provenance={"seed": 0}, licence=None
    )


def test_the_bundle_answers_as_pytorch_does(bundle: Bundle, tiny_net: TinyNet) -> None:
    images = check_images(32)
    found = open_engine(bundle, "onnxruntime").run(images)
    expected = tiny_net(torch.from_numpy(images)).numpy()
    assert np.abs(softmax(found / 1.5) - softmax(expected / 1.5)).max() < 1e-5
    np.testing.assert_array_equal(bundle.record.golden.logits, expected[:4])


def test_the_tail_is_kept_beside_it(bundle: Bundle) -> None:
    assert bundle.tail_file is not None
    np.testing.assert_array_equal(safetensors.numpy.load_file(bundle.tail_file)["weight"], [0, 1, 2])


def test_the_returned_bundle_is_the_one_on_disk(tmp_path: Path, tiny_net: TinyNet) -> None:
    built = build(tmp_path / "new" / "model", tiny_net)
    assert built.record.to_json() == load_bundle(tmp_path / "new" / "model").record.to_json()
    assert built.tail_file is None


def test_the_same_network_gives_the_same_files(tmp_path: Path, tiny_net: TinyNet) -> None:
    first, second = build(tmp_path / "a", tiny_net), build(tmp_path / "b", tiny_net)
    assert first.record.files == second.record.files


def test_what_it_says_of_the_unknown_is_kept_and_checked(tmp_path: Path, tiny_net: TinyNet) -> None:
    says = {"score": "energy", "threshold": -1.5, "false_alarms": 0.05, "detection": 0.4}
    common = {"module": tiny_net, "labels": LABELS, "preprocessing": PREPROCESSING, "temperature": 1.5, "provenance": {}, "licence": None}
    built = build_bundle(tmp_path / "model", **common, none_of_these=says, conformal={"coverage": 0.9, "threshold": 0.25})
    assert built.none_of_these == NoneOfThese(-1.5, 0.05, 0.4)
    assert load_bundle(tmp_path).conformal == built.conformal == LabelSets(0.9, 0.25)
    with pytest.raises(BundleError, match=r"'conformal.threshold' to be a number of 0 to 1, found nan"):
        build_bundle(tmp_path / "other", **common, conformal={"coverage": 0.9, "threshold": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_that_differs_is_refused_with_the_numbers_and_the_old_model_stays(
    folder: Path, tiny_net: TinyNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(self: object, images: np.ndarray) -> np.ndarray:
        return np.eye(len(images), 3, dtype=np.float32)

    monkeypatch.setattr(onnx.open_session.__globals__["OnnxRuntimeSession"], "run", off)
    monkeypatch.setattr(onnx, "_torch_export", onnx._trace)
    with pytest.raises(BundleError, match=r"does not answer as PyTorch does.*trace: difference 0\.\d+, at most 0.0001 allowed"):
        build(folder, tiny_net)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    monkeypatch.undo()
    assert load_bundle(folder).licence == "MIT"


def test_a_new_model_takes_the_old_ones_place(folder: Path, tiny_net: TinyNet) -> None:
    build(folder, tiny_net)
    assert load_bundle(folder).licence is None
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.onnx"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_labels_and_outputs_must_be_as_many(tmp_path: Path, tiny_net: TinyNet) -> None:
    with pytest.raises(BundleError, match=r"expected a network with 2 outputs, one a label, found \[3\]"):
        build(tmp_path / "model", tiny_net, LABELS[:2])
    assert list(tmp_path.iterdir()) == []


def test_no_path_of_this_machine_is_in_the_bundle(folder: Path) -> None:
    for file in folder.iterdir():
        assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()
    assert json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["format"] == 3
