"""`headstart explore` on the command line: a summary or JSON on stdout, a folder of its own, errors before PyTorch is loaded."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from headstart.cli import main as cli
from samples import make_photos


def headstart(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_photos(tmp_path / "my photos", n=8)


def test_the_summary_counts_and_says_what_was_found_and_what_comes_next(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headstart(monkeypatch, "explore", "my photos", "--weights", tiny_weights) == 0
    said = capsys.readouterr().out
    assert "24 photos of 3 classes: " in said
    assert "blue sky" in said
    assert "JPEG 12, PNG 12" in said
    assert "! 3 classes have fewer than 30 photos" in said
    assert str(Path("explored/my photos/report.html")) in said
    assert f"headstart train 'my photos' --out runs/a --weights {tiny_weights}" in said
    assert Path("explored/my photos/report.html").is_file()


def test_the_command_that_comes_next_trains_on_what_was_explored(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with safe_open(tiny_weights, "pt") as file:
        record = json.loads(file.metadata()["headstart"])
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(("layer3", "layer4"))}  # noqa: SIM118
    save_file(kept, "short.safetensors", metadata={"headstart": json.dumps({**record, "complete_through": "layer2"})})
    assert headstart(monkeypatch, "explore", "my photos", "--weights", "short.safetensors", "--seed", 3) == 0
    after = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Next "))
    assert after[-6:] == ["--weights", "short.safetensors", "--stop", "layer2", "--seed", "3"]
    assert headstart(monkeypatch, *after[1:]) == 0
    explored = json.loads(Path("explored/my photos/explore.json").read_text())["data"]["splits"]
    trained = json.loads(Path("runs/a/run.json").read_text())["data"]
    assert explored == {split: trained[f"n_{split}"] for split in ("train", "val", "test")}


def test_json_is_the_file_and_a_second_exploration_has_a_folder_of_its_own(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("my photos", "my photos-2"):
        assert headstart(monkeypatch, "explore", photos, "--weights", tiny_weights, "--json") == 0
        assert json.loads(capsys.readouterr().out) == json.loads(Path("explored", folder, "explore.json").read_text())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("nowhere", "no folder or file at nowhere"),
        ("photos --weights none.safetensors", "none.safetensors, given as --weights"),
        ("photos --out taken", "taken is not empty and holds no exploration"),
        ("photos --backbone resnet5", "resnet50"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    words: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", n=1)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    assert headstart(monkeypatch, "explore", *words.split()) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert match in written.err
    assert not Path("explored").exists()
