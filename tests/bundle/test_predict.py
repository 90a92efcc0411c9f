import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.bundle import predict
from headstart.bundle.format import Bundle, load_bundle
from headstart.bundle.predict import Prediction, counted, open_engine, softmax, stream
from headstart.bundle.record import LabelSets, NoneOfThese
from headstart.errors import BundleError, ConfigError
from headstart.features import runtime

Photo = Callable[..., Path]
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def test_one_photo_gives_one_prediction(bundle: Bundle, photo: Photo) -> None:
    found = bundle.predict(photo("red.png", (255, 0, 0)), top=2)
    assert (found.index, found.label, found.id, found.reason) == (0, "tabby", "n02123045", None)
    assert found.top[0][0] == "tabby"
    assert found.top[0][1] == found.probability > found.top[1][1]
    assert found.top_ids[0] == "n02123045"
    assert found.path.endswith("red.png")


def test_probabilities_are_of_every_class_and_calibrated(bundle: Bundle, photo: Photo) -> None:
    path = photo("blue.png", (0, 0, 255))
    found = next(stream(bundle, [path], all_probabilities=True))
    assert found.probabilities is not None
    assert found.probabilities.sum() == pytest.approx(1)
    warmer = dataclasses.replace(bundle, record=dataclasses.replace(bundle.record, temperature=10.0))
    assert warmer.predict(path).probability < found.probability
    assert bundle.predict(path).probabilities is None


def test_a_path_bytes_pixels_and_a_pillow_image_are_the_same_photo(bundle: Bundle, photo: Photo) -> None:
    path = photo("green.png", (10, 200, 30))
    photos = [path, str(path), path.read_bytes(), np.asarray(Image.open(path)), Image.open(path)]
    found = bundle.predict(photos)
    assert isinstance(found, list)
    assert len({one.top for one in found}) == 1
    assert [one.path for one in found] == [str(path), str(path), "", "", ""]


def test_a_pillow_image_is_turned_upright_and_made_rgb(bundle: Bundle, tmp_path: Path) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :20, 0], picture[:, 20:, 1] = 255, 120
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    turned = tmp_path / "turned.png"
    assert bundle.predict(Image.open(turned)).top == bundle.predict(turned).top
    assert bundle.predict(Image.new("CMYK", (50, 50))).reason is None


def test_a_pillow_image_whose_decoder_fails_is_a_row_with_its_reason(bundle: Bundle, photo: Photo, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    data = (tmp_path / "noise.png").read_bytes()
    third = data.index(b"IDAT", data.index(b"IDAT", data.index(b"IDAT") + 4) + 4)
    (tmp_path / "broken.png").write_bytes(data[:third] + b"\0\0\0\0" + data[third + 4 :])
    with Image.open(tmp_path / "broken.png") as image:
        broken, good = bundle.predict([image, photo("a.png")])
    assert broken.reason.startswith("cannot be read")
    assert good.reason is None


def test_a_fault_of_the_program_is_not_taken_for_a_bad_photo(bundle: Bundle, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise TypeError("a fault")

    monkeypatch.setattr("headstart.bundle.predict.load", faulty)
    with pytest.raises(TypeError, match="a fault"):
        bundle.predict(photo("a.png"))


def test_photos_come_back_in_order_with_bad_ones_in_their_place(bundle: Bundle, photo: Photo, tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    good = [photo(f"{i}.png", colours[i]) for i in range(3)]
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:60])
    bad = [tmp_path / "text.jpg", tmp_path / "empty.jpg", tmp_path / "cut.png", tmp_path / "absent.png", tmp_path]
    photos = [good[i % 3] if i % 4 else bad[i // 4 % 5] for i in range(400)]
    found = list(stream(bundle, iter(photos)))
    assert [one.path for one in found] == [str(path) for path in photos]
    for i, one in enumerate(found):
        if i % 4:
            assert (one.index, one.reason) == (i % 3, None)
        else:
            assert one.reason
            assert (one.label, one.index, one.probability, one.top) == (None, None, None, ())
    assert [found[4 * i].reason for i in range(2)] == ["not an image (text)", "empty file"]


def test_nothing_but_bad_photos_is_answered_too(bundle: Bundle) -> None:
    found = list(stream(bundle, [b"", b"text", np.zeros((2, 2)), 7] * 100))  # type: ignore[list-item]
    assert len(found) == 400
    assert found[2].reason == "expected pixels as uint8 [h, w, 3], found float64 [2, 2]"
    assert found[3].reason == "not a photo but int"
    assert list(stream(bundle, [])) == []


def test_a_million_photos_would_need_no_more_memory_than_a_few(bundle: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)

    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in stream(bundle, (image.copy() for _ in range(n)), provider="onnxruntime", threads=1):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(600)
    assert peak(3000) < 1.3 * peak(1000)


def test_every_core_decodes_however_many_there_are(bundle: Bundle, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    n_cores = 24
    all_at_once = threading.Barrier(n_cores)
    read = predict.read

    def meeting(*arguments: object, **options: object) -> predict.Read:
        all_at_once.wait(20)  # raises where not all come
        return read(*arguments, **options)  # type: ignore[arg-type]

    open_engine(bundle, "onnxruntime", "fp32")  # the network keeps to the cores there are
    monkeypatch.setattr(runtime, "cores", lambda: n_cores)
    monkeypatch.setattr(predict, "read", meeting)
    found = list(stream(bundle, [photo("a.png")] * n_cores, provider="onnxruntime", precision="fp32"))
    assert {one.label for one in found} == {found[0].label}
    assert found[0].reason is None


def test_photos_are_fetched_no_further_ahead_than_a_few_batches(bundle: Bundle) -> None:
    fetched = 0

    def photos() -> Iterator[np.ndarray]:
        nonlocal fetched
        for _ in range(3000):
            fetched += 1
            yield np.zeros((32, 32, 3), np.uint8)

    answers = stream(bundle, photos(), provider="onnxruntime")
    next(answers)
    size = open_engine(bundle, "onnxruntime", "fp32").batch_size
    assert fetched <= predict.MANY + 8 * size
    answers.close()  # type: ignore[attr-defined]


@needs_openvino
def test_providers_agree(bundle: Bundle) -> None:
    photos = list(np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3), np.uint8))

    def probs(provider: str, precision: str) -> np.ndarray:
        answers = stream(bundle, photos, provider=provider, precision=precision, all_probabilities=True)
        return np.array([one.probabilities for one in answers])

    exact = probs("onnxruntime", "fp32")
    np.testing.assert_allclose(exact, probs("openvino", "fp32"), atol=1e-5)
    if runtime.bf16_is_fast():
        np.testing.assert_allclose(exact, probs("openvino", "bf16"), atol=0.02)


@needs_openvino
def test_few_photos_go_to_the_provider_that_starts_soonest_and_many_to_the_fastest(bundle: Bundle) -> None:
    photos = [np.zeros((32, 32, 3), np.uint8)] * 64
    list(stream(bundle, photos[:63]))
    assert set(bundle.sessions) == {("onnxruntime", "fp32")}
    list(stream(bundle, photos))
    assert {provider for provider, _ in bundle.sessions} == {"onnxruntime", "openvino"}


def test_a_network_that_answers_otherwise_is_refused(bundle: Bundle) -> None:
    golden = dataclasses.replace(bundle.record.golden, logits=bundle.record.golden.logits[:, ::-1])
    changed = dataclasses.replace(bundle, record=dataclasses.replace(bundle.record, golden=golden))
    with pytest.raises(BundleError, match=r"logits of the golden pictures differ by [\d.]+ of the largest, at most 0.001 allowed"):
        changed.predict(np.zeros((32, 32, 3), np.uint8))


def test_a_network_of_another_shape_is_refused(bundle: Bundle) -> None:
    record = dataclasses.replace(bundle.record, labels=bundle.labels[:2])
    with pytest.raises(BundleError, match=r"expected \[32, 32, 3\] to \[2\], found \[32, 32, 3\] to \[3\]"):
        dataclasses.replace(bundle, record=record).predict(b"")


def test_a_network_no_runtime_knows_is_refused(folder: Path) -> None:
    bundle = load_bundle(folder)
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(BundleError, match=r"onnxruntime cannot run the network in .*model.onnx: "):
        bundle.predict(b"")


def test_what_auto_chose_and_does_not_work_is_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path, *, provider: str, **options: object) -> runtime.Session:
        if provider == "openvino":
            raise RuntimeError("unsupported operation\nand details")
        return runtime.OnnxRuntimeSession(path, 1)

    monkeypatch.setattr(runtime, "resolve", lambda provider, precision: ("openvino" if provider == "auto" else provider, "fp32"))
    monkeypatch.setattr(runtime, "open_session", broken)
    with caplog.at_level(logging.WARNING, "headstart"):
        assert len(list(stream(bundle, [np.zeros((32, 32, 3), np.uint8)] * 64))) == 64
    assert "openvino cannot run the network in" in caplog.text
    assert "unsupported operation; using onnxruntime in fp32" in caplog.text
    with pytest.raises(BundleError, match="openvino cannot run"):
        bundle.predict(b"", provider="openvino", precision="fp32")


def test_an_answer_that_is_not_a_number_is_a_reason(bundle: Bundle) -> None:
    logits = np.array([[1, 0, 0], [np.nan, 0, 0]], np.float32)
    rows = predict.predictions(bundle, [predict.Read("a"), predict.Read("b")], logits, 1, False)
    assert [(one.label, one.reason) for one in rows] == [("tabby", None), (None, "the network's answer is not a number")]


def saying(bundle: Bundle, *, energy: float | None = None, threshold: float | None = None) -> Bundle:
    """The same model with a threshold for none of these, and one for sets."""
    none_of_these = None if energy is None else NoneOfThese(energy, 0.05)
    conformal = None if threshold is None else LabelSets(0.9, threshold)
    return dataclasses.replace(bundle, record=dataclasses.replace(bundle.record, none_of_these=none_of_these, conformal=conformal))


def test_a_photo_of_higher_energy_than_the_threshold_is_none_of_the_labels(bundle: Bundle) -> None:
    logits = np.array([[2, 0, 0], [0, 0, 0]], np.float32)  # energies -2.24 and -1.10
    rows = list(predict.predictions(saying(bundle, energy=-1.5), [predict.Read("a"), predict.Read("b")], logits, 2, False))
    assert [(one.known, one.label) for one in rows] == [(True, "tabby"), (False, "tabby")]
    rows = list(predict.predictions(saying(bundle), [predict.Read("a")], logits[:1], 2, False))
    assert [(one.known, one.labels) for one in rows] == [(None, ())]


def test_the_temperature_moves_probabilities_and_not_what_is_known(bundle: Bundle, photo: Photo) -> None:
    path = photo("red.png", (255, 0, 0))
    assert bundle.predict(path).known is None
    for temperature in (0.1, 1.5, 20.0):
        warm = dataclasses.replace(bundle, record=dataclasses.replace(bundle.record, temperature=temperature))
        assert [saying(warm, energy=energy).predict(path).known for energy in (-100.0, 100.0)] == [False, True]


def test_a_set_holds_the_answer_and_every_label_that_is_probable_enough(bundle: Bundle, photo: Photo) -> None:
    path = photo("grey.png", (130, 128, 120))
    alone = saying(bundle, threshold=1.0).predict(path)
    assert alone.labels == (alone.label,)
    every = saying(bundle, threshold=0.0).predict(path, top=1)
    assert every.labels == tuple(label for label, _ in bundle.predict(path, top=3).top)
    second = bundle.predict(path, top=2).top[1][1]
    assert len(saying(bundle, threshold=second - 1e-4).predict(path).labels) == 2
    assert len(saying(bundle, threshold=second + 1e-4).predict(path).labels) == 1


def test_what_cannot_be_read_is_neither_known_nor_unknown(bundle: Bundle) -> None:
    found = saying(bundle, energy=0.0, threshold=0.5).predict(b"text")
    assert (found.known, found.labels, found.label) == (None, (), None)


def test_top_must_be_positive_and_ends_with_the_classes(bundle: Bundle, photo: Photo) -> None:
    with pytest.raises(ConfigError, match="at least 1 answer a photo, found top = 0"):
        bundle.predict(photo("a.png"), top=0)
    assert len(bundle.predict(photo("a.png"), top=50).top) == 3


def test_a_prediction_is_json(bundle: Bundle, photo: Photo) -> None:
    values = json.loads(json.dumps(bundle.predict(photo("a.png"), top=1).to_json()))
    assert values["top"] == [{"label": "tabby", "id": "n02123045", "probability": values["probability"]}]
    assert (values["known"], values["labels"]) == (None, [])
    said = json.loads(json.dumps(saying(bundle, energy=-100.0, threshold=0.0).predict(photo("a.png")).to_json()))
    assert (said["known"], sorted(said["labels"])) == (False, sorted(label.name for label in bundle.labels))
    assert Prediction("x", reason="empty file").to_json()["reason"] == "empty file"


def test_counted_tells_of_each() -> None:
    seen: list[int] = []
    assert len(list(counted([Prediction("a"), Prediction("b")], seen.append))) == 2
    assert seen == [1, 1]


def test_softmax_stands_huge_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e30, 0], [-1e4, -1e4]], np.float32)), [[1, 0], [0.5, 0.5]])


def test_predicting_imports_neither_pytorch_nor_other_heavy_things(folder: Path, photo: Photo) -> None:
    heavy = "torch timm torchvision openvino sklearn scipy pyarrow matplotlib onnx rich"
    code = (
        "import sys; from headstart.bundle.format import load_bundle\n"
        f"print(load_bundle({str(folder)!r}).predict({str(photo('a.png'))!r}).label)\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.stdout.split("\n")[:2], done.stderr) == (["tabby", "[]"], "")
