"""Suspect labels: planted ones are found first, rare and absent classes are treated fairly, and the files fit `train`."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_samples import make_table

from headstart.data.scan import scan
from headstart.data.table import Table
from headstart.errors import DataError
from headstart.explore.suspects import SUSPECT_SCORE, Suspects, find_suspects, write_corrections, write_suspects


def sure(labels: np.ndarray, k: int, own: float) -> np.ndarray:
    """Probabilities [n, k]: `own` for the class in `labels`, the rest spread evenly."""
    probs = np.full((len(labels), k), (1 - own) / (k - 1), np.float32)
    probs[np.arange(len(labels)), labels] = own
    return probs


@pytest.fixture
def table() -> Table:
    return make_table(["cat"] * 10 + ["dog"] * 10)


def test_a_wrong_label_is_found_with_the_likely_one(table: Table) -> None:
    truth = table.labels.copy()
    truth[3] = 1
    found = find_suspects(sure(truth, 2, 0.9), np.arange(20), table)
    (one,) = found.photos
    assert (one.photo, one.path, one.label, one.likely) == (3, "cat/3.jpg", "cat", "dog")
    assert (one.probability_label, one.probability_likely) == pytest.approx((0.1, 0.9))
    # By hand: cats get 0.82 on average, dogs 0.9, so the odds are 0.9 / 0.9 against 0.1 / 0.82.
    assert one.score == pytest.approx(1 / (1 + 0.1 / 0.82))
    assert found.n_checked == 20


def test_the_surest_come_first_and_mere_doubt_is_not_listed(table: Table) -> None:
    probs = sure(table.labels, 2, 0.9)
    probs[2], probs[5], probs[7] = (0.15, 0.85), (0.02, 0.98), (0.45, 0.55)
    found = find_suspects(probs, np.arange(20), table)
    assert [one.photo for one in found.photos] == [5, 2]


def test_photos_without_an_answer_are_left_out_and_the_others_keep_their_place(table: Table) -> None:
    asked = np.array([17, 12, 4, 9, 1, 15])
    truth = table.labels[asked]
    truth[0] = 0
    found = find_suspects(sure(truth, 2, 0.95), asked, table)
    assert [(one.photo, one.path) for one in found.photos] == [(17, "dog/17.jpg")]
    assert found.n_checked == 6


def test_a_rare_class_that_is_never_recognised_neither_loses_nor_draws_photos() -> None:
    table = make_table(["cat"] * 50 + ["emu"] * 2, classes=["cat", "dog", "emu"])
    probs = np.tile(np.float32([0.9, 0.0, 0.1]), (52, 1))
    # Two emus that get as little as every cat gives them: by plain odds, 9 to 1, their labels would be wrong.
    assert find_suspects(probs, np.arange(52), table).photos == ()
    probs[7] = 0.5, 0.1, 0.4  # four times what emus get, and still more likely a cat
    assert find_suspects(probs, np.arange(52), table).photos == ()


def test_a_class_without_photos_is_never_likely() -> None:
    table = make_table(["cat"] * 5 + ["dog"] * 5, classes=["ant", "cat", "dog"])
    probs = sure(table.labels, 3, 0.9)
    probs[0] = 0.9, 0.05, 0.05
    assert find_suspects(probs, np.arange(10), table).photos == ()


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_most_planted_errors_are_found_and_few_others(share: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    wrong = rng.permutation(400)[: int(400 * share)]
    given_labels = truth.copy()
    given_labels[wrong] = (truth[wrong] + rng.integers(1, 4, len(wrong))) % 4
    logits = rng.normal(size=(400, 4))
    logits[np.arange(400), truth] += 5
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = find_suspects(probs, np.arange(400), make_table([f"c{y}" for y in given_labels]))
    listed = {one.photo for one in found.photos}
    assert len(listed & set(wrong.tolist())) >= 0.9 * len(wrong)
    assert len(listed - set(wrong.tolist())) <= 0.02 * 400


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 10_000))
def test_every_suspect_is_more_likely_something_else(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = [f"c{i}" for i in range(k)]
    table = make_table([classes[i] for i in rng.integers(0, k, n)], classes=classes)
    probs = rng.dirichlet(np.full(k, 0.3), n).astype(np.float32)
    found = find_suspects(probs, np.arange(n), table)
    scores = [one.score for one in found.photos]
    assert scores == sorted(scores, reverse=True)
    for one in found.photos:
        assert one.likely != one.label
        assert one.probability_likely > one.probability_label
        assert SUSPECT_SCORE <= one.score <= 1
        assert one.label == table.photos[one.photo].label


def test_certain_probabilities_are_no_trouble(table: Table) -> None:
    truth = table.labels.copy()
    truth[:10] = 1  # no cat gets any probability
    found = find_suspects(sure(truth, 2, 1.0), np.arange(20), table)
    assert all(np.isfinite(one.score) for one in found.photos)


def test_no_photos_are_no_suspects(table: Table) -> None:
    assert find_suspects(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), table) == Suspects((), 0)


def test_probabilities_of_other_classes_are_refused(table: Table) -> None:
    with pytest.raises(DataError, match=r"expected probabilities \[20 photos, 2 classes\] to find suspect labels, found \[20, 3\]"):
        find_suspects(np.zeros((20, 3)), np.arange(20), table)


def test_the_record_holds_as_many_as_asked_for(table: Table) -> None:
    truth = 1 - table.labels
    truth[5:] = table.labels[5:]
    record = find_suspects(sure(truth, 2, 0.9), np.arange(20), table).to_json(most=2)
    assert (record["n"], record["n_checked"], len(record["photos"])) == (5, 20, 2)
    assert record["photos"][0] == {
        "path": "cat/0.jpg",
        "label": "cat",
        "likely": "dog",
        "probability_label": 0.1,
        "probability_likely": 0.9,
        "score": pytest.approx(0.8333, abs=1e-4),
    }


def test_test_photos_are_marked_among_suspects_and_never_corrected(tmp_path: Path) -> None:
    table = make_table(["cat"] * 10 + ["dog"] * 10, split=["test", "train"] * 10)
    truth = table.labels.copy()
    truth[[2, 3]] = 1
    found = find_suspects(sure(truth, 2, 0.9), np.arange(20), table)
    write_suspects(tmp_path / "suspects.csv", found)
    write_corrections(tmp_path / "corrections.csv", found.photos)
    rows = list(csv.DictReader((tmp_path / "suspects.csv").read_text().splitlines()))
    assert {row["path"]: row["split"] for row in rows} == {"cat/2.jpg": "test", "cat/3.jpg": "train"}
    assert list(rows[0])[-1] == "split"
    assert (tmp_path / "corrections.csv").read_text() == "path,label,split\ncat/3.jpg,dog,train\n"


def test_the_files_are_what_train_takes(tmp_path: Path) -> None:
    from samples import make_photos

    folder = make_photos(tmp_path / "photos", n=4)
    table = scan(folder)
    truth = table.labels.copy()
    wrong = next(i for i, photo in enumerate(table.photos) if photo.path == "grün/photo 2.jpg")
    truth[wrong] = table.classes.index("red")
    found = find_suspects(sure(truth, 3, 0.99), np.arange(len(table)), table)
    write_suspects(tmp_path / "suspects.csv", found)
    write_corrections(tmp_path / "corrections.csv", found.photos)
    with (tmp_path / "suspects.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {name: row[name] for name in ("path", "label", "likely")} == {"path": "grün/photo 2.jpg", "label": "grün", "likely": "red"}
    assert {"probability_label", "probability_likely", "score"} < set(row)
    without = scan(folder, exclude=tmp_path / "suspects.csv")
    assert len(without) == len(table) - 1
    assert "grün/photo 2.jpg" not in {photo.path for photo in without.photos}
    corrected = {photo.path: photo.label for photo in scan(folder, corrections=tmp_path / "corrections.csv").photos}
    assert corrected == {photo.path: photo.label for photo in table.photos} | {"grün/photo 2.jpg": "red"}
    unedited = scan(folder, corrections=tmp_path / "suspects.csv")
    assert [photo.label for photo in unedited.photos] == [photo.label for photo in table.photos], "its labels are the given ones"
