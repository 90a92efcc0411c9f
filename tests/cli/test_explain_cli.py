"""`headstart explain` as a user meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from colour_model import colour_model, two_things

HEADSTART = str(Path(sys.executable).with_name("headstart"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `model` and `two.png`."""
    colour_model(tmp_path / "model")
    two_things(96, 64).save(tmp_path / "two.png")
    return tmp_path


def explain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [HEADSTART, "explain", "model", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=120, check=False, env={**os.environ, "NO_COLOR": "1"}
    )


def test_the_picture_is_written_and_the_answer_printed(folder: Path) -> None:
    done = explain(folder, "two.png", "--out", "new/why.png", "--class", "blue")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("blue 0.")
    assert done.stdout.rstrip().endswith(str(Path("new/why.png")))
    assert "Hiding parts: 162/162 pictures" in done.stderr
    with Image.open(folder / "new" / "why.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * 96
        assert picture.height > 64


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("absent.png --out why.png", "absent.png"),
        ("model/bundle.json --out why.png", "not an image"),
        ("two.png --out why.gif", "expected a picture's name for --out (.png, .jpg, .jpeg, .webp), found 'why.gif'"),
        ("two.png --out why.png --class bleu", "no class 'bleu'"),
    ],
)
def test_a_mistake_is_one_clear_line_and_leaves_no_file(words: str, match: str, folder: Path) -> None:
    done = explain(folder, *words.split())
    assert done.returncode == 1
    assert match in done.stderr
    assert done.stderr.count("error: ") == 1
    assert done.stdout == ""
    assert not list(folder.glob("why*"))


def test_without_a_file_to_write_it_is_wrong_usage(folder: Path) -> None:
    done = explain(folder, "two.png")
    assert done.returncode == 2
    assert "--out" in done.stderr
