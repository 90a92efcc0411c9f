"""What was found in the photos, on the page: suspects, duplicates, shortcuts, both scores, the learning curve; the steps they lead to."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_tools import Browser, MakeRun, text_of

from headstart.report.build import write_report

FLOWERS = ("daisy", "roses", "tulips")
WARNING = "Width and height alone tell 62 % of the photos apart."


def suspect(path: str, label: str = "daisy", likely: str = "roses", likelihood: float = 0.9) -> dict[str, Any]:
    return {
        "path": path,
        "label": label,
        "likely": likely,
        "probability_label": 0.04,
        "probability_likely": likelihood,
        "score": likelihood,
    }


def cluster(*labels: str, splits: tuple[str, ...] = ("train", "train"), kind: str = "near") -> dict[str, Any]:
    return {"kind": kind, "photos": [f"{i % 7}/photo {i}.jpg" for i in range(len(labels))], "labels": list(labels), "splits": list(splits)}


def checks() -> dict[str, Any]:
    """checks.json of photos with nothing wrong: what a test is about is put in its place."""
    steady = {"n": 40, "recall": [0.5, 0.8], "gain": 0.01, "gain_ci95": [-0.01, 0.015], "verdict": "saturated"}
    return {
        "duplicates": {"n_exact": 0, "n_near": 0, "n_photos": 0, "across_splits": 0, "across_test": 0, "across_classes": 0, "clusters": []},
        "naive": None,
        "suspects": {"n": 0, "n_checked": 180, "photos": []},
        "shortcuts": [
            {"name": "size", "words": "width and height", "accuracy": 0.4, "accuracy_ci95": [0.3, 0.5], "baseline": 0.35, "warning": None}
        ],
        "learning_curve": {
            "sizes": [20, 160],
            "accuracy": [0.6, 0.8],
            "accuracy_ci95": [[0.5, 0.7], [0.75, 0.85]],
            "per_class": {name: dict(steady) for name in FLOWERS},
        },
    }


def write(folder: Path, found: Any) -> Path:
    (folder / "checks.json").write_text(json.dumps(found), encoding="utf-8")
    return write_report(folder)


def steps(page: Path) -> list[str]:
    listed = re.search(r'<ol class="steps">(.*?)</ol>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert listed is not None
    found = re.findall(r"<li>(.*?)</li>", listed[1], flags=re.DOTALL)
    return [re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", step))).replace("\u00a0", " ").strip() for step in found]


def test_without_checks_the_page_says_nothing_of_them(make_run: MakeRun) -> None:
    text = write_report(make_run()).read_text(encoding="utf-8")
    assert "Your photos" not in text
    assert "checks.json" not in text


def test_photos_with_nothing_wrong_are_said_to_have_nothing_wrong(make_run: MakeRun) -> None:
    words = text_of(write(make_run(), checks()), "photos")
    assert "None: 180 labels were checked, and none was contradicted by 4 to 1 or more." in words
    assert "No photo comes more than once" in words
    assert "width and height no shortcut 40 30–50" in words
    assert "daisy saturated 50 80 +1 -1 to +2" in words


def test_suspects_come_with_picture_both_labels_and_what_to_do(make_run: MakeRun) -> None:
    folder = make_run(photos=True, run={"config": {"data": "my photos"}})
    listed = [suspect("0/photo 0.jpg", likelihood=0.93), suspect("gone.jpg", "tulips", "daisy", 0.62)]
    page = write(folder, checks() | {"suspects": {"n": 7, "n_checked": 180, "photos": listed}})
    words = text_of(page, "photos")
    assert "7 of 180 labels may be wrong: contradicted by 4 to 1 or more. The 2 most suspect:" in words
    assert "roses ? 93 % label: daisy 4 % 0/photo 0.jpg" in words
    assert "photo not found daisy ? 62 %" in words
    assert "headstart explore 'my photos' --out look" in words
    assert "--exclude look/suspects.csv" in words
    assert "--corrections look/corrections.csv" in words
    assert steps(page)[0] == "Look at 7 labels that may be wrong, then train again with --exclude or --corrections."


def test_the_command_that_shows_more_looks_as_the_run_did(make_run: MakeRun) -> None:
    asked = {"data": "my photos", "backbone": "resnet50", "weights": None, "seed": 7, "split": "a split.csv", "exclude": "out.txt"}
    folder = make_run(run={"asked": asked | {"corrections": "fix.csv"}, "config": {"data": "my photos", "backbone": "resnet50.a1_in1k"}})
    words = text_of(write(folder, checks()), "photos")
    options = "--backbone resnet50 --seed 7 --split 'a split.csv' --exclude out.txt --corrections fix.csv"
    assert f"headstart explore 'my photos' {options} shows more" in words


def test_groups_that_mislead_are_marked(make_run: MakeRun) -> None:
    clusters = [cluster("tulips", *["daisy"] * 5, splits=("train", "test", "val", "test", "val", "val"))]
    clusters += [cluster("roses", "roses", splits=("train", "test")), cluster("daisy", "roses"), cluster("daisy", "daisy", kind="exact")]
    counts = {"n_exact": 1, "n_near": 3, "n_photos": 12, "across_splits": 3, "across_test": 2, "across_classes": 2}
    page = write(make_run(run={"config": {"split": "split.csv"}}), checks() | {"duplicates": counts | {"clusters": clusters}})
    words = text_of(page, "photos")
    assert "1 group of identical files and 3 groups of near-duplicates" in words
    assert "2 groups lie on both sides of the given split: the classifier has seen those test photos, so its score flatters." in words
    assert "1 group lies in train and val of the given split, but not in test" in words
    assert "2 groups carry more than one label" in words
    assert "near-duplicates both sides of the split more than one label" in words
    assert "near-duplicates both sides of the split photo not found roses · train" in words
    assert "near-duplicates more than one label photo not found daisy · train" in words
    assert "the same file photo not found daisy · train" in words
    assert "and 2 more" in words
    told = (
        "Do not quote this score yet. 2 groups of duplicates lie on both sides of the given split. Take them off one side, or train without"
    )
    assert steps(page)[0].startswith(told)


def test_what_is_advised_against_groups_on_both_sides_does_not_presume_a_given_split(make_run: MakeRun) -> None:
    counts = {"n_exact": 1, "n_near": 0, "n_photos": 2, "across_splits": 1, "across_test": 1, "across_classes": 0}
    page = write(make_run(), checks() | {"duplicates": counts | {"clusters": []}})
    assert "1 group lies on both sides of the split: the classifier has seen" in text_of(page, "photos")
    assert steps(page)[0].endswith("Take them off one side, or give photos that belong together one group in a CSV.")


def test_groups_in_train_and_val_alone_do_not_make_the_test_score_doubtful(make_run: MakeRun) -> None:
    counts = {"n_exact": 1, "n_near": 0, "n_photos": 2, "across_splits": 1, "across_test": 0, "across_classes": 0}
    page = write(make_run(), checks() | {"duplicates": counts | {"clusters": []}})
    words = text_of(page, "photos")
    assert "1 group lies in train and val of the split, but not in test" in words
    assert "flatters" not in words
    assert not any("Do not quote" in step for step in steps(page))


def test_groups_kept_together_do_not_stand_in_the_way(make_run: MakeRun) -> None:
    counts = {"n_exact": 1, "n_near": 0, "n_photos": 2, "across_splits": 0, "across_test": 0, "across_classes": 0}
    page = write(make_run(), checks() | {"duplicates": counts | {"clusters": [cluster("daisy", "daisy", kind="exact")]}})
    assert "Each group was kept on one side of the split" in text_of(page, "photos")
    assert not any("duplicates" in step for step in steps(page))


def test_the_naive_score_stands_beside_the_honest_one_only_where_they_differ(make_run: MakeRun) -> None:
    both = {
        "honest": {"accuracy": 0.8, "accuracy_ci95": [0.75, 0.85], "n": 180},
        "naive": {"accuracy": 0.9, "accuracy_ci95": [0.86, 0.93], "n": 180},
    }
    folder = make_run()
    page = write(folder, checks() | {"naive": both | {"differ": True}})
    assert "honest: photos that belong together stay together 80 75–85 naive: each photo for itself 90 86–93" in text_of(page, "photos")
    assert "Naive score 90 % 86–93" in text_of(page)
    page = write(folder, checks() | {"naive": both | {"differ": False}})
    assert "made no difference beyond noise to the score: 80 %" in text_of(page, "photos")
    assert "Naive score" not in text_of(page)


def test_a_shortcut_is_warned_of_in_words_and_among_the_steps(make_run: MakeRun) -> None:
    camera = {"words": "camera", "accuracy": 0.7, "accuracy_ci95": [0.6, 0.8], "warning": None, "note": "Cameras do no harm here."}
    size = {"words": "width and height", "accuracy": 0.62, "accuracy_ci95": [0.5, 0.7], "warning": WARNING, "note": None}
    found = [each | {"name": each["words"], "baseline": 0.35} for each in (camera, size)]
    page = write(make_run(), checks() | {"shortcuts": found})
    words = text_of(page, "photos")
    assert WARNING in words
    assert "camera Cameras do no harm here. harmless 70 60–80" in words
    assert words.index("width and height too much 62 50–70") < words.index("camera Cameras")
    assert "width and height alone give the class away for 62 % of photos" in steps(page)[0]


def test_the_learning_curve_names_the_classes_that_gain(make_run: MakeRun) -> None:
    found = checks()
    gaining = {"n": 40, "recall": [0.4, 0.7], "gain": 0.06, "gain_ci95": [0.02, 0.1], "verdict": "more photos help"}
    found["learning_curve"]["per_class"]["tulips"] = gaining
    page = write(make_run(), found)
    words = text_of(page, "photos")
    assert words.index("tulips more photos help 40 70 +6 +2 to +10") < words.index("daisy saturated 50 80")
    assert "Share right over the number of photos to learn from: 60 % from 20, 80 % from 160." in page.read_text(encoding="utf-8")
    assert any(step.startswith("Add photos of tulips: there the learning curve still climbs") for step in steps(page))


def test_there_are_never_more_than_five_steps_and_the_last_is_to_use_it(make_run: MakeRun) -> None:
    found = checks()
    found["suspects"] |= {"n": 3, "photos": [suspect("a.jpg")]}
    found["duplicates"] |= {"n_near": 1, "n_photos": 2, "across_splits": 1, "across_test": 1}
    found["shortcuts"][0]["warning"] = WARNING
    found["learning_curve"]["per_class"]["daisy"]["verdict"] = "more photos help"
    page = write(make_run(run={"backbone": {"name": "embedded", "origin": "embedded"}}, skill=0.0), found)
    listed = steps(page)
    assert len(listed) == 5
    assert listed[0].startswith("Do not use it yet.")
    assert listed[1].startswith("Do not quote this score yet.")
    assert listed[2].startswith("Rule out a shortcut")
    assert "headstart predict" in listed[-1]


@pytest.mark.parametrize(
    "found",
    [
        [],
        {"duplicates": 3, "naive": "x", "suspects": [1], "shortcuts": {"a": 1}, "learning_curve": []},
        {
            "suspects": {"n": "many", "n_checked": 5, "photos": [None, {"path": None}, 7]},
            "shortcuts": [None, {"accuracy": "nan"}, {"accuracy": 7}],
        },
        {"duplicates": {"n_near": 2, "clusters": [{"photos": 3}, {"photos": ["a"], "labels": None, "splits": "x"}, 5]}},
        {"naive": {"honest": {"accuracy": 0.5}, "naive": {"accuracy": None}}, "learning_curve": {"sizes": [1, None], "accuracy": [1]}},
        {
            "learning_curve": {
                "sizes": [0, 1],
                "accuracy": [0, 1],
                "accuracy_ci95": [[0, 1], [0, 1]],
                "per_class": {"a": 3, "b": {"recall": []}},
            }
        },
    ],
)
def test_damaged_checks_are_survived(make_run: MakeRun, found: Any) -> None:
    assert write(make_run(), found).stat().st_size > 1000


def test_hostile_names_in_checks_are_shown_and_never_obeyed(make_run: MakeRun, browser: Browser) -> None:
    bad = "<script>document.title='owned'</script>" + "W" * 300 + "\u202e"
    found = checks()
    found["suspects"] |= {"n": 1, "photos": [suspect(bad, bad, bad)]}
    found["duplicates"] |= {"n_near": 1, "clusters": [{"kind": bad, "photos": [bad, bad], "labels": [bad, "x"], "splits": [bad, "train"]}]}
    found["shortcuts"] = [{"name": bad, "words": bad, "accuracy": 0.5, "accuracy_ci95": [0.4, 0.6], "baseline": 0.2, "warning": bad}]
    found["learning_curve"]["per_class"][bad] = {"recall": [0.1, 0.2], "gain": 0.3, "verdict": bad}
    page = write(make_run(run={"config": {"data": bad}}), found)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\u202e" not in text
    assert browser.content_widths(page, [360, 1280]) == {360: 360, 1280: 1280}
