"""Records, names and the table of backbones."""

import subprocess
import sys
from pathlib import Path

import pytest

from headstart.backbone import catalog, listing
from headstart.backbone.imagenet import labels
from headstart.errors import ConfigError, WeightsError

HEADER = {"timm_architecture": "resnet18", "input_px": 64, "crop": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}


def test_plain_names_of_the_tutorials_pick_the_original_recipes() -> None:
    assert catalog.find("resnet50").name == "resnet50.tv_in1k"
    assert catalog.find("inception_v3").name == "inception_v3.tv_in1k"
    assert catalog.find("resnet50.a1_in1k").name == "resnet50.a1_in1k"
    assert catalog.find("mobilenetv2_100").name == "mobilenetv2_100.ra_in1k"


def test_record_of_timm_carries_preprocessing_licence_and_place() -> None:
    record = catalog.find("resnet50")
    assert record.preprocessing.to_json() == {
        "input_px": 224,
        "crop": 0.875,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert (record.licence, record.hub_id, record.n_classes, record.record_source) == (
        "bsd-3-clause",
        "timm/resnet50.tv_in1k",
        1000,
        "timm",
    )


def test_keras_record_subtracts_the_published_means() -> None:
    pre = catalog.find("resnet50_keras_v1").preprocessing
    assert [round(mean / std, 3) for mean, std in zip(pre.mean, pre.std, strict=True)] == [123.68, 116.779, 103.939]


def test_keras_inception_takes_pixels_from_minus_one_to_one() -> None:
    record = catalog.find("inception_v3_keras")
    assert (record.preprocessing.input_px, record.preprocessing.mean, record.preprocessing.std) == (299, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5", "resnet50"),
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("incepton_v3", "inception_v3"),
        ("embeded", "embedded"),
        ("resnet50.a1h_in1", "resnet50.a1h_in1k"),
    ],
)
def test_unknown_backbone_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"no backbone is called '{name}'\nhint: did you mean '{near}"):
        catalog.find(name)


def test_unlike_anything_points_to_the_list() -> None:
    with pytest.raises(ConfigError, match="headstart backbones PATTERN"):
        catalog.find("qqqqqqq")


def test_header_becomes_a_record() -> None:
    record = catalog.from_header({**HEADER, "classes": 2, "class_names": [{"id": "n1", "name": "a"}, {"id": "n2", "name": "b"}]}, "x")
    assert (record.name, record.architecture, record.n_classes, record.record_source) == ("resnet18", "resnet18", 2, "file")
    assert (record.class_names, record.class_ids) == (("a", "b"), ("n1", "n2"))
    assert record.preprocessing.input_px == 64


def test_header_that_lacks_keys_or_holds_nonsense_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"metadata of x\.st lacks timm_architecture, crop"):
        catalog.from_header({key: HEADER[key] for key in ("input_px", "interpolation", "mean", "std")}, "x.st")
    with pytest.raises(WeightsError, match=r"metadata of x\.st cannot be used: .*interpolation"):
        catalog.from_header({**HEADER, "interpolation": "quadratic"}, "x.st")
    with pytest.raises(WeightsError, match="cannot be used"):
        catalog.from_header({**HEADER, "classes": "many"}, "x.st")


def test_short_list_says_whether_weights_are_at_hand_and_imports_no_torch(own_cache: Path) -> None:
    (own_cache / "weights").mkdir()
    (own_cache / "weights" / "resnet50.tv_in1k.safetensors").touch()
    rows = {row.name: row for row in listing.rows()}
    assert rows["embedded"].weights_at_hand == "yes: comes with headstart"
    assert rows["resnet50"].weights_at_hand.endswith("resnet50.tv_in1k.safetensors")
    assert rows["mobilenetv2_100"].weights_at_hand == "no: would be downloaded"
    assert rows["resnet50_keras_v1"].weights_at_hand == "no: needs --weights FILE"
    code = "import sys; from headstart.backbone import listing; listing.rows(); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pattern_lists_matching_networks() -> None:
    rows = listing.rows("resnet50_k")
    assert [(row.name, row.n_params, row.stages[-2:]) for row in rows] == [("resnet50_keras_v1", 23508032, ("layer4", "head"))]
    assert [row.name for row in listing.rows("mobilenetv3_small_0[57]?")] == ["mobilenetv3_small_050", "mobilenetv3_small_075"]
    with pytest.raises(ConfigError, match="no backbone matches 'qqq'"):
        listing.rows("qqq")


def test_imagenet_names_are_distinct_and_in_synset_order() -> None:
    known = labels(1000)
    assert known[281] == ("n02123045", "tabby")
    assert len({name for _, name in known}) == 1000
    assert [synset for synset, _ in known] == sorted(synset for synset, _ in known)
    assert labels(1001) == (("", "background"), *known)
    with pytest.raises(ConfigError, match="found 200"):
        labels(200)
