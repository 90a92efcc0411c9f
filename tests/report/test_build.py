"""The page as text: the numbers are metrics.json's, nothing is fetched, nothing hostile gets through, nothing missing stops it."""

import json
import re
import time
from pathlib import Path

import pytest
from report_tools import MakeRun, text_of, write_csv

from headstart.errors import DataError
from headstart.report.build import write_report

HOSTILE = [
    "<script>alert(1)</script>",
    '"quo\'ted" & co',
    "new\nline",
    "x" * 400,
    "\u202edetrever",
    "عربى",
    "{{ 7 * 7 }}",
    "$\\frac{1}{0}$",
]


def test_headline_says_what_metrics_json_holds(make_run: MakeRun) -> None:
    folder = make_run()
    test = json.loads((folder / "metrics.json").read_text())["test"]
    low, high = test["accuracy_ci95"]
    words = text_of(write_report(folder))
    right = round(test["accuracy"] * test["n"])
    assert f"{right} of 60 test photos right: {100 * test['accuracy']:.0f} %, and {100 * low:.0f} to {100 * high:.0f} % is what" in words
    assert "about 180 more test photos would halve that range" in words
    assert f"{100 * test['f1_macro']:.0f} %" in words
    for name, scores in test["per_class"].items():
        (low, high) = scores["ci95"]["f1"]
        assert f"{name} {100 * scores['f1']:.0f} {100 * low:.0f}–{100 * high:.0f}" in words


def test_confusions_are_counted_as_in_the_matrix(make_run: MakeRun) -> None:
    folder = make_run()
    confusion = json.loads((folder / "metrics.json").read_text())["test"]["confusion"]
    pairs = [(n, i, j) for i, row in enumerate(confusion["counts"]) for j, n in enumerate(row) if i != j]
    n, i, j = max(pairs)
    words = text_of(write_report(folder))
    assert f"{confusion['labels'][i]} taken for {confusion['labels'][j]} {n} of {sum(confusion['counts'][i])}" in words


def test_page_names_no_other_host_and_holds_no_script(make_run: MakeRun) -> None:
    text = write_report(make_run(photos=True, epochs=4)).read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    assert "<script" not in text


def test_hostile_names_are_shown_and_never_obeyed(make_run: MakeRun) -> None:
    folder = make_run(
        HOSTILE, 80, run={"name": HOSTILE[0], "notices": HOSTILE, "command": HOSTILE[0], "versions": {HOSTILE[0]: HOSTILE[1]}}
    )
    write_csv(folder / "omitted.csv", ["path", "reason"], [[name, name] for name in [*HOSTILE, "not utf-8 \udcff.jpg"]])
    page = write_report(folder)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\u202e" not in text
    assert "\\u202edetrever" in text
    assert "new\\nline" in text
    assert "{{ 7 * 7 }}" in text
    assert "$\\frac{1}{0}$" in text
    assert "not utf-8 \\udcff.jpg" in text
    assert not re.search(r"<bdi[^>]*>x{61}", text), "very long names are shortened where they are shown"


def test_ids_are_unique_and_every_link_has_its_target(make_run: MakeRun) -> None:
    text = write_report(make_run(photos=True, epochs=4)).read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""href=["']#([^"']+)""", text)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', text)) <= set(ids)


def test_every_picture_has_words_in_its_place(make_run: MakeRun) -> None:
    text = write_report(make_run(photos=True, epochs=4)).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") > 3
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]+>", text))
    charts = re.findall(r"<svg[^>]+>", text)
    assert len(charts) == 6
    assert all(re.search(r'role="img" aria-label="[^"]{20,}"', tag) for tag in charts)
    assert text.count("<table") == text.count("<caption")


def test_mistakes_come_surest_first_and_gone_photos_leave_their_path(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(photos=True)
    text = write_report(folder).read_text(encoding="utf-8")
    shares = [float(share) for share in re.findall(r'class="said">.*?<b>([\d.]+)', text)]
    assert shares == sorted(shares, reverse=True)
    assert 0 < len(shares) <= 24
    moved = write_report(folder, tmp_path / "elsewhere").read_text(encoding="utf-8")
    assert "data:image/jpeg" not in moved
    assert moved.count("photo not found") == len(shares)


def test_unreadable_photos_do_not_stop_the_report(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(photos=True)
    for path in (tmp_path / "photos").rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:100])
    assert "photo not found" in write_report(folder).read_text(encoding="utf-8")


def test_a_trained_head_shows_epochs_and_a_solved_one_its_strengths(make_run: MakeRun, tmp_path: Path) -> None:
    table: list[dict[str, float]] = [{"strength": 10.0**i, "log_loss": 9, "accuracy": 0.9 - i * i / 100} for i in range(-3, 4)]
    for i, row in zip(range(-3, 4), table, strict=True):
        row["calibrated_log_loss"] = 0.3 + i * i / 50
    solved = make_run(run={"head": {"kind": "linear", "strength": 1.0, "oof_table": table}})
    text = write_report(solved).read_text(encoding="utf-8")
    assert "for 7 strengths of the penalty from 0.001 to 1e+03: between 0.3 and 0.48. Chosen: 1." in text
    header = ["phase", "epoch", "rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds"]
    write_csv(solved / "history.csv", header, [["head", 1, 0.1, 0.9, "", 0.8, 0.7, 1], ["head", 2, 0.1, 0.5, "nan", 0.6, 0.75, 1]])
    text = write_report(solved).read_text(encoding="utf-8")
    assert "Loss over 2 epochs: validation photos end at 0.6, training photos end at 0.5." in text
    assert "Accuracy over 2 epochs: validation photos end at 0.75." in text


def test_embedded_backbone_says_what_imagenet_weights_would_bring(make_run: MakeRun) -> None:
    folder = make_run(run={"backbone": {"name": "embedded", "origin": "embedded"}})
    assert "--backbone resnet50" in text_of(write_report(folder))
    record = json.loads((folder / "run.json").read_text()) | {"backbone": {"name": "resnet18", "origin": "cache"}}
    (folder / "run.json").write_text(json.dumps(record))
    assert "--backbone resnet50" not in text_of(write_report(folder))


def test_a_useless_classifier_is_called_one(make_run: MakeRun) -> None:
    assert "Do not use it yet." in text_of(write_report(make_run(skill=0.0)))


def test_a_perfect_result_keeps_its_doubt(make_run: MakeRun) -> None:
    words = text_of(write_report(make_run(skill=50.0)))
    assert "60 of 60 test photos right: 100 %, and 94 to 100 % is what" in words
    assert "Nothing: every test photo is right." in words


@pytest.mark.parametrize("missing", ["run.json", "metrics.json", "predictions.csv", "split.csv", "history.csv", "omitted.csv"])
def test_a_missing_file_is_named_where_it_matters_and_stops_nothing(make_run: MakeRun, missing: str) -> None:
    folder = make_run()
    (folder / missing).unlink()
    words = text_of(write_report(folder))
    assert (f"{missing} is missing" in words) == (missing in ("run.json", "metrics.json", "predictions.csv"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"test": 5, "data": [], "head": "x", "notices": 3, "backbone": {"px": "big"}}', "\x00"]
)
def test_damaged_files_are_survived(make_run: MakeRun, content: str) -> None:
    folder = make_run()
    for path in folder.iterdir():
        path.write_text(content)
    assert write_report(folder).stat().st_size > 1000


def test_incomplete_rows_of_predictions_are_counted(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "predictions.csv").open("a") as file:
        file.write("cut.jpg,daisy,ro\nodd.jpg,daisy,roses,0.1,nan,0.2\n")
    assert "2 rows of predictions.csv are incomplete" in text_of(write_report(folder))


def test_an_unfinished_run_says_so(make_run: MakeRun) -> None:
    assert "This run is not finished ( training )" in text_of(write_report(make_run(run={"status": "training"})))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither run\.json nor metrics\.json"):
        write_report(tmp_path)
    with pytest.raises(DataError, match=r"found nothing at .*absent"):
        write_report(tmp_path / "absent")


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    folder = make_run(photos=True, epochs=3)
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


@pytest.mark.slow
def test_ten_thousand_photos_of_two_hundred_classes_stay_small_and_quick(make_run: MakeRun) -> None:
    folder = make_run([f"class number {i}" for i in range(200)], 10_000, skill=6.0)
    started = time.perf_counter()
    page = write_report(folder)
    assert time.perf_counter() - started < 10
    assert page.stat().st_size < 5e6
    text = page.read_text(encoding="utf-8")
    assert "Heat map of the confusion matrix of 200 classes" in text
    assert "The other 175 classes" in text
