import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretrain.augment import augmented, normalised
from pretrain.export import as_read, export
from pretrain.photos import Photos, read_photos
from pretrain.products import Convolution, with_products
from pretrain.recipe import Recipe
from pretrain.sources import DETAILED_PX, NO_LABEL, detailed_photos, held_out_files, small_photos
from pretrain.teacher import Classifier, Lessons, classifier_of, read_teacher, teach
from pretrain.train import Course, State, draw_batch, train
from pretrain.views import Views, draw_boxes, draw_views, jittered, show
from safetensors import safe_open

from headstart.backbone.reading import read_tensors

TILE_PX = 16
LARGE = np.random.default_rng(9).integers(0, 256, (20, 40, 40, 3), np.uint8)
RECIPE = Recipe(
    model_args={"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16], "stem_width": 8},
    views=2,
    epochs=2,
    batch_size=8,
    rate=0.02,
    sizes=((0.5, 32), (1.0, 40)),
    val_px=32,
    checkpoint_s=1e9,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of 36 tiles: reddish and greenish, each tile of its own brightness, with noise in blue."""
    folder = tmp_path / "tiny"
    (folder / "train").mkdir(parents=True)
    for synset, channel in (("n01", 0), ("n02", 1)):
        sheet = np.zeros((6 * TILE_PX, 6 * TILE_PX, 3), np.uint8)
        sheet[..., 2] = np.random.default_rng(channel).integers(0, 256, sheet.shape[:2])
        for i in range(36):
            row, column = divmod(i, 6)
            sheet[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX, channel] = 40 + 6 * i
        Image.fromarray(sheet).save(folder / "train" / f"{synset}.avif", quality=95)
    (folder / "classes.tsv").write_text("n01\tred thing\nn02\tgreen thing\n", "utf-8")
    return folder


def photos_of(data: Path, work: Path) -> Photos:
    return read_photos(data, work, tile_px=TILE_PX, val_per_class=4)


def course_of(photos: Photos, views: int = RECIPE.views) -> Course:
    """What a teacher of 3 features would have said: the mean colour of each view, twice."""
    source = small_photos(photos, 0.3)
    drawn = [draw_views(source.photos, 0.3, seed) for seed in range(views)]
    together = Views(*(np.concatenate([getattr(some, field.name) for some in drawn]) for field in dataclasses.fields(Views)))
    colours = show(photos.pixels, together, 16, mode="bilinear").mean((2, 3)) / 255
    lessons = Lessons(source, together, torch.cat([colours, colours], 1).numpy().astype(np.float16))
    return Course((lessons,), Classifier(torch.eye(3), torch.zeros(3)))


def run(photos: Photos, work: Path, recipe: Recipe, stop_after_steps: int | None = None) -> State:
    return train(photos, course_of(photos), work, recipe, stop_after_steps=stop_after_steps)


def test_sheets_are_cut_row_by_row_and_each_class_holds_photos_out(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data, tmp_path / "work")
    assert photos.pixels.shape == (72, TILE_PX, TILE_PX, 3)
    brightness = photos.pixels[:36, :, :, 0].mean((1, 2))
    assert np.abs(brightness - (40 + 6 * np.arange(36))).max() < 12
    assert photos.names == ("red thing", "green thing")
    assert np.bincount(photos.labels[photos.val]).tolist() == [4, 4]
    assert sorted([*photos.train, *photos.val]) == list(range(72))


def test_photos_are_read_once_and_again_when_the_sheets_change(data: Path, tmp_path: Path) -> None:
    first = photos_of(data, tmp_path / "work")
    written = (tmp_path / "work" / "photos.npy").stat().st_mtime_ns
    again = photos_of(data, tmp_path / "work")
    assert (tmp_path / "work" / "photos.npy").stat().st_mtime_ns == written
    assert np.array_equal(first.val, again.val)
    (data / "train" / "n02.avif").unlink()
    assert photos_of(data, tmp_path / "work").synsets == ("n01",)


def test_a_killed_run_continues_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    whole = run(photos_of(data, tmp_path / "a"), tmp_path / "a", RECIPE)
    photos = photos_of(data, tmp_path / "b")
    killed = run(photos, tmp_path / "b", RECIPE, stop_after_steps=11)  # past the checkpoint at the end of epoch 1
    assert killed.step == 11
    (tmp_path / "b" / "checkpoint.safetensors.part").write_bytes(b"half a checkpoint")
    continued = run(photos, tmp_path / "b", RECIPE)
    assert continued.step == whole.step == 16
    assert all(np.isfinite(row["train_loss"]) for row in whole.log)
    assert_same_weights(whole, continued)
    assert [row["val_loss"] for row in continued.log] == [row["val_loss"] for row in whole.log]
    assert len((tmp_path / "b" / "log.csv").read_text("utf-8").splitlines()) == 3


def test_a_finished_run_is_left_alone(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=0.5)
    first = run(photos_of(data, tmp_path / "w"), tmp_path / "w", recipe)
    again = run(photos_of(data, tmp_path / "w"), tmp_path / "w", recipe)
    assert first.step == again.step == 4
    assert_same_weights(first, again)


def test_a_second_training_begins_with_the_averaged_weights_of_the_first(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data, tmp_path / "w")
    first = run(photos, tmp_path / "w", dataclasses.replace(RECIPE, epochs=0.5))
    second = dataclasses.replace(RECIPE, start="its hash", seed=5, rate=1e-4, other_rate=1e-4, jitter=0.1)
    course, checkpoint = course_of(photos), tmp_path / "w" / "checkpoint.safetensors"
    state = train(photos, course, tmp_path / "second", second, start=checkpoint, stop_after_steps=0)
    assert state.step == 0
    for name, value in state.student.network.state_dict().items():
        assert torch.equal(value, first.averaged[name]), name
    assert torch.equal(state.student.mimic.weight, first.student.mimic.weight)
    ended = train(photos, course, tmp_path / "second", second, start=checkpoint)
    again = train(photos, course, tmp_path / "second", second, start=checkpoint)  # finished: the start is not read again
    assert_same_weights(ended, again)
    assert any(not torch.equal(value, first.averaged[name]) for name, value in ended.averaged.items())


def test_a_checkpoint_of_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data, tmp_path / "w")
    run(photos, tmp_path / "w", dataclasses.replace(RECIPE, epochs=0.125))
    with pytest.raises(ValueError, match="other values of epochs, rate"):
        run(photos, tmp_path / "w", dataclasses.replace(RECIPE, epochs=0.25, rate=0.1))


def test_a_time_budget_sets_the_schedule_by_the_time_spent() -> None:
    recipe = dataclasses.replace(RECIPE, minutes=2.0)
    assert recipe.progress(10**6, 8, spent_s=60) == 0.5
    assert recipe.progress(0, 8, spent_s=121) == 1.0
    assert [recipe.px_at(p) for p in (0.0, 0.49, 0.5, 1.0)] == [32, 32, 40, 40]
    assert recipe.rate_at(recipe.warm_up) == pytest.approx(1.0)
    assert recipe.rate_at(1.0) == pytest.approx(0.01)


def test_the_export_reads_back_as_the_averaged_network(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data, tmp_path / "w")
    state = run(photos, tmp_path / "w", dataclasses.replace(RECIPE, epochs=0.5))
    export(tmp_path / "w" / "checkpoint.safetensors", tmp_path / "out" / "embedded.safetensors", photos, LARGE)
    file = tmp_path / "out" / "embedded.safetensors"
    with safe_open(file, "pt") as opened:
        facts = json.loads(opened.metadata()["headstart"])
        kinds = {opened.get_tensor(name).dtype for name in opened.keys()}  # noqa: SIM118
    assert kinds == {torch.uint8, torch.int64, torch.float32}
    stored = read_tensors(file)
    assert facts["classes"] == 2
    assert facts["class_names"] == [{"id": "n01", "name": "red thing"}, {"id": "n02", "name": "green thing"}]
    network = dataclasses.replace(RECIPE, model_args=without_classes(facts["model_args"])).network(facts["model_args"]["num_classes"])
    network.load_state_dict(state.averaged)
    kept = {name: value for name, value in network.state_dict().items() if name in stored}
    assert set(kept) == {name for name in state.averaged if not name.endswith("num_batches_tracked")}
    for name, value in kept.items():
        assert stored[name].shape == value.shape, name
        if "running" not in name:
            error = (stored[name] - value).square().mean() / value.square().mean().clamp(min=1e-12)
            assert error <= (1e-3 if value.ndim > 1 else 0), name  # 8 bits a number


def test_exported_statistics_are_those_of_the_exported_weights(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data, tmp_path / "w")
    run(photos, tmp_path / "w", dataclasses.replace(RECIPE, epochs=0.5))
    export(tmp_path / "w" / "checkpoint.safetensors", tmp_path / "w" / "embedded.safetensors", photos, LARGE)
    stored = read_tensors(tmp_path / "w" / "embedded.safetensors")
    network = RECIPE.network(2).eval()
    network.load_state_dict(stored, strict=False)
    seen: list[torch.Tensor] = []
    network.get_submodule("layer4.0.bn2").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(as_read(photos, LARGE))
    torch.testing.assert_close(stored["layer4.0.bn2.running_mean"], seen[0].mean((0, 2, 3)), rtol=0.02, atol=0.01)
    torch.testing.assert_close(stored["layer4.0.bn2.running_var"], seen[0].var((0, 2, 3)), rtol=0.05, atol=0.01)


def test_the_last_part_of_a_training_computes_with_the_numbers_that_the_file_can_hold(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=0.75, rounded_from=0.4, large=2_000)
    photos = photos_of(data, tmp_path / "a")
    whole = run(photos, tmp_path / "a", recipe)
    assert "layer4.0.conv2.weight" in whole.levels
    assert "fc.weight" not in whole.levels
    assert len(whole.levels["layer4.0.conv2.weight"]) == 32
    kernel = whole.student.network.get_submodule("layer4.0.conv2").weight
    assert len(kernel.unique()) > 1000  # what is trained is not rounded
    photos = photos_of(data, tmp_path / "b")
    run(photos, tmp_path / "b", dataclasses.replace(recipe, checkpoint_s=0.0), stop_after_steps=4)
    continued = run(photos, tmp_path / "b", dataclasses.replace(recipe, checkpoint_s=0.0))
    assert_same_weights(whole, continued)
    other = run(photos_of(data, tmp_path / "c"), tmp_path / "c", dataclasses.replace(recipe, rounded_from=1.0))
    assert not torch.equal(other.averaged["conv1.0.weight"], whole.averaged["conv1.0.weight"])
    export(tmp_path / "a" / "checkpoint.safetensors", tmp_path / "a" / "embedded.safetensors", photos, LARGE)
    stored = read_tensors(tmp_path / "a" / "embedded.safetensors")
    assert max(len(channel.unique()) for channel in stored["layer4.0.conv2.weight"]) <= 32
    torch.testing.assert_close(stored["layer4.0.conv2.weight"], whole.averaged["layer4.0.conv2.weight"], rtol=0.3, atol=0.05)


def test_a_batch_follows_from_the_seed_alone(data: Path, tmp_path: Path) -> None:
    course = course_of(photos_of(data, tmp_path / "w"))
    first, second, other = (draw_batch(course, np.arange(8), 12, 0.05, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.x_nchw.shape == (8, 3, 12, 12)
    assert torch.equal(first.x_nchw, second.x_nchw)
    assert torch.equal(first.features, second.features)
    assert not torch.equal(first.x_nchw, other.x_nchw)


def test_boxes_stay_inside_the_photo_and_are_what_is_shown() -> None:
    boxes = draw_boxes(500, 0.3, torch.Generator().manual_seed(0))
    assert ((boxes[:, :2].abs() + boxes[:, 2:]) <= 1 + 1e-6).all()
    area = boxes[:, 2] * boxes[:, 3]
    assert 0.25 < area.min() < 0.4 < 0.9 < area.max() <= 1
    ramp = np.broadcast_to(np.arange(0, 256, 4, np.uint8)[None, None, :, None], (1, 64, 64, 3))  # brightness says where in x
    view = view_of([-0.5, 0.0, 0.5, 1.0])
    found = show(ramp, view, 32, mode="bilinear")[0, 0, 0]
    torch.testing.assert_close(found, torch.arange(32).mul(4.0))
    mirrored = show(ramp, view, 32, mode="bilinear", mirror=torch.tensor([-1.0]))[0, 0, 0]
    torch.testing.assert_close(mirrored, found.flip(0))


def test_a_patch_shows_the_other_photos_crop_where_it_lies() -> None:
    dark, ramp = np.zeros((64, 64, 3), np.uint8), np.broadcast_to(np.arange(0, 256, 4, np.uint8)[None, :, None], (64, 64, 3))
    view = view_of([0.0, 0.0, 1.0, 1.0], other_box=[-0.5, 0.0, 0.5, 1.0], patch=[0.5, 0.0, 0.5, 0.5])
    found = show(np.stack([dark, ramp]), view, 64, mode="bilinear")[0, 0]
    assert found[:, :32].eq(0).all()
    assert found[:16].eq(0).all()
    torch.testing.assert_close(found[16:48, 32:], torch.arange(32).mul(4.0).expand(32, 32))
    mirrored = show(np.stack([dark, ramp]), view, 64, mode="bilinear", mirror=torch.tensor([-1.0]))[0, 0]
    torch.testing.assert_close(mirrored, found.flip(1))
    assert view.patched.tolist() == [0.25]


def test_a_fifth_of_the_views_have_a_patch_inside_them() -> None:
    views = draw_views(np.arange(400), 0.2, seed=1)
    patched = views.patched > 0
    assert 0.12 < patched.mean() < 0.28
    assert (np.abs(views.patches[:, :2]) + views.patches[:, 2:] <= 1 + 1e-6).all()
    assert (views.others[~patched] == views.photos[~patched]).all()
    assert len(np.unique(views.others[patched] - views.photos[patched])) > 20


def test_colours_stay_near_those_of_the_photo_and_some_views_lose_their_detail() -> None:
    pixels = torch.randint(0, 256, (40, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = normalised(pixels)
    found = augmented(pixels.permute(0, 3, 1, 2).float().contiguous(), torch.Generator().manual_seed(1))
    assert found.shape == plain.shape
    alike = torch.stack([torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(plain, found, strict=True)])
    assert (alike < 0.7).sum() == 6  # of 40
    assert (alike > 0.9).sum() == 34


def test_photos_without_labels_are_learned_from_their_teachers_answers_alone(data: Path, tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.full((30, 40, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.jpg")
    source = detailed_photos(tmp_path)
    assert source.pixels.shape == (2, DETAILED_PX, DETAILED_PX, 3)
    assert held_out_files(tmp_path) == [tmp_path / "0.jpg", tmp_path / "3.jpg"]
    assert [int(pixels.mean().round()) for pixels in source.pixels] == [60, 120]
    photos = photos_of(data, tmp_path / "w")
    course = course_of(photos)
    views = draw_views(source.photos, 0.3, 0)
    both = Course((*course.lessons, Lessons(source, views, np.zeros((len(source), 6), np.float16))), course.classifier)
    assert both.n_rows == 64 + len(source)
    batch = draw_batch(both, np.array([0, 63, 64, 70]), 12, 0.0, torch.Generator().manual_seed(0))
    assert batch.labels.tolist() == [0, 1, NO_LABEL, NO_LABEL]
    state = train(photos, both, tmp_path / "run", dataclasses.replace(RECIPE, epochs=0.1))
    assert np.isfinite(state.log[-1]["train_loss"])


@pytest.mark.parametrize(("channels", "px", "stride"), [((512, 512), 2, 1), ((512, 512), 4, 1), ((256, 512), 4, 2), ((512, 256), 9, 1)])
def test_products_are_the_convolution(channels: tuple[int, int], px: int, stride: int) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(*channels, 3, stride, 1, bias=False))
    by_products = with_products(torch.nn.Sequential(*plain))
    assert isinstance(by_products[0], Convolution)
    assert list(by_products.state_dict()) == ["0.weight"]
    found = []
    for network in (torch.nn.Sequential(torch.nn.Conv2d(*channels, 3, stride, 1, bias=False)), by_products):
        network.load_state_dict(by_products.state_dict())
        x_nchw = torch.randn(3, channels[0], px, px, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = network(x_nchw)
        ahead = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        found.append((y, *torch.autograd.grad(y, [x_nchw, *network.parameters()], ahead)))
    for plain_one, by_product in zip(*found, strict=True):
        torch.testing.assert_close(by_product, plain_one, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_jittered_boxes_stay_inside_the_photo_and_near_the_crop() -> None:
    boxes = draw_boxes(500, 0.3, torch.Generator().manual_seed(3))
    moved = jittered(boxes, 0.06, torch.Generator().manual_seed(4))
    assert not torch.equal(moved, boxes)
    assert (moved[:, :2].abs() + moved[:, 2:] <= 1 + 1e-6).all()
    assert ((moved[:, 2:] / boxes[:, 2:] - 1).abs() <= 0.06 + 1e-6).all()
    assert ((moved[:, :2] - boxes[:, :2]).abs() <= (2 * 0.06 + 0.06) * boxes[:, 2:] + 1e-6).all()


@pytest.mark.slow
def test_the_teacher_answers_once(data: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    teacher = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    photos = photos_of(data, tmp_path / "w")
    few = small_photos(dataclasses.replace(photos, train=photos.train[:6]), 0.3)
    classifier = classifier_of(read_teacher(tmp_path / "teacher.safetensors"))
    assert classifier.weight.shape == (1000, 192)
    first = teach(few, "few", tmp_path / "teacher.safetensors", tmp_path / "w", n_views=2)
    assert first.features.shape == (2 * 6, 2 * 192)
    assert first.n_views == 2
    assert not np.array_equal(first.features[:6], first.features[6:])
    files = sorted((tmp_path / "w").glob("lesson-*"))
    written = [file.stat().st_mtime_ns for file in files]
    again = teach(few, "few", tmp_path / "teacher.safetensors", tmp_path / "w", n_views=2)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert np.array_equal(first.features, again.features)


def assert_same_weights(one: State, other: State) -> None:
    for name, value in one.averaged.items():
        assert torch.equal(value, other.averaged[name]), name
    for (name, value), again in zip(one.student.state_dict().items(), other.student.state_dict().values(), strict=True):
        assert torch.equal(value, again), name


def view_of(box: list[float], other_box: list[float] | None = None, patch: list[float] | None = None) -> Views:
    """One view of photo 0, with a patch of photo 1 where one is given."""
    boxes = (np.array([given or [0, 0, 1, 1]], np.float32) for given in (box, other_box))
    return Views(np.array([0]), np.array([int(patch is not None)]), *boxes, np.array([patch or [0, 0, 0, 0]], np.float32))


def without_classes(model_args: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in model_args.items() if name != "num_classes"}
