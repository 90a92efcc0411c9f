import dataclasses
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from colour_model import PX, SURE, colour_model, dividing_model, linear_model, two_things
from headstart.bundle.explain import PASSES, HeatMap, colours, find_label, heat_map, overlay, sheet, upright
from headstart.bundle.format import RECORD_FILE, Bundle, load_bundle
from headstart.bundle.record import NETWORK_FILE, Golden
from headstart.data.golden import golden_digest, golden_images
from headstart.data.pixels import Preprocessing, UnreadableImage
from headstart.errors import BundleError, ConfigError
from headstart.features.runtime import open_session
from headstart.files import write_json

HALF = PX // 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(colour_model(tmp_path_factory.mktemp("explain") / "model"))


def explained(bundle: Bundle, photo: Image.Image, label: str | None = None) -> HeatMap:
    return heat_map(bundle, photo, label, provider="onnxruntime")


def alike(one: HeatMap, other: HeatMap) -> float:
    return float(np.corrcoef(one.values.ravel(), other.values.ravel())[0, 1])


def test_the_map_shows_the_thing_the_label_is_of(model: Bundle) -> None:
    red, blue = (explained(model, two_things(), label) for label in ("red", "blue"))
    assert red.values[:HALF, :HALF].sum() > 0.9 * red.values.sum()
    assert blue.values[HALF:, HALF:].sum() > 0.9 * blue.values.sum()
    assert alike(red, blue) < 0
    assert (red.label, red.index, blue.label, blue.index) == ("red", 0, "blue", 2)
    assert red.values.shape == (PX, PX)
    assert red.values.dtype == np.float32
    assert (red.values.min(), red.values.max()) == (0, 1)


def test_without_a_label_the_answer_is_explained(model: Bundle) -> None:
    photo = Image.new("RGB", (40, 40), (120, 120, 120))
    photo.paste((20, 20, 250), (0, 0, 40, 12))
    found, answer = explained(model, photo), model.predict(photo)
    assert (found.label, found.index) == (answer.label, answer.index) == ("blue", 2)
    assert found.probability == pytest.approx(answer.probability)
    assert found.values[:10].sum() > 0.8 * found.values.sum()


def test_probability_hidden_is_the_answer_for_the_mean_colour(model: Bundle) -> None:
    photo = two_things()
    mean = np.rint(np.broadcast_to(np.asarray(photo.resize((PX, PX), Image.Resampling.BOX)).mean((0, 1)), (PX, PX, 3)))
    expected = dict(model.predict(mean.astype(np.uint8), top=3).top)
    assert explained(model, photo, "red").probability_hidden == pytest.approx(expected["red"], abs=0.01)


def test_of_a_network_that_adds_up_its_pixels_the_map_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, photo = rng.normal(size=(PX, PX, 3)), rng.integers(0, 256, (PX, PX, 3), np.uint8)
    found = heat_map(load_bundle(linear_model(tmp_path / "model", weights)), photo, "yes", provider="onnxruntime")
    detail, expected = photo - photo.mean((0, 1)), np.zeros((PX, PX))
    for cells, counts in ((8, 1), (4, 2 / 4)):  # the larger cells count twice, and have four times the area
        effects = np.zeros((cells, cells), np.float32)
        for row in range(cells):
            for column in range(cells):  # what the sum loses when this one cell is hidden
                cell = np.zeros((cells, cells), np.float32)
                cell[row, column] = 1
                effects[row, column] = (weights * detail * enlarged(cell)[..., None]).sum()
        expected += counts * enlarged(effects)
    expected = np.maximum(expected, 0)
    np.testing.assert_allclose(found.values, expected / expected.max(), atol=0.02)


def enlarged(cells: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(cells).resize((PX, PX), Image.Resampling.BILINEAR))


def test_a_randomised_head_changes_the_map(model: Bundle, tmp_path: Path) -> None:
    """The sanity check of Adebayo et al., 2018: a map that stays as it is would show the photo, not the model."""
    photo, rng = two_things(), np.random.default_rng(0)
    trained = explained(model, photo, "red")
    heads = [rng.permuted(SURE + rng.normal(size=(3, 3)), axis=None).astype(np.float32) for _ in range(6)]
    others = [explained(load_bundle(colour_model(tmp_path / str(i), head)), photo, "red") for i, head in enumerate(heads)]
    assert np.mean([alike(trained, other) if other.values.any() else 0 for other in others]) < 0.5
    assert alike(trained, explained(load_bundle(colour_model(tmp_path / "same")), photo, "red")) == pytest.approx(1)


@pytest.mark.slow
def test_a_permuted_head_on_a_trained_network_changes_the_map_of_photos(shared: Path, tmp_path: Path) -> None:
    """The same with the backbone of the package and real photos: maps of a head that knows nothing are others."""
    import headstart

    photos = tmp_path / "photos"
    for folder in sorted((shared / "data" / "flowers").iterdir()):
        for path in sorted(folder.glob("*.jpg"))[:24]:
            (photos / folder.name).mkdir(parents=True, exist_ok=True)
            (photos / folder.name / path.name).symlink_to(path)
    bundle = headstart.fit(photos, out=tmp_path / "run").bundle
    rng, likeness = np.random.default_rng(0), []
    permuted = [with_head(bundle, tmp_path / f"head{i}", lambda head: rng.permuted(head, axis=None)) for i in range(2)]
    for folder in sorted(photos.iterdir())[:4]:
        photo = sorted(folder.iterdir())[0]
        trained, others = heat_map(bundle, photo, folder.name), [heat_map(one, photo, folder.name) for one in permuted]
        likeness += [alike(trained, other) if other.values.any() else 0.0 for other in others]
    assert trained.values.any()
    assert np.mean(likeness) < 0.5, likeness
    same = with_head(bundle, tmp_path / "same", lambda head: head)
    assert alike(trained, heat_map(same, photo, folder.name)) == pytest.approx(1)


def with_head(bundle: Bundle, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Bundle:
    """A bundle with the weights of the last layer changed, and nothing else."""
    network = onnx.load(str(bundle.network_file))
    last = next(each for each in network.graph.initializer if each.name == network.graph.node[-1].input[1])
    last.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(last)), last.name))
    folder.mkdir()
    (folder / NETWORK_FILE).write_bytes(network.SerializeToString())
    files = {NETWORK_FILE: hashlib.sha256((folder / NETWORK_FILE).read_bytes()).hexdigest()}
    logits = open_session(folder / NETWORK_FILE, provider="onnxruntime").run(golden_images(bundle.preprocessing.input_px))
    write_json(folder / RECORD_FILE, dataclasses.replace(bundle.record, files=files, golden=Golden(golden_digest(), logits)).to_json())
    return load_bundle(folder)


def test_where_nothing_speaks_for_the_label_the_map_is_empty_and_says_so(tmp_path: Path) -> None:
    bundle = load_bundle(colour_model(tmp_path / "model", np.zeros((3, 3), np.float32)))
    found = explained(bundle, two_things(), "red")
    assert not found.values.any()
    assert found.probability == found.probability_hidden == pytest.approx(1 / 3)
    assert sheet(two_things(), found).height > sheet(two_things(), dataclasses.replace(found, values=np.ones_like(found.values))).height


def test_of_a_single_label_nothing_needs_to_be_seen(tmp_path: Path) -> None:
    found = explained(load_bundle(colour_model(tmp_path / "model", np.ones((1, 3), np.float32), names=("all",))), two_things())
    assert (found.probability, found.probability_hidden, found.values.any()) == (1, 1, False)


def test_a_path_bytes_pixels_and_a_pillow_image_give_the_same_map(model: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "two.png"
    two_things().save(path)
    maps = [heat_map(model, photo, provider="onnxruntime") for photo in (path, str(path), path.read_bytes(), np.asarray(two_things()))]
    for one in maps:
        np.testing.assert_array_equal(one.values, explained(model, two_things()).values)


def test_the_overlay_fits_the_upright_photo(model: Bundle, tmp_path: Path) -> None:
    upright_photo = two_things(64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: to be turned clockwise
    upright_photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    found = heat_map(model, tmp_path / "turned.png", "red", provider="onnxruntime")
    expected = overlay(upright_photo, explained(model, upright_photo, "red"))
    for image in (upright(tmp_path / "turned.png", 64), Image.open(tmp_path / "turned.png")):
        laid = overlay(image, found)
        assert laid.size == (64, 96)
        np.testing.assert_array_equal(np.asarray(laid), np.asarray(expected))


def test_only_what_the_network_sees_is_coloured_and_the_rest_is_dark(tmp_path: Path) -> None:
    bundle = load_bundle(colour_model(tmp_path / "model", crop=0.8))
    photo = two_things(120, 60)
    laid = np.asarray(overlay(photo, explained(bundle, photo, "red"))).astype(int)
    seen = np.zeros((60, 120), bool)
    seen[6:54, 36:84] = True  # 0.8 of the shorter side, in the middle
    assert (laid[~seen].max(axis=1) == laid[~seen].min(axis=1)).all()
    grey = np.asarray(photo.convert("L")).astype(int)
    assert (laid[~seen][:, 0] < 0.4 * grey[~seen]).all()
    assert (laid[seen].max(axis=1) > laid[seen].min(axis=1)).any()
    assert laid[seen].mean() > 2 * laid[~seen].mean()


def test_a_sheet_says_when_part_of_the_photo_is_not_seen(model: Bundle) -> None:
    whole, wide = two_things(64, 64), two_things(128, 64)
    lines = [sheet(photo, explained(model, photo)).height - photo.height for photo in (whole, wide)]
    assert lines[1] > lines[0]


def test_a_sheet_writes_labels_in_any_script(tmp_path: Path) -> None:
    bundle = load_bundle(colour_model(tmp_path / "model", names=("grün", "花", "a\nb" * 40)))
    for label in ("n0", "n1", "n2"):
        assert sheet(two_things(), explained(bundle, two_things(), label)).mode == "RGB"


def test_progress_is_told_of_every_picture(model: Bundle) -> None:
    done: list[int] = []
    heat_map(model, two_things(), provider="onnxruntime", advance=done.append)
    assert sum(done) == PASSES


def test_a_label_is_found_by_its_name_or_id(model: Bundle, tmp_path: Path) -> None:
    assert find_label(model, "grün") == find_label(model, "n1") == 1
    with pytest.raises(ConfigError, match=r"no class 'blu' among its 3\nhint: expected one of red, grün, blue"):
        find_label(model, "blu")
    many = load_bundle(colour_model(tmp_path / "many", np.zeros((30, 3), np.float32), names=[f"thing {i // 2}" for i in range(30)]))
    with pytest.raises(ConfigError, match=r"2 classes of the model are called 'thing 3'\nhint: name one by its id: n6, n7"):
        find_label(many, "thing 3")
    with pytest.raises(ConfigError, match=r"no class 'thin 3' among its 30\nhint: did you mean 'thing 3'"):
        find_label(many, "thin 3")


def test_what_cannot_be_explained_is_a_clear_error(model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UnreadableImage, match=r"text\.jpg: not an image"):
        heat_map(model, tmp_path / "text.jpg")
    with pytest.raises(UnreadableImage, match="the picture: empty file"):
        heat_map(model, b"")
    with pytest.raises(BundleError, match="the network's answer for this photo is not a number"):
        explained(load_bundle(dividing_model(tmp_path / "model")), Image.new("RGB", (40, 40)))


@given(st.integers(1, 70), st.integers(1, 70), st.floats(0.05, 1))
def test_an_overlay_has_the_size_of_its_photo(width: int, height: int, crop: float) -> None:
    values = np.linspace(0, 1, PX * PX, dtype=np.float32).reshape(PX, PX)
    found = HeatMap(values, "red", 0, 0.5, 0.1, Preprocessing(PX, crop, "bilinear", (0.5,) * 3, (0.5,) * 3))
    assert overlay(Image.new("RGB", (width, height)), found).size == (width, height)


def test_colours_are_those_of_viridis() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 256)
    assert np.abs(colours(values) - 255 * matplotlib.colormaps["viridis"](values)[:, :3]).max() < 6


def test_a_big_photo_is_read_no_larger_than_it_is_shown() -> None:
    file = io.BytesIO()
    Image.new("RGB", (900, 600)).save(file, "JPEG")
    assert upright(file.getvalue(), 100).size == (150, 100)
    assert upright(Image.new("L", (30, 20)), 100).size == (30, 20)


@pytest.mark.parametrize(
    ("size", "expected"), [((2_000_000, 1), (800, 1)), ((3, 70_000), (1, 800)), ((8000, 400), (800, 40)), ((800, 100), (800, 100))]
)
def test_a_photo_that_is_all_length_is_shown_no_longer_than_eight_times_as_high_as_others(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert upright(Image.new("RGB", size), 100).size == expected
