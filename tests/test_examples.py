"""The examples and the README's Python run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

import headstart
from samples import make_photos

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(name: str, *words: str) -> list[str]:
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_trained_run_answers_index_name_and_probability(tiny_weights: Path, tmp_path: Path) -> None:
    run = headstart.fit(make_photos(tmp_path / "photos"), weights=tiny_weights, out=tmp_path / "run")
    (line,) = _run("predict_image.py", str(run.folder), str(tmp_path / "photos" / "red" / "photo 0.jpg"))
    index, *words, probability = line.split(" ")
    assert run.record["data"]["classes"][int(index)] == " ".join(words) == "red"
    assert 0 < float(probability) <= 1


def test_the_embedded_backbone_names_its_own_classes_without_a_download(tmp_path: Path) -> None:
    photo = make_photos(tmp_path / "photos", n=1) / "red" / "photo 0.jpg"
    lines = _run("image_classification.py", str(photo), "embedded")
    assert [line.split(":")[0] for line in lines] == ["1", "2", "3"]


@pytest.mark.slow
def test_imagenet_top_3_for_one_picture(shared: Path) -> None:
    photo = next((shared / "data" / "imagenet-samples").glob("n02123045*.jpg"), None)
    photo = photo if photo is not None else sorted((shared / "data" / "imagenet-samples").glob("*.jpg"))[0]
    weights = shared / "weights" / "mobilenetv2_100.imagenet1001.safetensors"
    lines = _run("image_classification.py", str(photo), "mobilenetv2_100", str(weights))
    assert len(lines) == 3
