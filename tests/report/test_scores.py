"""Every score, curves, sets of labels and none of these, as the page shows them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_tools import MakeRun, text_of, write_csv

from headstart.evaluate import calibrate
from headstart.report import scores, sections, sets
from headstart.report.build import write_report
from headstart.report.card import write_card
from headstart.report.folder import read_run


def change(folder: Path, name: str, **values: Any) -> Path:
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(record | values))
    return folder


def test_every_score_of_metrics_json_is_listed_with_its_interval(make_run: MakeRun) -> None:
    folder = make_run()
    test = json.loads((folder / "metrics.json").read_text())["test"]
    low, high = test["ci95"]["log_loss"]
    words = text_of(write_report(folder), "scores")
    assert f"{test['log_loss']:.3f} {low:.3f}–{high:.3f}" in words
    assert f"F1, weighted by photos {100 * test['f1_weighted']:.0f} %" in words
    assert "top 5" not in words, "with three classes it is 1 by definition"


def test_scores_that_older_runs_lack_are_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    test = json.loads((folder / "metrics.json").read_text())["test"]
    kept = {key: test[key] for key in ("n", "accuracy", "per_class", "confusion")}
    words = text_of(write_report(change(folder, "metrics.json", test=kept)), "scores")
    assert "Accuracy" in words
    assert "Balanced accuracy" not in words


def test_curves_show_the_classes_that_are_hardest_to_rank(make_run: MakeRun) -> None:
    classes = ["a", "b", "c", "d", "$\\frac{1}{0}$"]
    folder = make_run(classes, 100)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, area in zip(classes, (0.9, 0.5, 0.8, 0.95, 0.6), strict=True):
        metrics["test"]["per_class"][name] |= {"average_precision": area, "roc_auc": 0.75}
        metrics["test"]["per_class"][name]["ci95"] |= {"average_precision": [0.4, 0.99], "roc_auc": [0.7, 0.8]}
    page = write_report(change(folder, "metrics.json", **metrics))
    words = text_of(page, "scores")
    assert "The 3 classes that are hardest to rank" in words
    assert "1 b 0.750 (0.700–0.800) 0.500 (0.400–0.990)" in words
    assert re.search(r"2 \$\\frac\{1\}\{0\}\$ 0\.750 .* 3 c 0\.750", words)
    assert "1, b, 0.500 (0.400–0.990)" in page.read_text(encoding="utf-8"), "the chart says it in words too"


def test_a_perfect_ranking_of_two_classes_draws(make_run: MakeRun) -> None:
    assert 'aria-label="ROC curves' in write_report(make_run(["a", "b"], 20, skill=60.0)).read_text(encoding="utf-8")


def test_test_photos_of_one_class_have_no_curves(make_run: MakeRun) -> None:
    folder = make_run()
    write_csv(
        folder / "predictions.csv", ["path", "label", "predicted", "daisy", "roses", "tulips"], [["a.jpg", "daisy", "daisy", 0.8, 0.1, 0.1]]
    )
    assert scores.ranking(read_run(folder)) is None


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_what_the_temperature_did_is_undone_exactly(make_run: MakeRun, temperature: float) -> None:
    folder = make_run(n_test=200, run={"head": {"temperature": temperature}})
    found = sections.probabilities(read_run(folder))
    predictions = read_run(folder).predictions
    assert found is not None
    assert predictions is not None
    raised = predictions.probs.astype(float) ** temperature
    labels = [predictions.classes.index(label) for label in predictions.labels]
    before = calibrate.ece(raised / raised.sum(axis=1, keepdims=True), labels)
    assert f"the error here would be {100 * before:.1f} points" in found.before
    assert ("less sure" in found.before) == (temperature > 1)
    assert np.isfinite(before)


def test_a_temperature_of_one_has_done_nothing(make_run: MakeRun) -> None:
    found = sections.probabilities(read_run(make_run(run={"head": {"temperature": 1.0}})))
    assert found is not None
    assert found.before == ""


COVERED = {"n": 40, "coverage": 0.9, "coverage_ci95": [0.8, 0.95], "mean_size": 1.2}
CONFORMAL = {
    "n": 120,
    "coverage": 0.915,
    "coverage_ci95": [0.85, 0.95],
    "mean_size": 1.31,
    "alone": 0.74,
    "per_class": {
        "daisy": COVERED,
        "roses": COVERED | {"coverage": 0.7, "coverage_ci95": [0.55, 0.82]},
        "tulips": {"n": 0, "coverage": None, "coverage_ci95": None, "mean_size": None},
    },
}


def test_sets_of_labels_name_the_classes_below_the_promise(make_run: MakeRun) -> None:
    words = text_of(write_report(change(make_run(), "metrics.json", conformal=CONFORMAL)), "sets")
    assert "for 90 % of photos do so for 92 % (95 % interval 85–95) of test photos, with 1.3 labels on average" in words
    assert "74 % of the sets hold one label alone." in words
    assert "roses below 90 % 70 55–82 1.2 40 daisy 90 80–95 1.2 40" in words
    assert "tulips" not in words, "no photo, nothing to say"


def test_the_promise_is_the_bundles_own(make_run: MakeRun) -> None:
    folder = change(make_run(), "metrics.json", conformal=CONFORMAL)
    (folder / "model").mkdir()
    (folder / "model" / "bundle.json").write_text(json.dumps({"conformal": {"coverage": 0.8, "threshold": 0.1}}))
    found = sets.sets(read_run(folder))
    assert found is not None
    assert found.promised == "80"
    assert not any(row.short for row in found.rows)


def scored(detection: float) -> dict[str, Any]:
    return {"detection": detection, "detection_ci95": [detection - 0.1, detection + 0.1], "auroc": 0.8, "auroc_ci95": [0.7, 0.9]}


ALARMS = {"n": 60, "false_alarms": 0.05, "false_alarms_ci95": [0.02, 0.13]}


def novel(detection: float) -> dict[str, Any]:
    return {
        "false_alarms": 0.05,
        "n_classes": 2,
        "n_photos": 80,
        "detection": detection,
        "scores": {"energy": scored(detection), "nearest": scored(0.4), "probability": scored(0.3)},
        "per_class": {"daisy": {"n": 40, "energy": scored(0.5)}, "roses": {"n": 41, "energy": scored(0.2)}, "odd": 3},
        "test": ALARMS,
    }


def with_threshold(folder: Path, detection: float | None) -> Path:
    """The run's model says none of these; detection: as its bundle has it."""
    kept = {"score": "energy", "threshold": -3.5, "false_alarms": 0.05, "detection": detection}
    (folder / "model").mkdir()
    (folder / "model" / "bundle.json").write_text(json.dumps({"none_of_these": kept}))
    return folder


def test_none_of_these_tells_how_much_is_noticed_and_of_which_class_least(make_run: MakeRun) -> None:
    folder = with_threshold(change(make_run(), "metrics.json", none_of_these=novel(0.34)), 0.34)
    words = text_of(write_report(folder), "unknown")
    assert "Of photos of a class it was never shown," in words
    assert "it calls 34 % (95 % interval 24–44) none of these, at 5 % false alarms" in words
    assert "Of the test photos, all of known classes, 5 % (95 % interval 2–13) are called none of these by mistake." in words
    assert "distance to the nearest stored photo 40 30–50 0.800" in words
    assert words.index("roses 20 10–30 0.800 41") < words.index("daisy 50 40–60 0.800 40")


def test_what_frozen_features_detect_is_not_said_of_a_tuned_network(make_run: MakeRun) -> None:
    folder = with_threshold(change(make_run(), "metrics.json", none_of_these=novel(0.34)), None)
    for words in (text_of(write_report(folder), "unknown"), write_card(folder).read_text(encoding="utf-8").replace("\u00a0", " ")):
        assert "An estimate, by linear heads on the frozen features and not by this classifier" in words
        assert "such a head calls 34 % (95 % interval 24–44) none of these" in words
        assert "it calls" not in words


@pytest.mark.parametrize(("detection", "misses"), [(0.12, True), (0.5, False)])
def test_a_model_that_misses_most_says_so(make_run: MakeRun, detection: float, misses: bool) -> None:
    folder = with_threshold(change(make_run(), "metrics.json", none_of_these=novel(detection)), detection)
    for words in (text_of(write_report(folder), "unknown"), write_card(folder).read_text(encoding="utf-8")):
        assert ("So it misses most photos of what it does not know" in words) == misses


def test_false_alarms_are_told_where_no_class_could_be_left_out(make_run: MakeRun) -> None:
    record = {"false_alarms": 0.05, "detection": None, "reason": "expected at least 3 classes", "test": ALARMS}
    folder = with_threshold(change(make_run(("daisy", "roses")), "metrics.json", none_of_these=record), None)
    page, card = text_of(write_report(folder), "unknown"), write_card(folder).read_text(encoding="utf-8").replace("\u00a0", " ")
    for words in (page, card):
        assert "less like the classes than all but 5 % of their own photos is called none of these" in words
        assert "5 % (95 % interval 2–13) are called none of these by mistake" in words
        assert "something else that finds was not measured" in words
    assert "Noticed" not in page
    assert "is given one of the classes all the same" not in card


def test_a_model_without_a_threshold_claims_nothing(make_run: MakeRun) -> None:
    folder = change(make_run(), "metrics.json", none_of_these=novel(0.34) | {"test": {"reason": "too few photos"}})
    assert text_of(write_report(folder), "unknown") == ""
    card = write_card(folder).read_text(encoding="utf-8")
    assert "A photo of something else is given one of the classes all the same" in card
    assert "34" not in card.split("## How sure it is")[1].split("## How it was trained")[0]


@pytest.mark.parametrize(
    "record",
    [None, 3, {"detection": None, "reason": "too few"}, {"scores": {"energy": {"detection": "x"}}}, {"coverage": 2}, {"coverage": 0.9}],
)
def test_what_was_not_measured_is_not_shown_and_damage_survived(make_run: MakeRun, record: Any) -> None:
    text = write_report(change(make_run(), "metrics.json", none_of_these=record, conformal=record)).read_text(encoding="utf-8")
    assert 'id="unknown"' not in text
    assert ('id="sets"' in text) == (record == {"coverage": 0.9})
