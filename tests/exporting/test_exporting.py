import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import headstart
from headstart.bundle.predict import Prediction, fitting, open_engine
from headstart.bundle.record import digest
from headstart.data.pixels import Preprocessing, load
from headstart.errors import BundleError, ConfigError, ExportError, HeadstartError
from headstart.exporting import export as exporting
from headstart.exporting import forms
from headstart.features import runtime
from headstart.runs import Run
from samples import make_photos

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> exporting.Export:
    return headstart.export(run.folder, out=tmp_path_factory.mktemp("exported") / "onnx")


def test_an_onnx_export_is_a_model_that_answers_as_its_run_does(run: Run, exported: exporting.Export) -> None:
    root = Path(run.record["data"]["root"])
    photos = sorted(root.rglob("*.*"))[:9]
    model = headstart.load(exported.folder)
    for found, expected in zip(model.predict(photos), run.bundle.predict(photos), strict=True):
        assert (found.label, found.known, found.labels) == (expected.label, expected.known, expected.labels)
        assert found.probability == pytest.approx(expected.probability, abs=1e-4)
    assert model.provenance["export"]["from"] == run.bundle.record.files["model.onnx"]


def test_the_certificate_tells_of_the_test_photos_read_from_their_files(run: Run, exported: exporting.Export) -> None:
    found = json.loads((exported.folder / "certificate.json").read_text(encoding="utf-8"))
    ways = found["ways"]
    assert (ways[0]["provider"], ways[0]["precision"]) == ("onnxruntime", "fp32")
    assert {way["provider"] for way in ways} == ({"onnxruntime", "openvino"} if HAS_OPENVINO else {"onnxruntime"})
    n = run.metrics["test"]["n"]
    assert {way["n"] for way in ways} == {n}
    assert ways[0]["accuracy"] == pytest.approx(run.accuracy)
    assert ways[0]["largest_difference"] <= 1e-3
    assert ways[0]["agreement"] == 1.0
    assert found["original_bytes"] > 0
    assert found["opset"] == forms.OPSET
    assert min(rate for one in found["rates"] for rate in one["images_per_s"]) > 0
    page = (exported.folder / "CERTIFICATE.md").read_text(encoding="utf-8")
    assert f"The export gives the same answer as the original for {n} of {n} pictures." in page
    assert found["files"]["model.onnx"] in page


def test_a_lone_onnx_file_says_how_to_read_it(exported: exporting.Export) -> None:
    file = exported.folder / "model.onnx"
    model = onnx.load(file)
    assert forms.opset_of(file) == forms.OPSET
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    record = json.loads((exported.folder / "bundle.json").read_text(encoding="utf-8"))
    assert about.keys() == record.keys() - {"format", "files", "golden", "digest"}
    for key in ("labels", "preprocessing", "temperature", "thresholds", "none_of_these", "conformal", "licence"):
        assert about[key] == record[key]
    assert "uint8 [n, px, px, 3]" in model.doc_string
    for n in (1, 3):
        assert session.run(["logits"], {"image": np.zeros((n, 32, 32, 3), np.uint8)})[0].shape == (n, 3)


def example_run(folder: Path, photo: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, folder / "example.py", photo], capture_output=True, text=True, encoding="utf-8")


def assert_says(folder: Path, photo: Path, answer: Prediction) -> None:
    """The example beside an export prints this answer, and loads no headstart."""
    done = example_run(folder, photo)
    assert done.returncode == 0, done.stderr
    lines = [f"{rank}: {label} {p:.2f}" for rank, (label, p) in enumerate(answer.top, 1)]
    first = ["none of these; the nearest are"] if answer.known is False else []
    last = ["one of " + ", ".join(answer.labels)] if len(answer.labels) > 1 and answer.known is not False else []
    assert done.stdout.splitlines() == [str(photo), *first, *lines, *last]
    assert "import headstart" not in (folder / "example.py").read_text(encoding="utf-8")


def test_the_python_example_prints_what_predict_prints(exported: exporting.Export, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 60, (300, 420, 3)) + np.linspace(0, 190, 420)[None, :, None] * [1, 0.2, 0.4]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned and big.jpg", exif=exif)  # decoded small, then turned
    Image.fromarray(pixels[:299, :37]).save(tmp_path / "narrow.jpg")
    Image.fromarray(np.dstack([pixels[:50, :70], np.full((50, 70), 90, np.uint8)])).save(tmp_path / "see-through.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 250).save(tmp_path / "deep grey.png")
    Image.fromarray(pixels[:80]).convert("CMYK").save(tmp_path / "inks.jpg")
    model = headstart.load(exported.folder)
    for photo in sorted(tmp_path.iterdir()):
        assert_says(exported.folder, photo, model.predict(photo, top=3, provider="onnxruntime", precision="fp32"))


def test_the_python_example_prepares_the_same_pixels(exported: exporting.Export, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("example", exported.folder / "example.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = np.random.default_rng(1)
    for orientation in range(1, 9):
        for size, kind in (((333, 511), "jpg"), ((40, 90), "jpg"), ((60, 90), "tif")):
            photo = tmp_path / f"{orientation} {size[0]}.{kind}"
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(photo, exif=exif)
            for crop, interpolation in ((0.875, "bicubic"), (1.0, "bilinear")):
                pre = Preprocessing(32, crop, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
                found = example.prepare(photo, input_px=32, crop=crop, interpolation=interpolation)
                np.testing.assert_array_equal(found, load(photo, pre))


@needs_openvino
def test_an_openvino_export_is_a_model_with_its_own_files_checked(run: Run, tmp_path: Path) -> None:
    done = headstart.export(run.folder / "model", format="openvino", out=tmp_path / "ir")
    files = {"bundle.json", "model.xml", "model.bin", "certificate.json", "CERTIFICATE.md", "example.py"}
    assert {path.name for path in done.folder.iterdir()} == files
    model = headstart.load(done.folder)
    photo = next(Path(run.record["data"]["root"]).rglob("*.jpg"))
    assert model.predict(photo).label == run.predict(photo).label
    assert open_engine(model).provider == "openvino"
    assert_says(done.folder, photo, model.predict(photo, top=3, precision="fp32"))
    with pytest.raises(ConfigError, match="is in OpenVINO's form, which onnxruntime does not run"):
        model.predict(photo, provider="onnxruntime")
    core = runtime.import_openvino().Core()
    about = core.read_model(done.folder / "model.xml").get_rt_info(["headstart", "about"]).astype(str)
    assert json.loads(about)["labels"] == [{"name": label.name, "id": None} for label in model.labels]
    weights = done.folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.bin was changed or damaged"):
        headstart.load(done.folder)


@needs_openvino
@needs_nncf
def test_an_int8_export_is_calibrated_tested_and_checked_against_its_own_answers(run: Run, tmp_path: Path) -> None:
    done = headstart.export(run.folder, format="openvino", int8=True, out=tmp_path / "int8", max_drop=100)
    model = headstart.load(done.folder)
    assert model.record.precision == "int8"
    assert done.certificate.n_calibrate == run.record["data"]["n_train"]
    assert "FakeQuantize" in (done.folder / "model.xml").read_text(encoding="utf-8")
    assert not np.array_equal(model.record.golden.logits, run.bundle.record.golden.logits)
    assert "int8 is" in done.certificate.verdict()
    assert "of the original's" in done.certificate.verdict()
    photo = next(Path(run.record["data"]["root"]).rglob("*.jpg"))
    assert model.predict(photo).label == run.predict(photo).label
    with pytest.raises(BundleError, match=r"expected a model as it was trained, found an export \(int8 in model.xml\)"):
        headstart.export(done.folder, out=tmp_path / "again")


@needs_openvino
@needs_nncf
def test_openvino_compiles_an_int8_onnx_file_for_one_stream(run: Run, tmp_path: Path) -> None:
    """Several streams' compilers spoil one another's int8 weights, in some starts and not in others (docs/LOG.md, "Exports")."""
    done = headstart.export(run.folder, format="onnx", int8=True, out=tmp_path / "int8", max_drop=100)
    session = runtime.open_session(done.folder / "model.onnx", provider="openvino", precision="fp32", threads=2)
    assert isinstance(session, runtime.OpenVinoSession)
    assert session.n_streams == 1
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    other = runtime.open_session(done.folder / "model.onnx", provider="onnxruntime", precision="fp32").run(images)
    assert np.abs(session.run(images) - other).max() < 0.1 * np.abs(other).max()


def test_an_export_that_answers_otherwise_is_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(source: Path, folder: Path, record: object, calibrate: object) -> None:
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(1.05)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, folder / "model.onnx")

    monkeypatch.setitem(forms.WRITERS, "onnx", off)
    with pytest.raises(ExportError, match=r"not kept: .* logits of the golden pictures differ by"):
        headstart.export(run.folder, out=tmp_path / "onnx")
    monkeypatch.setattr("headstart.bundle.predict._TOLERANCE", {"fp32": 1.0, "bf16": 1.0})
    with pytest.raises(
        ExportError, match=r"not kept: onnxruntime [\d.]+ in fp32: 0\.\d+; the bar is no probability off by more than 0.001"
    ):
        headstart.export(run.folder, out=tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_what_did_not_pass_in_bf16_is_not_computed_in_it(exported: exporting.Export, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.folder, tmp_path / "model"))
    record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    record["network"]["computed_in"] = ["fp32"]
    (folder / "bundle.json").write_text(json.dumps({**record, "digest": digest(record)}), encoding="utf-8")
    model = headstart.load(folder)
    assert open_engine(model, "openvino", "auto").precision == "fp32"
    assert fitting(model, "auto", "auto") == ("auto", "fp32")
    with pytest.raises(ConfigError, match="is not to be computed in bf16: it gave too many other answers"):
        open_engine(model, "openvino", "bf16")


@needs_openvino
def test_bf16_is_nothing_that_was_not_tried_on_photos(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bf16_is_fast", lambda: True)
    apart = Path(shutil.copytree(run.folder / "model", tmp_path / "apart"))
    with pytest.raises(ConfigError, match="precision bf16 needs photos to be tested on, and this model comes without its run") as caught:
        headstart.export(apart, out=tmp_path / "onnx", precision="bf16")
    assert caught.value.hint == (
        "give labelled photos of the model's classes with --data, or leave --precision out: it is then computed in fp32"
    )
    done = headstart.export(apart, out=tmp_path / "onnx")
    assert headstart.load(done.folder).record.computed_in == ("fp32",)
    assert "in which alone readers will compute it" in done.certificate.notices[0]


def test_where_bf16_could_not_be_tried_the_certificate_says_that_readers_keep_to_fp32(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "bf16_is_fast", lambda: False)
    done = headstart.export(run.folder, out=tmp_path / "onnx")
    assert headstart.load(done.folder).record.computed_in == ("fp32",)
    assert any("bf16 was not tried" in notice for notice in done.certificate.notices)
    asked = headstart.export(run.folder, out=tmp_path / "fp32", precision="fp32")
    assert not any("bf16" in notice for notice in asked.certificate.notices)


def test_an_export_goes_into_an_empty_folder_that_is_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    done = headstart.export(run.folder, out=tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    names = {path.name for path in (tmp_path / "far").iterdir()}
    assert {*done.certificate.files, "bundle.json", "certificate.json", "CERTIFICATE.md", "example.py"} <= names
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    headstart.export(run.folder, out=".")
    assert {path.name for path in (tmp_path / "here").iterdir()} == names


def test_a_torch_program_answers_as_the_run_does(run: Run, tmp_path: Path) -> None:
    import torch

    done = headstart.export(run.folder, format="torch", out=tmp_path / "torch")
    files = {"model.pt2", "model.json", "certificate.json", "CERTIFICATE.md", "example.py"}
    assert {path.name for path in done.folder.iterdir()} == files
    (way,) = done.certificate.ways
    assert (way.provider, way.n, way.n_differ) == ("torch", run.metrics["test"]["n"], 0)
    module = torch.export.load(done.folder / "model.pt2").module()
    assert module(torch.zeros((5, 32, 32, 3), dtype=torch.uint8)).shape == (5, 3)
    about = json.loads((done.folder / "model.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in about["labels"]] == [label.name for label in run.bundle.labels]
    photo = next(Path(run.record["data"]["root"]).rglob("*.jpg"))
    assert_says(done.folder, photo, run.bundle.predict(photo, top=3, precision="fp32"))
    (done.folder / "model.json").write_text(json.dumps({**about, "labels": about["labels"][::-1]}), encoding="utf-8")
    refused = example_run(done.folder, photo)
    assert refused.returncode == 1
    assert refused.stderr.startswith("model.json is another than the one that model.pt2 was written with")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"format": "onxx"}, "expected a format of onnx, openvino, torch, found 'onxx'\nhint: did you mean 'onnx'"),
        ({"format": "torch", "int8": True}, "int8 is not for format torch"),
        ({"max_drop": -1}, "expected a largest drop of 0 to 100 points, found -1"),
        ({"precision": "fp16"}, "expected a precision of auto, fp32, bf16, found 'fp16'"),
        ({"out": "model.onnx"}, "expected a folder for the export, found model.onnx\nhint: --out model"),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_is_done(tmp_path: Path, asked: dict, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        headstart.export("no such model", **{"out": tmp_path / "out", **asked})
    assert text in str(caught.value)


def test_a_folder_with_something_in_it_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(HeadstartError, match="is not empty"):
        headstart.export(run.folder, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_command_prints_the_figures_and_where_they_are(run: Run, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "headstart.cli.main", "export", str(run.folder), "--out", str(tmp_path / "a"), "--precision", "fp32"]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert "The export gives the same answer as the original" in done.stdout
    assert f"Certificate  {tmp_path / 'a' / 'CERTIFICATE.md'}" in done.stdout
    assert headstart.load(tmp_path / "a").record.computed_in == ("fp32",)
    again = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"error: {tmp_path / 'a'} is not empty\nhint: choose another --out, or remove that folder first\n"


def test_photos_that_trained_the_model_are_told_of_in_the_certificate_and_on_the_terminal(run: Run, tmp_path: Path) -> None:
    words = ["export", str(run.folder), "--out", str(tmp_path / "a"), "--data", str(run.record["data"]["root"]), "--precision", "fp32"]
    done = subprocess.run([sys.executable, "-m", "headstart.cli.main", *words], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    n_seen = run.record["data"]["n"] - run.metrics["test"]["n"]
    told = f"{n_seen} of these photos trained this model: it knows them, so the numbers are too good"
    assert f"note: {told}" in done.stderr
    assert told in json.loads((tmp_path / "a" / "certificate.json").read_text(encoding="utf-8"))["notices"]
    assert f"- {told}" in (tmp_path / "a" / "CERTIFICATE.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {"phases.0.cut": "layer3", "phases.0.px": 24, "phases.0.epochs": 2, "test_views": 2},
        {"head.kind": "dense"},
    ],
    ids=["tuned, mirrored", "dense head"],
)
def test_a_torch_program_is_put_together_again_from_any_run(tiny_weights: Path, tmp_path: Path, setting: dict) -> None:
    photos = make_photos(tmp_path / "photos", n=24)
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run", set=setting)
    (way,) = headstart.export(run.folder, format="torch", out=tmp_path / "torch").certificate.ways
    assert way.n_differ == 0
    assert way.largest_difference < 1e-4


@pytest.mark.slow
@needs_nncf
@pytest.mark.parametrize(
    ("backbone", "file", "form"),
    [
        ("mobilenetv2_100", "mobilenetv2_100.imagenet1001.safetensors", "openvino"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.imagenet1000.safetensors", "onnx"),
    ],
)
def test_real_networks_stay_within_the_bar_in_int8(shared: Path, tmp_path: Path, backbone: str, file: str, form: str) -> None:
    photos = sorted((shared / "data" / "imagenet-samples").glob("*.jpg"))
    rows = "".join(f"{photo},{photo.name.split('_')[0]}\n" for photo in photos)
    (tmp_path / "samples.csv").write_text(f"path,label\n{rows}", encoding="utf-8")
    options = {"data": tmp_path / "samples.csv", "weights": shared / "weights" / file}
    found = headstart.export(backbone, format=form, int8=True, out=tmp_path / "int8", **options).certificate
    assert (found.n_calibrate, found.ways[0].n) == (111, 223)
    assert found.ways[0].drop < 0.03
    assert found.export_bytes < 0.5 * found.original_bytes
    if backbone == "mobilenetv2_100" and found.gain() < 1.1:
        assert "int8 is no gain in speed on this machine" in found.verdict()
