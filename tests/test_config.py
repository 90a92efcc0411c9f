import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import config
from headstart.config import Config, Head, Phase
from headstart.errors import ConfigError


def test_a_file_is_overridden_by_set_and_set_by_what_is_given(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('seed = 1\npx = 96\n[head]\nkind = "dense"\nhidden = [8]\n[[phases]]\ncut = "layer4"\n')
    found = config.load(recipe, ["px=128", "phases.0.epochs=3", "phases.1.cut=input"], data="photos", seed=7, backbone=None)
    assert found == Config(
        data="photos", px=128, seed=7, head=Head(kind="dense", hidden=(8,)), phases=(Phase(cut="layer4", epochs=3), Phase(cut="input"))
    )


def test_zero_is_a_value_and_not_absence(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("seed = 5\n")
    assert config.load(recipe, seed=0).seed == 0
    assert config.load(recipe, ["seed=0"]).seed == 0


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("hed.kind=dense", r"unknown key 'hed' .*\nhint: did you mean 'head'"),
        ("head.kind=denze", r"expected linear or dense for 'head.kind', found 'denze'\nhint: did you mean 'dense'"),
        ("px=4", "expected 16 to 2048 for 'px', found 4"),
        ("seed=one", "expected int for 'seed', found 'one'"),
        ("seed=true", "expected int for 'seed', found True"),
        ("head=3", "expected a table of keys for head"),
        ("head.hidden=3", r"expected a list for 'head.hidden', found 3"),
        ("phases.1.cut=layer4", r"expected an index from 0 to 0, found '1'"),
        ("seed", "expected key=value, found 'seed'"),
        ("phases.0=layer4", "names a whole entry of a list"),
        ("head.hidden=[64, 0]", r"expected at least 1 for 'head.hidden.1', found 0"),
        ("head.dropout=nan", r"expected a finite number for 'head.dropout', found nan"),
        ("phases.0.rate=inf", r"expected a finite number for 'phases.0.rate', found inf"),
        (f"phases.0.rate={10**400}", r"expected a finite number for 'phases.0.rate', found inf"),
        ("head.dropout=true", r"expected float for 'head.dropout', found True"),
        (f"seed={2**32}", "expected 0 to 4294967295 for 'seed', found 4294967296"),
    ],
)
def test_a_wrong_override_says_what_was_expected_and_found(override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config.load(None, [override])


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'sed'.*found 4"):
        config.load(None, ["sed=1", "px=4"])


def test_a_missing_or_broken_recipe_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe file at .*none\.toml"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        config.load(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.toml is not valid TOML"):
        config.load(tmp_path / "bytes.toml")


@given(
    st.builds(
        Config,
        data=st.text(),
        seed=st.integers(0, 2**32 - 1),
        px=st.none() | st.integers(16, 2048),
        head=st.builds(Head, hidden=st.lists(st.integers(1, 512), max_size=3).map(tuple)),
        phases=st.lists(st.builds(Phase, epochs=st.integers(1, 9), rate=st.floats(0, 1)), max_size=3).map(tuple),
    )
)
def test_a_configuration_survives_its_own_record(value: Config) -> None:
    assert Config.from_json(value.to_json()) == value


def test_every_key_says_what_it_means() -> None:
    for kind in (Config, Head, Phase):
        for field in dataclasses.fields(kind):
            assert len(field.metadata["help"]) > 5, f"{kind.__name__}.{field.name}"


def test_files_that_are_not_there_are_named_with_their_option(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("path\n")
    config.check_files(Config(split=str(tmp_path / "there.csv")))
    with pytest.raises(ConfigError, match=r"no file at w\.safetensors, given as --weights; no file at none\.csv, given as --exclude"):
        config.check_files(Config(weights="w.safetensors", exclude="none.csv", split=str(tmp_path / "there.csv")))
