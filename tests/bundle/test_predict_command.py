"""`headstart predict` as a user meets it: lists of photos, places for the answers, the picture of them."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.bundle import job
from headstart.bundle.grid import MOST_PHOTOS, grid
from headstart.bundle.predict import Prediction
from headstart.cli import main as cli

Photo = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on the tiny model here: its exit status, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headstart", "predict", str(folder), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def paths_in(text: str) -> list[str]:
    return [row["path"] for row in csv.DictReader(io.StringIO(text))]


def test_a_list_names_photos_one_a_line_and_what_is_not_there_is_a_row(predict: Run, photo: Photo, tmp_path: Path) -> None:
    a, b = str(photo("a b.png")), str(photo("b.png"))
    (tmp_path / "list.txt").write_bytes(f"{b}\r\n\n{a}\nabsent.png".encode())
    code, out, err = predict("--list", tmp_path / "list.txt", "--format", "csv")
    assert (code, paths_in(out)) == (0, [b, a, "absent.png"]), err
    assert "no such file" in out
    code, out, _ = predict(a, "--list", tmp_path / "list.txt", "--format", "csv")
    assert paths_in(out) == [a, b, a, "absent.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="such names are a matter of POSIX")
def test_a_list_from_find_may_hold_any_name(predict: Run, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.path.join(str(photo("a.png").parent), "new\nline.png")
    os.rename(photo("a.png"), odd)
    stdin = io.TextIOWrapper(io.BytesIO(os.fsencode(odd) + b"\0" + os.fsencode(odd) + b"\0"))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, _ = predict("--list", "-", "--format", "csv")
    assert (code, paths_in(out)) == (0, [odd, odd])
    code, _, err = predict("--list", "-")
    assert (code, err.splitlines()[0]) == (1, "error: no photos in the list on stdin")


def test_the_name_of_out_says_the_format(predict: Run, photo: Photo, tmp_path: Path) -> None:
    path = photo("a.png")
    assert predict(path, "--out", tmp_path / "a.json")[:2] == (0, "")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))[0]["path"] == str(path)
    assert predict(path, "--out", tmp_path / "a.txt")[0] == 0
    assert (tmp_path / "a.txt").read_text(encoding="utf-8").startswith("1: ")
    assert predict(path, "--out", tmp_path / "shards", "--format", "csv", "--shard", 1)[0] == 0
    assert sorted(file.name for file in (tmp_path / "shards").iterdir()) == ["00000.csv", "_job.json"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name photos, or a file that lists them: --list FILE"),
        (["--list", "none.txt"], 1, "cannot read the list none.txt: No such file or directory"),
        (["a.png", "--plot", "a.gif"], 1, "expected a picture's name for --plot (.png, .jpg, .jpeg, .webp), found 'a.gif'"),
        (["a.png", "--shard", "5", "--format", "csv"], 1, "--shard needs a folder and a format"),
        (["a.png", "--shard", "5", "--out", "a"], 1, "--shard needs a folder and a format"),
        (["a.png", "--provider", "torch"], 2, "onnxruntime"),
        (["{photo}", "--provider", "onnxruntime", "--precision", "bf16"], 1, "onnxruntime does not compute in bf16 on a CPU"),
    ],
)
def test_mistakes_are_told(predict: Run, photo: Photo, words: list[str], code: int, said: str) -> None:
    found, out, err = predict(*[word.format(photo=photo("p.png")) for word in words])
    assert (found, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())


def test_ctrl_c_during_a_job_is_130_and_the_same_command_finishes_it(
    predict: Run, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")

    def stopped(*arguments: object, **options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_write_part", stopped)
    code, _, err = predict(tmp_path / "photos", "--out", tmp_path / "a.csv")
    assert (code, err.strip().splitlines()[-1]) == (130, "interrupted")
    monkeypatch.undo()
    assert (tmp_path / "a.csv.parts" / "job.json").exists()
    command = [sys.executable, "-m", "headstart.cli.main", "predict", str(tmp_path / "model"), str(tmp_path / "photos")]
    subprocess.run([*command, "--out", str(tmp_path / "a.csv")], check=True, env=dict(os.environ))
    assert (tmp_path / "a.csv").exists()
    assert not (tmp_path / "a.csv.parts").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes that break there")
def test_a_reader_that_leaves_early_is_no_failure(folder: Path, photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{photo('a.png')}\n" * 2000, encoding="utf-8")
    words = [sys.executable, "-m", "headstart.cli.main", "predict", str(folder), "--list", str(tmp_path / "list.txt")]
    words += ["--provider", "onnxruntime", "--format", "csv"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(10)
    child.stdout.close()
    said = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(timeout=120) == 0
    assert "Traceback" not in said
    assert "Exception" not in said


def test_the_picture_shows_photos_answers_and_what_could_not_be_read(predict: Run, photo: Photo, tmp_path: Path) -> None:
    photo("red.png", (250, 0, 0))
    photo("blue.png", (0, 0, 250))
    (tmp_path / "photos" / "text.jpg").write_text("hello")
    assert predict(tmp_path / "photos", "--plot", tmp_path / "p.png", "--top", 2)[0] == 0
    page = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    for colour in ((250, 0, 0), (0, 0, 250)):
        assert (np.abs(page - colour).sum(-1) < 6).sum() > 100 * 100
    assert (np.abs(page - (0xA4, 0x40, 0x0A)).sum(-1) < 6).sum() > 50  # words in the colour of what is wrong


def test_the_picture_of_an_earlier_start_is_no_photo_and_replaces_none(predict: Run, photo: Photo, tmp_path: Path) -> None:
    given = photo("red.png", (250, 0, 0))
    words = [tmp_path / "photos", "--plot", tmp_path / "photos" / "answers.png", "--format", "csv"]
    first, again = predict(*words), predict(*words)
    assert first[0] == again[0] == 0
    assert first[1] == again[1]
    status, _, said = predict(given, "--plot", given)
    assert status == 1
    assert "--plot would replace a photo" in said


def bar_px(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """The longest run of a colour in a row of pixels, letters on it aside."""
    return int((np.abs(np.asarray(picture).astype(int) - colour).sum(-1) < 6).sum(1).max())


def test_a_bar_is_as_long_as_its_answer_is_probable(photo: Photo) -> None:
    path = str(photo("a.png"))
    lengths = [bar_px(grid([Prediction(path, 0, "x", None, p, (("x", p),), (None,))]), (0xBC, 0xD7, 0xEE)) for p in (0.1, 0.5, 1.0)]
    assert lengths == pytest.approx([25, 125, 250], abs=3)


def test_none_of_these_is_said_in_the_picture_and_its_bars_are_grey(photo: Photo) -> None:
    known = Prediction(str(photo("a.png")), 0, "x", None, 0.9, (("x", 0.9),), (None,), known=True)
    strange = Prediction(known.path, 0, "x", None, 0.9, (("x", 0.9),), (None,), known=False)
    blue, grey = (0xBC, 0xD7, 0xEE), (0xE4, 0xE4, 0xE1)
    assert (bar_px(grid([known]), blue) > 200, bar_px(grid([known]), grey) > 200) == (True, False)
    assert (bar_px(grid([strange]), blue) > 200, bar_px(grid([strange]), grey) > 200) == (False, True)
    assert grid([strange]).height > grid([known]).height


def test_more_photos_than_a_picture_takes_are_counted_below_it(photo: Photo) -> None:
    one = Prediction(str(photo("a.png")), 0, "x", None, 0.9, (("x", 0.9),), (None,))
    full, over = grid([one] * MOST_PHOTOS), grid([one] * (MOST_PHOTOS + 30))
    assert full.width == over.width
    assert full.height < over.height < full.height + 40
    gone = Prediction("vanished.jpg", 0, "日本語", None, 0.9, (("日本語", 0.9),), (None,))
    assert grid([gone, gone], n_photos=5).height > 200
