"""Names that other programs would not expect: bytes that are no UTF-8, umlauts, more letters than a file system takes."""

import json
import os
import sys
from pathlib import Path

import pytest

import headstart
from headstart.bundle.own_classes import open_model
from headstart.errors import BundleError, ConfigError, WeightsError
from samples import make_photos


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_folder_whose_name_is_no_text_can_be_trained_on(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / os.fsdecode(b"dat\xff"), n=8)
    odd = photos / "red" / os.fsdecode(b"caf\xe9.png")
    (photos / "red" / "photo 1.png").rename(odd)
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    texts = {path.name: path.read_bytes().decode("utf-8") for path in run.folder.rglob("*.json")}
    assert texts.keys() >= {"run.json", "metrics.json", "bundle.json"}
    assert json.loads(texts["run.json"])["data"]["root"] == str(photos)

    bundle = headstart.load(run.folder)
    assert [label.name for label in bundle.labels] == ["blue sky", "grün", "red"]
    assert bundle.predict(odd).label in ("blue sky", "grün", "red")


@pytest.mark.parametrize("name", ["n" * 300, f"runs/{'n' * 300}"])
def test_a_model_s_name_may_be_too_long_for_a_file(name: str, own_cache: Path) -> None:
    with pytest.raises((BundleError, ConfigError, WeightsError)):
        open_model(name)
    with pytest.raises((BundleError, ConfigError, WeightsError)):
        open_model("resnet50", Path(name))
