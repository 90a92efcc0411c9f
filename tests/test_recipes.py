"""The recipes of the package: each says what it is, explains every key, and trains."""

import re
from pathlib import Path

import pytest

import headstart
from headstart import config
from headstart.config import Config
from headstart.errors import ConfigError
from samples import make_photos

NAMES = ["best", "cifar10-resnet50", "classic", "photos", "quick", "two-phase-inception"]
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "recipes.md"


def test_the_recipes_of_the_package_are_these() -> None:
    assert config.recipe_names() == NAMES


def test_photos_is_what_a_run_without_a_recipe_does() -> None:
    assert config.load("photos") == config.load(None) == Config()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_what_to_expect(name: str) -> None:
    header = config.recipe_file(name).read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in header)
    assert header[0].startswith(f"# {name}: ")
    found = [match[1] for line in header[1:] if (match := re.match(r"# (command|data|time|machine|measured): \S", line))]
    assert found == ["command", "data", "time", "machine", "measured"]


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_recipe_is_explained(name: str) -> None:
    lines = config.recipe_file(name).read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if line and not line.startswith("#") and line != "[head]" and not re.search(r"\s# \w.{5}", line)]
    assert bare == []


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_has_a_section_and_a_command_for_each_recipe(name: str) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert f"## {name}\n" in guide
    assert name == "photos" or f"--recipe {name}" in guide


def test_a_recipe_of_the_package_wins_over_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "quick").write_text("seed = 5\n")
    assert config.load("photos") == Config()
    assert config.load("quick").seed == 0
    assert config.load("./quick").seed == 5


@pytest.mark.parametrize(
    ("wrong", "match"), [("clasic", r"known: best, .*\nhint: did you mean 'classic'"), ("none.toml", "no file of that name")]
)
def test_an_unknown_recipe_lists_what_there_is(wrong: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config.load(wrong)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path)


@pytest.mark.parametrize("name", ["classic", "two-phase-inception", "cifar10-resnet50"])
def test_the_phases_of_a_recipe_train_a_small_network(name: str, tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=8)
    short = {f"phases.{i}.{key}": value for i in (0, 1) for key, value in (("epochs", 1), ("batch_size", 8))}
    run = headstart.fit(
        photos, recipe=name, set={"px": 32, "head.hidden": [8], **short}, backbone="test_resnet", weights=tiny_weights, out=tmp_path / "run"
    )
    asked = config.load(name)
    history = (run.folder / "history.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(history) == len(asked.phases) == 2
    assert 0 <= run.accuracy <= 1
