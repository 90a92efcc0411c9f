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
        ("head=3", r"expected a table of keys for 'head', found 3\nhint: name one of its keys: head.kind, ..."),
        ("phases.0.class_weights=balanced", r"unknown key 'phases.0.class_weights' .*\nhint: set head.class_weights"),
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
        ("budget=ten", r"'budget': expected a time with its unit, s, m or h, found 'ten'\nhint: for example 90s"),
        ("budget=0m", "found '0m'"),
        ("budget=10", r"'budget': expected a time with its unit, s, m or h, found '10'\nhint: for example 90s"),
        ("phases.0.augment=flop, zoom 0.2", r"'phases.0.augment': .*operation 1 .*found 'flop'\nhint: did you mean 'flip'"),
        ("phases.0.hidden=[8, 0]", "expected at least 1 for 'phases.0.hidden.1', found 0"),
        ("phases.0.stage_rates=0.3", "expected a table for 'phases.0.stage_rates', found 0.3"),
        ("phases.0.stage_rates={layer4=2, layer3=true}", "expected float for 'phases.0.stage_rates.layer3', found True"),
        ("phases.0.stage_rates.layer4=2", "expected 0 to 1 for 'phases.0.stage_rates.layer4', found 2"),
        ("phases.0.stage_rates={blocks.0=1}", r"'phases.0.stage_rates.blocks', found a table\nhint: .*in quotes: {\"blocks.0\" = ...}"),
    ],
)
def test_a_wrong_override_says_what_was_expected_and_found(override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config.load(None, [override])


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'sed'.*found 4"):
        config.load(None, ["sed=1", "px=4"])
    with pytest.raises(ConfigError, match=r"phases.0: cutmix .*'phases.1.rate'.*phases.2: rate = 0 .*; phases.2: views .*found 4"):
        config.load(None, ["phases.0.cutmix=1", "phases.1.rate=-1", "phases.2.rate=0", "phases.2.views=2", "phases.2.cut=input", "px=4"])


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ("phases.0.rate=0", "phases.0: rate = 0 trains nothing"),
        ("phases.0.cut=layer4 phases.0.cutmix=1", "cutmix mixes pixels, so it needs cut = input, found cut = layer4"),
        ("phases.0.cut=input phases.0.views=2", "cut = input draws afresh each epoch: leave views out"),
        ("phases.0.views=2 phases.0.augment=none", "views that nothing augments are all the same"),
        ("phases.0.augment=flip", "augment = flip does nothing at cut = head with one stored view"),
        ("phases.0.momentum=0.8", "momentum is of sgd and rmsprop, not of adamw"),
        ("phases.0.schedule=one-cycle phases.0.warm_up=0.2", "warm_up is not of one-cycle"),
        ("phases.0.schedule=plateau phases.0.patience=3", "patience = 3 stops before plateau lowers the rate"),
        ("phases.0.norm=batch phases.0.batch_size=1", "norm = batch needs a batch_size of 2 or more"),
        ("phases.0.mixup=1 phases.0.batch_size=1", "mixup blends rows of one batch"),
        ("phases.0.cut=input phases.0.cutmix=1 phases.0.batch_size=1", "cutmix blends rows of one batch"),
        ("phases.0.cut=head phases.0.norm=batch", "norm = batch does nothing at cut = head"),
        ("phases.0.rate_decay=0.5", "rate_decay does nothing at cut = head"),
        ("phases.0.stage_rates.layer4=0.5", "phases.0: stage_rates does nothing at cut = head.*: set rate"),
        ("head.hidden=[8] head.dropout=0.5", "head: hidden is of a dense head.*; head: dropout is of a dense head"),
        ("phases.0.cut=head tune=never", "tune = never is about planned phases, and phases are given"),
        ("phases.0.cut=head budget=9m", "budget = 9m bounds planned phases, and phases are given"),
        ("tune=never budget=9m", "budget = 9m bounds fine-tuning, and tune = never does none"),
        ("head.kind=dense tune=always", "tune = always goes on from a solved head"),
        ("head.class_weights=balanced phases.0.sampling=balanced", "correct for the same twice: one is enough"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config.load(None, overrides.split())


@pytest.mark.parametrize(
    "overrides",
    [
        "phases.0.cut=input phases.0.cutmix=1 phases.0.augment=flip",
        "phases.0.augment=flip phases.0.views=2",
        "phases.0.augment=none",
        "phases.0.optimiser=sgd phases.0.momentum=0.8",
        "phases.0.schedule=plateau phases.0.patience=4",
        "head.kind=dense head.hidden=[8] head.dropout=0.5",
        "tune=always budget=9m",
    ],
)
def test_keys_that_go_together_are_taken(overrides: str) -> None:
    assert config.load(None, overrides.split()) != config.load(None)


def test_rates_of_stages_are_a_table_in_a_recipe_and_in_overrides(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[phases]]\ncut = "input"\nstage_rates = {layer4 = 1, "blocks.0" = 0.3}\n')
    assert config.load(recipe).phases[0].stage_rates == {"layer4": 1.0, "blocks.0": 0.3}
    assert config.load(recipe, ["phases.0.stage_rates.layer4=0.5"]).phases[0].stage_rates == {"layer4": 0.5, "blocks.0": 0.3}
    assert config.load(recipe, ["phases.0.stage_rates.blocks.11=0.5"]).phases[0].stage_rates == {
        "layer4": 1.0,
        "blocks.0": 0.3,
        "blocks.11": 0.5,
    }
    assert config.load(recipe, ['phases.0.stage_rates={"blocks.1" = 0}']).phases[0].stage_rates == {"blocks.1": 0.0}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400), (" 1H 30 m ", 5400), ("0.5s", 0.5)]
)
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert config.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "10 minutes", "1d", "0s", "5m!", "nan s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a time with its unit"):
        config.seconds_of(text)


def test_a_missing_or_broken_recipe_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe is called '.*none\.toml' .*there is no file"):
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
        head=st.builds(Head, kind=st.just("dense"), hidden=st.lists(st.integers(1, 512), max_size=3).map(tuple)),
        phases=st.lists(
            st.builds(
                Phase,
                cut=st.just("layer1"),
                epochs=st.integers(1, 9),
                rate=st.floats(1e-9, 1),
                augment=st.just("none"),
                stage_rates=st.none() | st.dictionaries(st.text(), st.floats(0, 1), max_size=3),
            ),
            max_size=3,
        ).map(tuple),
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
    config.check_files(split=tmp_path / "there.csv", weights=None)
    with pytest.raises(ConfigError, match=r"no file at w\.safetensors, given as --weights; no file at none\.csv, given as --exclude"):
        config.check_files(weights=[Path("w.safetensors"), tmp_path / "there.csv"], exclude="none.csv", split=tmp_path / "there.csv")
