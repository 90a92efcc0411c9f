"""Heat maps over the surest mistakes: of the answer that was given, bounded in number and time, and never in the way of the page."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_tools import MakeRun, text_of

from colour_model import colour_model, two_things
from headstart.bundle.explain import PASSES
from headstart.report.build import write_report
from headstart.report.folder import read_run
from headstart.report.overlays import MOST, overlays

COLOURS = ("red", "grün", "blue")


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> Path:
    """A run whose model sees colours; each photo is red above on the left and blue below on the right."""
    folder = make_run(COLOURS, 40, photos=True, skill=0.0)
    for path in (tmp_path / "photos").rglob("*.jpg"):
        two_things().save(path)
    colour_model(folder / "model")
    return folder


def picture(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def coloured(part: np.ndarray) -> float:
    """How far a part of a picture is from grey."""
    return float(np.ptp(part, axis=-1).mean())


def test_the_map_is_of_the_answer_that_was_given(run: Path) -> None:
    folder = read_run(run)
    assert folder.predictions is not None
    red, blue = folder.predictions.paths[:2]
    drawn = {path: picture(uri) for path, uri in overlays(folder, [(red, "red"), (blue, "blue")]).items()}
    half = drawn[red].shape[0] // 2
    assert coloured(drawn[red][:half, :half]) > 3 * coloured(drawn[red][half:, half:])
    assert coloured(drawn[blue][half:, half:]) > 3 * coloured(drawn[blue][:half, :half])


def test_no_more_than_eight_of_the_mistakes_are_explained(run: Path) -> None:
    page = write_report(run)
    text = page.read_text(encoding="utf-8")
    pairs = re.findall(r'<div class="duo">(.*?)</div>', text, flags=re.DOTALL)
    assert len(pairs) == MOST
    assert all(len(set(re.findall(r'src="(data:[^"]+)" alt="[^"]+"', pair))) == 2 for pair in pairs)
    said = text_of(page, "mistakes")
    assert "In colour: where it saw what it answered" in said
    assert f"Only 8 of them have such a map, since each takes {PASSES} looks of the network" in said
    assert write_report(run).read_text(encoding="utf-8") == text


def test_time_is_bounded(run: Path) -> None:
    folder = read_run(run)
    assert folder.predictions is not None
    assert overlays(folder, [(folder.predictions.paths[0], "red")], seconds=-1.0) == {}


def test_photos_that_are_gone_and_classes_of_another_model_are_passed_over(run: Path) -> None:
    folder = read_run(run)
    assert folder.predictions is not None
    there = folder.predictions.paths[0]
    assert list(overlays(folder, [("gone.jpg", "red"), ("a\0b.jpg", "red"), (there, "blue")])) == [there]
    assert overlays(folder, [(there, "mauve")]) == {}


def test_a_damaged_model_does_not_stop_the_report(run: Path) -> None:
    (run / "model" / "model.onnx").write_bytes(b"no network")
    assert 'class="duo"' not in write_report(run).read_text(encoding="utf-8")
