"""Pixel figures against numbers worked out by hand or by numpy; counts, extremes and sample photos of tables."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from headstart.data.table import Omitted, Photo, Table
from headstart.errors import DataError
from headstart.explore.look import Looks, look
from headstart.explore.overview import overview, samples


def table_of(root: Path, *pictures: Image.Image | np.ndarray, kind: str = "png") -> Table:
    """A table of pictures, saved below `root`, class "a"."""
    photos = []
    for i, picture in enumerate(pictures):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        path = root / f"{i}.{kind}"
        image.save(path)
        photos.append(Photo(path.name, "a", hashlib.sha256(path.read_bytes()).hexdigest(), mode=image.mode))
    return Table(root, tuple(photos), ("a",))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_photo_half_black_half_white_has_the_figures_worked_by_hand(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, 4:] = 255
    looks = look(table_of(tmp_path, picture))
    assert looks.mean.tolist() == [[127.5] * 3]
    assert looks.std.tolist() == [[127.5] * 3]
    assert (looks.brightness[0], looks.contrast[0]) == (127.5, 127.5)
    assert looks.histogram.shape == (3, 256)
    assert looks.histogram[:, [0, 255]].tolist() == [[32768, 32768]] * 3
    assert looks.histogram.sum() == 3 * 65536
    assert (looks.mean_all, looks.std_all) == (127.5, 127.5)
    assert looks.not_finite.tolist() == []


def test_figures_of_photos_of_one_size_are_those_of_all_their_pixels(tmp_path: Path) -> None:
    pictures = [noise(6, 9, seed) // (seed + 1) for seed in range(4)]
    table = table_of(tmp_path, *pictures)
    looks = look(table)
    pixels = np.stack(pictures).astype(np.float64)
    np.testing.assert_allclose(looks.pixel_mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(looks.pixel_std, pixels.std((0, 1, 2)))
    np.testing.assert_allclose((looks.mean_all, looks.std_all), (pixels.mean(), pixels.std()))
    np.testing.assert_allclose(looks.mean, pixels.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(looks.std, pixels.std((1, 2)), rtol=1e-6)
    shares = [np.bincount(np.stack(pictures)[..., c].ravel(), minlength=256) for c in range(3)]
    np.testing.assert_allclose(looks.histogram, 65536 / 54 * np.stack(shares), atol=0.5)
    assert looks.to_json(table)["mean_0_1"] == pytest.approx((pixels.mean((0, 1, 2)) / 255).tolist(), abs=1e-5)


def test_each_photo_counts_the_same_whatever_its_size(tmp_path: Path) -> None:
    looks = look(table_of(tmp_path, np.zeros((4, 4, 3), np.uint8), np.full((40, 60, 3), 100, np.uint8)))
    assert looks.mean_all == 50
    assert looks.std_all == 50


def test_a_blurred_copy_is_less_sharp_and_a_plain_picture_not_sharp_at_all(tmp_path: Path) -> None:
    sharp = Image.fromarray(noise(224, 224))
    plain = Image.new("RGB", (50, 50), (9, 80, 200))
    looks = look(table_of(tmp_path, sharp, sharp.filter(ImageFilter.GaussianBlur(2)), plain))
    assert looks.sharpness[0] > 10 * looks.sharpness[1] > 0
    assert looks.sharpness[2] == 0


def test_the_border_is_the_outermost_pixels_and_nothing_else(tmp_path: Path) -> None:
    framed = noise(64, 96)
    framed[:2], framed[-2:], framed[:, :2], framed[:, -2:] = 10, 20, 30, 40
    other = noise(64, 96, seed=1)
    other[:2], other[-2:], other[:, :2], other[:, -2:] = 10, 20, 30, 40
    border = look(table_of(tmp_path, framed, other)).border.reshape(2, 4, 8, 3)
    np.testing.assert_array_equal(border[0], border[1])
    for side, colour in zip(border[0], (10, 20, 30, 40), strict=True):
        np.testing.assert_array_equal(side[1:-1], colour)  # corners are mixed


def test_a_big_jpeg_is_decoded_small_and_keeps_its_mean(tmp_path: Path) -> None:
    coarse = Image.fromarray(noise(90, 100)).resize((1000, 900), Image.Resampling.NEAREST)
    fine = Image.fromarray(noise(900, 1000))
    looks = look(table_of(tmp_path, coarse, fine, kind="jpg"))
    full = np.asarray(Image.open(tmp_path / "1.jpg"), np.float64)
    np.testing.assert_allclose(looks.mean[1], full.mean((0, 1)), atol=1)
    assert (looks.std[1] < 0.9 * full.std((0, 1))).all()  # what neighbours average out
    np.testing.assert_allclose(looks.std[0], np.asarray(coarse, np.float64).std((0, 1)), rtol=0.05)


def test_photos_that_hold_values_that_are_not_finite_are_found_and_named(tmp_path: Path) -> None:
    values = np.full((9, 9), 0.5, np.float32)
    broken = values.copy()
    broken[2, 3] = np.nan
    table = table_of(tmp_path, values, broken, kind="tif")
    looks = look(table)
    assert looks.not_finite.tolist() == [1]
    assert (looks.to_json(table)["not_finite"], looks.to_json(table)["not_finite_photos"]) == (1, ["1.tif"])


def test_a_photo_that_vanished_or_changed_is_a_clear_error(tmp_path: Path) -> None:
    table = table_of(tmp_path, noise(5, 5), noise(5, 5, seed=1))
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"1\.png changed while"):
        look(table)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read .*1\.png any more: No such file"):
        look(table)


def plain_looks(n: int) -> Looks:
    """Looks of n photos, each a little brighter than the one before."""
    rising = np.arange(n, dtype=np.float32)
    threes, zeros = np.zeros((n, 3), np.float32), np.zeros(3)
    border, histogram = np.zeros((n, 96), np.uint8), np.zeros((3, 256), np.int64)
    return Looks(threes, threes, rising, -rising, rising % 3, border, np.zeros(0, np.int64), histogram, zeros, zeros, 0.0, 0.0)


def photos_of(counts: dict[str, int], **more: object) -> tuple[Photo, ...]:
    names = [name for name, n in counts.items() for _ in range(n)]
    return tuple(Photo(f"{name}/{i}.jpg", name, f"{i:064x}", **more) for i, name in enumerate(names))


def test_counts_sizes_and_balance_of_a_table() -> None:
    photos = photos_of({"a": 40, "b": 10}, split="train", width=40, height=20, format="JPEG", mode="RGB", n_bytes=7)
    photos = (*photos[:-1], dataclasses.replace(photos[-1], split="test", width=20, mode="L", format="PNG"))
    omitted = [
        *(Omitted(f"{i}", f"line {i}: no such file") for i in range(3)),
        *(Omitted(f"{i}", f"damaged PNG (chunk {i})") for i in range(2)),
        Omitted("x", "two labels: 'a' and 'b'"),
        Omitted("y", "line 7 repeats line 3"),
        Omitted("z", "truncated"),
    ]
    found = overview(Table(Path(), photos, ("a", "b"), tuple(omitted)), plain_looks(50))
    assert found.classes == {"a": {"train": 40, "val": 0, "test": 0, "all": 40}, "b": {"train": 9, "val": 0, "test": 1, "all": 10}}
    assert found.splits == {"train": 49, "val": 0, "test": 1}
    assert (found.imbalance, found.majority, found.small) == (4.0, 0.8, ("b",))
    assert found.sizes == ((40, 20, 49), (20, 20, 1))
    assert (found.width.least, found.width.median, found.width.most) == (20, 40, 40)
    assert (found.aspect.least, found.aspect.most) == (1, 2)
    assert (found.formats, found.modes, found.n_bytes) == ({"JPEG": 49, "PNG": 1}, {"RGB": 49, "L": 1}, 350)
    reasons = ["no such file", "damaged PNG", "repeats another line", "truncated", "two labels"]
    assert list(found.omitted.items()) == list(zip(reasons, (3, 2, 1, 1, 1), strict=True))


def test_extremes_are_the_ends_of_each_scale_and_never_both() -> None:
    table = Table(Path(), photos_of({"a": 5}), ("a",))
    found = {extreme.name: extreme for extreme in overview(table, plain_looks(5)).extremes}
    assert found["darkest"].photos == (0, 1)
    assert found["brightest"].photos == (4, 3)
    assert found["brightest"].values == (4.0, 3.0)
    assert found["least contrast"].photos == (4, 3)
    assert found["least sharp"].photos == (0, 3)  # of equals, the first in the table
    one = overview(Table(Path(), photos_of({"a": 1}), ("a",)), plain_looks(1))
    assert [extreme.photos for extreme in one.extremes] == [(0,)] * 6


@given(seed=st.integers(0, 99), order=st.permutations(range(24)))
def test_samples_follow_from_photos_and_seed_whatever_their_order_and_names(seed: int, order: list[int]) -> None:
    photos = photos_of({"a": 14, "b": 10}, width=9, height=9)
    shuffled = [dataclasses.replace(photos[i], path=f"{i}.png") for i in order]
    first = samples(Table(Path(), photos, ("a", "b")), seed=seed)
    again = samples(Table(Path(), tuple(shuffled), ("a", "b")), seed=seed)
    assert {name: len(chosen) for name, chosen in first.items()} == {"a": 8, "b": 8}
    assert all(photos[i].label == name for name, chosen in first.items() for i in chosen)
    assert {name: [order[i] for i in chosen] for name, chosen in again.items()} == {name: list(chosen) for name, chosen in first.items()}


def test_samples_show_one_photo_of_a_group_and_fewer_of_many_classes() -> None:
    grouped = tuple(dataclasses.replace(photo, group="g" if i < 10 else "") for i, photo in enumerate(photos_of({"a": 12})))
    assert len(samples(Table(Path(), grouped, ("a",)), seed=0)["a"]) == 3
    many = photos_of({f"{name:03}": 9 for name in range(100)})
    found = samples(Table(Path(), many, tuple(f"{name:03}" for name in range(100))), seed=0)
    assert {len(chosen) for chosen in found.values()} == {4}
