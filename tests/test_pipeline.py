"""The main job, end to end, on a real (small) network and real files."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart import assess, pipeline, runs
from headstart import config as configs
from headstart.errors import ConfigError, DataError, HeadstartError, StoreError
from samples import make_photos

SMALL = {"head.hidden": [16]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def test_a_folder_becomes_a_tested_classifier(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    assert {path.name for path in run.folder.iterdir()} == {
        "run.json",
        "split.csv",
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "omitted.csv",
        "checks.json",
        "report.html",
        "MODEL_CARD.md",
        "model",
    }
    assert run.record["data"]["classes"] == ["blue sky", "grün", "red"]
    assert run.record["trunk"]["rows_computed"] == 60
    assert run.record["backbone"]["name"] == "test_resnet"
    assert run.accuracy > 0.8  # colours are easy, even for untrained layers

    with (run.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    test = run.metrics["test"]
    assert len(rows) == test["n"] == run.record["data"]["n_test"]
    assert test["accuracy"] == pytest.approx(np.mean([row["label"] == row["predicted"] for row in rows]))

    for row in rows[:5]:
        answer = run.predict(photos / row["path"])
        assert answer.label == row["predicted"]
        assert answer.probability == pytest.approx(float(row[row["predicted"]]), abs=1e-3)
    assert headstart.load(run.folder).predict(photos / rows[0]["path"]).label == rows[0]["predicted"]
    assert "red" in run._repr_html_()
    assert repr(run).startswith("Run(")


def test_the_same_seed_gives_the_same_numbers(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    runs = [headstart.fit(photos, weights=tiny_weights, out=tmp_path / name, seed=3) for name in ("a", "b")]
    assert runs[0].metrics["test"] == runs[1].metrics["test"]
    assert (runs[0].folder / "predictions.csv").read_bytes() == (runs[1].folder / "predictions.csv").read_bytes()


def test_a_test_set_that_was_chosen_is_told_in_the_record_and_the_report(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    fix, out = tmp_path / "fix.csv", tmp_path / "out.txt"
    fix.write_text("path,label\n" + "".join(f"red/photo {i}.{'png' if i % 2 else 'jpg'},grün\n" for i in range(18)))
    out.write_text("blue sky/photo 0.jpg\n")
    run = headstart.fit(photos, weights=tiny_weights, corrections=fix, exclude=out, out=tmp_path / "run")
    with (run.folder / "split.csv").open(encoding="utf-8", newline="") as file:
        n = sum(row["split"] == "test" and row["label"] == "grün" and row["path"].startswith("red/") for row in csv.DictReader(file))
    assert n > 1
    said = [
        f"{n} of the relabelled photos are test photos: the score is of a test set that was chosen",
        "1 photo was left out by out.txt; if it was chosen by how a model answered it, the score is too good",
    ]
    assert [notice for notice in run.record["notices"] if notice in said] == said
    assert all(notice in run.report.read_text(encoding="utf-8") for notice in said)


def test_another_head_or_seed_computes_no_row_and_a_new_photo_one(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    headstart.fit(photos, weights=tiny_weights, out=tmp_path / "a")
    other = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "b", seed=1, set={"head.kind": "dense", **SMALL})
    assert other.record["trunk"]["rows_computed"] == 0
    shutil.move(photos / "red", tmp_path / "aside")
    shutil.move(tmp_path / "aside", photos / "red")
    (photos / "red" / "photo 0.jpg").rename(photos / "red" / "renamed.jpg")
    Image.new("RGB", (50, 40), (250, 10, 10)).save(photos / "red" / "new.png")
    added = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "c")
    assert added.record["trunk"]["rows_computed"] == 1
    assert added.record["trunk"]["rows_reused"] == 60


def test_phases_train_at_head_stage_and_input(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    phases = [{"cut": cut, "epochs": 2, "rate": 0.001, "batch_size": 16} for cut in ("head", "layer3", "input")]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("".join("[[phases]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in phase.items()) for phase in phases))
    run = headstart.fit(photos, weights=tiny_weights, recipe=recipe, out=tmp_path / "run")
    with (run.folder / "history.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    assert list(history[0]) == [
        "phase",
        "epoch",
        "rate",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
        "images_per_s",
    ]
    assert [(row["phase"], row["epoch"]) for row in history] == [(p["cut"], str(e)) for p in phases for e in (1, 2)]
    assert run.record["trunk"]["rows_computed"] == 3 * 60
    assert run.accuracy > 0.6
    again = run.record["config"]["phases"]  # as TOML can say it: it has no null
    assert None not in [value for phase in again for value in phase.values()]
    assert configs.Config.from_json({"phases": again}).phases == configs.load(recipe).phases


def test_stored_views_are_rows_of_the_store(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    setting = {"phases.0.cut": "top 1", "phases.0.epochs": 1, "phases.0.views": 3}
    first = headstart.fit(photos, weights=tiny_weights, set=setting, out=tmp_path / "a")
    n_train = first.record["data"]["n_train"]
    assert first.record["trunk"]["rows_computed"] == 60 + 60 + 2 * n_train  # only training photos are seen in other views
    again = headstart.fit(photos, weights=tiny_weights, set=setting, out=tmp_path / "b", seed=5, split=first.folder / "split.csv")
    assert again.record["trunk"]["rows_computed"] == 0


def test_test_photos_that_someone_chose_never_pass_the_trunk(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """They can never train, under no seed."""
    first = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    given = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "b", split=first.folder / "split.csv", set={"px": 24})
    assert given.record["trunk"]["rows_computed"] == 60 - first.record["data"]["n_test"]
    assert given.metrics["test"]["n"] == given.record["data"]["n_test"] == first.record["data"]["n_test"]


def test_a_tuned_run_says_what_was_decided_and_what_came_of_it(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    setting = {"phases.0.cut": "layer3", "phases.0.px": 24, "phases.0.epochs": 2, "test_views": 2}
    run = headstart.fit(photos, weights=tiny_weights, set=setting, out=tmp_path / "run")
    tuning = run.record["tuning"]
    assert tuning["verdict"] == "does not pay"  # 42 training photos
    assert tuning["why"]
    assert tuning["estimate_minutes"] > 0
    assert tuning["kept"] in ("probe", "tuned", "average")
    assert [(phase["cut"], phase["px"], phase["epochs"], phase["recomputed"]) for phase in tuning["phases"]] == [("layer3", 24, 2, False)]
    assert run.record["config"]["phases"][0]["cut"] == "layer3"
    assert run.bundle.preprocessing.input_px == run.record["backbone"]["px"] == (32 if tuning["kept"] == "probe" else 24)
    assert not (run.folder / "checkpoint").exists()
    path = next(photos.rglob("*.png"))
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    assert run.predict(path).probability == pytest.approx(run.predict(tmp_path / "mirrored.png").probability, abs=1e-3)


def test_cuts_must_move_toward_input(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cuts may only move toward `input` .* found layer1 -> layer3"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "a", set={"phases.0.cut": "layer1", "phases.1.cut": "layer3"})
    with pytest.raises(ConfigError, match=r"(?s)layer33.*did you mean 'layer3'"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "b", set={"phases.0.cut": "layer33"})


def test_a_run_is_marked_as_finished_before_its_checkpoints_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "run.json").write_text('{"status": "tested"}')
    found = list[str]()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda folder, **how: found.append(runs.read_record(tmp_path)["status"]))
        runs.finish(tmp_path)
    assert found == ["finished"]


def test_a_finished_run_is_not_overwritten(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ConfigError, match="already holds a finished run"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_with_other_things_in_it_is_refused(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="expected a folder for the run, found a file"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run" / "thesis.tex")


def test_an_unfinished_run_continues_only_as_it_began(
    photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE_BUDGET", "100")
    with pytest.raises(StoreError, match="100 B"):  # stops at the trunk pass: no room
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    monkeypatch.delenv("HEADSTART_STORE_BUDGET")
    with pytest.raises(DataError, match=r"the run in .* is unfinished"):
        headstart.Run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"with another configuration: seed was 0, is 1\nhint: repeat its command to continue it, choose"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run", seed=1)
    runs.note(tmp_path / "run", {"command": "headstart train photos"})
    with pytest.raises(ConfigError, match=r"phases was .*is not given; .*; 2\d more\nhint: .* \(headstart train photos\), choose"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run", set={"phases.0.cut": "layer4"})
    Image.new("RGB", (50, 40), (250, 10, 10)).save(photos / "red" / "new.png")
    with pytest.raises(ConfigError, match="photos or the split changed"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    (photos / "red" / "new.png").unlink()
    assert headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run").accuracy > 0.5


def test_what_the_network_cannot_do_is_told_before_any_photo_is_read(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no cut 'layer33'"):
        headstart.fit(tmp_path / "no photos", weights=tiny_weights, out=tmp_path / "run", set={"phases.0.cut": "layer33"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": "layer9"},
        {"weights": "none.safetensors"},
        {"backbone": "resnet5"},
        {"split": "none.csv"},
        {"set": {"phases.0.cut": "layer33"}},
        {"set": {"phases.0.cut": "layer1", "phases.1.cut": "layer3"}},
        {"set": {"engine": "openvino"}, "device": "mps"},
    ],
)
def test_a_mistake_leaves_nothing_behind(photos: Path, tiny_weights: Path, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(HeadstartError):
        headstart.fit(photos, **{"weights": tiny_weights, "out": tmp_path / "run", **wrong})
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_at_its_report_is_repaired_by_the_same_call(
    photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> Path:
        raise HeadstartError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_report", full)
        with pytest.raises(HeadstartError, match="disk full"):
            headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    assert run.report.exists()
    assert run.record["trunk"]["rows_computed"] == 0


def test_one_folder_takes_one_process_at_a_time(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    config = configs.load(None, data=str(photos), weights=str(tiny_weights))
    busy = "another process is working on the run"
    with runs.claimed(tmp_path / "run", config, "x"), pytest.raises(ConfigError, match=busy), runs.claimed(tmp_path / "run", config, "x"):
        pass
    with runs.claimed(tmp_path / "run", config, "x"):
        assert runs.read_record(tmp_path / "run")["status"] == runs.UNFINISHED


@pytest.mark.parametrize(("n", "match"), [(1, "no photos are left to test on: 3 train, 0 val, 0 test"), (0, "no photos")])
def test_too_few_photos_are_a_clear_error(tiny_weights: Path, tmp_path: Path, n: int, match: str) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    with pytest.raises(DataError, match=match):
        headstart.fit(make_photos(tmp_path / "photos", n=n), weights=tiny_weights, out=tmp_path / "run")


@pytest.mark.parametrize("kind", ["linear", "dense"])
def test_a_few_photos_a_class_are_enough_for_an_answer(tiny_weights: Path, tmp_path: Path, kind: str) -> None:
    photos = make_photos(tmp_path / "photos", n=2)
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run", set={"head.kind": kind, **(SMALL if kind == "dense" else {})})
    assert run.metrics["test"]["n"] == 3
    assert run.predict(photos / "red" / "photo 0.jpg").label in run.record["data"]["classes"]


def test_a_split_without_test_or_with_one_class_to_train_is_refused(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    first = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    rows = (first.folder / "split.csv").read_text(encoding="utf-8")
    (tmp_path / "split.csv").write_text(rows.replace(",test,", ",train,"), encoding="utf-8")
    with pytest.raises(DataError, match=r"no photos are left to test on: .* 0 test"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "b", split=tmp_path / "split.csv")
    kept = [row.replace(",train,", ",val,") if not row.startswith("red") else row for row in rows.splitlines()]
    (tmp_path / "split.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected at least 2 classes to train on, found 1"):
        headstart.fit(photos, weights=tiny_weights, out=tmp_path / "c", split=tmp_path / "split.csv")


def test_the_record_holds_what_was_resolved_and_what_to_know(photos: Path, tmp_path: Path) -> None:
    run = headstart.fit(photos, out=tmp_path / "run", set={"head.kind": "dense", **SMALL})
    config = run.record["config"]
    assert (config["backbone"], config["px"]) == ("embedded", 160)
    assert config["engine"] in ("openvino", "torch")
    assert run.record["backbone"]["hub_id"] is None
    assert config["precision"] in ("fp32", "bf16")
    assert config["phases"][0]["cut"] == "head"
    assert any("--backbone resnet50" in notice and "would be downloaded" in notice for notice in run.record["notices"])


def test_a_run_is_evaluated_again_from_anywhere(photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = headstart.fit("photos", weights=tiny_weights, out="run").metrics["test"]
    monkeypatch.chdir("/")
    Image.new("RGB", (50, 40), (250, 10, 10)).save(photos / "red" / "new.png")
    again = assess.assess_again(tmp_path / "run")
    assert again.metrics == metrics
    assert "never used for training" in again.about
    victim = next(photo.path for photo in assess.photos_of(tmp_path / "run") if photo.split == "test")
    (photos / victim).unlink()
    with pytest.raises(DataError, match=r"1 of the run's \d+ test photos are not as they were .*no such file"):
        assess.assess_again(tmp_path / "run")


def test_photos_that_trained_the_model_are_told_when_it_is_tested_on_them(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    found = assess.assess(run.bundle, str(photos), run=run.folder)
    n = run.record["data"]["n_train"] + run.record["data"]["n_val"]
    assert found.about == "60 photos of photos"
    assert found.notices == (f"{n} of these photos trained this model: it knows them, so the numbers are too good",)
    shutil.move(photos / "red", photos / "pink")
    with pytest.raises(DataError, match="does not know 1 of the data's classes: pink"):
        assess.assess(run.bundle, str(photos))


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_after_ctrl_c_the_same_command_continues(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=160)
    command = [
        str(Path(sys.executable).with_name("headstart")),
        "train",
        str(photos),
        "--weights",
        str(tiny_weights),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--set", "px=224", "--set", "engine=torch", "--set", "tune=never"]  # slow enough to be interrupted in the middle
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    store = Path(os.environ["HEADSTART_CACHE"]) / "store"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not any(path.stat().st_size for path in store.rglob("rows-*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    trunk = headstart.Run(tmp_path / "run").record["trunk"]
    assert trunk["rows_computed"] + trunk["rows_reused"] == 480
    assert trunk["rows_reused"] > 0


def test_a_photo_that_changes_between_scan_and_pass_is_an_error(photos: Path, tmp_path: Path) -> None:
    from headstart.data.reading import read_unchanged

    photo = photos / "red" / "photo 1.png"
    with pytest.raises(DataError, match=r"photo 1\.png changed while the run was reading it"):
        read_unchanged(photo, "0" * 64)
    photo.unlink()
    with pytest.raises(DataError, match=r"cannot read .*photo 1\.png any more"):
        read_unchanged(photo, "0" * 64)


def test_a_check_of_the_photos_that_fails_costs_no_run(
    photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a tree would not grow")

    monkeypatch.setattr("headstart.pipeline.checks", fail)
    run = headstart.fit(photos, weights=tiny_weights, out=tmp_path / "run")
    assert run.accuracy > 0.8
    assert not (run.folder / "checks.json").exists()
    assert run.report.exists()
    assert any("were not checked: ValueError: a tree would not grow" in notice for notice in run.record["notices"])
