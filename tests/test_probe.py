"""Several backbones on one folder: the same photos for each, test photos for none, and a sound word on which is worth it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import headstart
from headstart import probing
from headstart.backbone import cut, networks
from headstart.errors import ConfigError, DataError, WeightsError
from samples import make_photos


@pytest.fixture(scope="module")
def short_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in a file that ends after layer2."""
    path = tmp_path_factory.mktemp("weights") / "short.safetensors"
    with safe_open(tiny_weights, "pt") as file:
        record = json.loads(file.metadata()["headstart"])
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(("layer3", "layer4"))}  # noqa: SIM118
    save_file(kept, path, metadata={"headstart": json.dumps({**record, "complete_through": "layer2"})})
    return path


def make_noise(folder: Path, n: int = 20) -> Path:
    """Two classes that nothing tells apart."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_each_backbone_sees_all_photos_but_the_test_photos_once(tiny_weights: Path, short_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    found = headstart.probe(photos, weights=[tiny_weights, short_weights])
    assert found.n_photos == 51  # 60 less 3 a class
    assert [one.rows_computed for one in found.probed] == [51, 51]
    assert {one.backbone for one in found.probed} == {"test_resnet", "test_resnet to layer2"}
    for one in found.probed:
        assert one.n == 51
        assert one.accuracy > 0.9  # colours are easy
        assert one.accuracy_ci95[0] < one.accuracy <= one.accuracy_ci95[1]
    whole = next(one for one in found.probed if one.backbone == "test_resnet")
    stopped = next(one for one in found.probed if one is not whole)
    assert stopped.gflop < whole.gflop
    assert stopped.megabytes < whole.megabytes
    assert stopped.options == ("--weights", str(short_weights), "--stop", "layer2")


def test_a_second_time_nothing_is_computed_and_the_answer_is_the_same(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=8)
    first, again = (headstart.probe(photos, weights=[tiny_weights]) for _ in range(2))
    assert again.probed[0].rows_computed == 0
    assert again.probed[0].photos_per_s is None
    assert again.probed[0].accuracy == first.probed[0].accuracy
    assert again.advice == first.advice


def test_of_backbones_that_photos_cannot_tell_apart_the_cheapest_is_worth_it(
    tiny_weights: Path, short_weights: Path, tmp_path: Path
) -> None:
    found = headstart.probe(make_noise(tmp_path / "noise"), weights=[tiny_weights, short_weights])
    assert [one.accuracy for one in found.probed] == sorted((one.accuracy for one in found.probed), reverse=True)
    assert all(one.within_noise for one in found.probed)
    assert found.best.p_equal == 1
    assert found.worth_it.backbone == "test_resnet to layer2"
    assert "only large differences" in found.advice[-1]
    assert json.loads(json.dumps(found.to_json()))["worth_it"] == "test_resnet to layer2"


def test_a_backbone_without_weights_is_named_and_the_others_go_on(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=8)
    found = headstart.probe(photos, ["resnet50_keras_v1"], weights=[tiny_weights])
    assert [one.backbone for one in found.probed] == ["test_resnet"]
    assert [one.backbone for one in found.absent] == ["resnet50_keras_v1"]
    assert "--weights FILE" in found.absent[0].hint


def test_what_cannot_be_compared_is_a_clear_error(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=8)
    with pytest.raises(ConfigError, match="no backbone to try"):
        headstart.probe(photos)
    with pytest.raises(WeightsError, match="no weights of resnet50_keras_v1 at hand"):
        headstart.probe(photos, ["resnet50_keras_v1"])
    with pytest.raises(ConfigError, match="no backbone is called 'resnet5'"):
        headstart.probe(photos, ["embedded", "resnet5"])
    with pytest.raises(DataError, match="no folder or file at"):
        headstart.probe(tmp_path / "none", ["embedded"])
    nameless = tmp_path / "nameless.safetensors"
    with safe_open(tiny_weights, "pt") as file:
        save_file({name: file.get_tensor(name) for name in file.keys()}, nameless)  # noqa: SIM118
    with pytest.raises(WeightsError, match=r"does not say which network it is for\nhint: give files that name their network"):
        headstart.probe(photos, weights=[tiny_weights, nameless])


def test_operations_of_attention_are_counted() -> None:
    """Two products of 17 tokens with 17 tokens over 192 channels, in one block more."""
    one, two = (probing._gflop(cut.Trunk(networks.untrained("vit_tiny_patch16_224", px=64, depth=depth), "head")) for depth in (1, 2))
    attention, others = 2 * 2 * 17 * 17 * 192, 2 * 17 * 192 * 192 * (3 + 1 + 4 + 4)
    assert 1e9 * (two - one) == attention + others
