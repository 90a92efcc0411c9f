"""The story of fine-tuning, on the page and on the terminal: verdict, cost, what was kept, curves, phases, and the views of a photo."""

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_tools import Browser, MakeRun, text_of, write_csv

from headstart.cli.show import show_tuning
from headstart.config import Config, Phase
from headstart.report import tuning
from headstart.report.build import write_report

MakeTuned = Callable[..., Path]

PROBE, TUNED = {"val_accuracy": 0.9133, "val_loss": 0.2711}, {"val_accuracy": 0.9467, "val_loss": 0.1804}
PAYS: dict[str, Any] = {
    "verdict": "pays",
    "why": ["the head alone leaves 8.7 % to win"],
    "estimate_minutes": 9.1,
    "minutes": 10.9,
    "probe": PROBE,
    "tuned": TUNED,
    "average": None,
    "kept": "tuned",
    "phases": [
        {"cut": "layer3", "px": 32, "epochs": 3, "recomputed": True, "store_bytes": 3 * 2**20},
        {"cut": "input", "px": 32, "epochs": 4, "recomputed": False, "store_bytes": 5 * 2**20},
    ],
}
NOT_TRIED = PAYS | {
    "verdict": "not tried",
    "why": ["it would take longer than the budget"],
    "estimate_minutes": 24.0,
    "minutes": 0.0,
    "tuned": None,
    "kept": "probe",
    "phases": [],
}
PHASES = (
    Phase(cut="top 2", epochs=3, rate=1e-3, augment="crop-flip", views=3),
    Phase(cut="input", epochs=6, rate=1e-5, augment="flip, rotate 15", px=32, mixup=0.2),
)
HEADER = ["phase", "epoch", "rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds", "images_per_s"]
HISTORY: list[list[Any]] = [
    *(["layer3", i, 1e-3, 1 / i, 0.8, loss, 0.85, 30.0, 20.0] for i, loss in ((1, 0.9), (2, 0.6), (3, 0.7))),
    *(["input", i, 1e-5, 0.3, 0.9, 0.5 - i / 100, 0.9, 60.0, 10.0] for i in (1, 2, 3, 4)),
]


@pytest.fixture
def make_tuned(make_run: MakeRun, tmp_path: Path) -> MakeTuned:
    """A run folder with `tuning`, a history, training photos and the model's record: `make_tuned(tuning, phases, history, tune=...)`."""

    def make(
        told: dict[str, Any] = PAYS, phases: tuple[Phase, ...] = PHASES, history: list[list[Any]] | None = None, **config: Any
    ) -> Path:
        resolved = {**Config().to_json(), "px": 64, "phases": [dataclasses.asdict(phase) for phase in phases], **config}
        folder = make_run(run={"tuning": told, "config": resolved})
        write_csv(folder / "history.csv", HEADER, HISTORY if history is None else history)
        rows, rng = [], np.random.default_rng(5)
        (tmp_path / "photos").mkdir()
        for i in range(3):
            file = tmp_path / "photos" / f"train {i}.png"
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file)
            rows.append([file.name, "daisy", "train", "", hashlib.sha256(file.read_bytes()).hexdigest()])
        write_csv(folder / "split.csv", ["path", "label", "split", "group", "sha256"], rows)
        (folder / "model").mkdir()
        recipe = {"input_px": 64, "crop": 1.0, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
        (folder / "model" / "bundle.json").write_text(json.dumps({"preprocessing": recipe}))
        return folder

    return make


def test_a_trial_that_paid_is_told_with_its_numbers(make_tuned: MakeTuned) -> None:
    page = write_report(make_tuned())
    words = text_of(page, "tuning")
    assert "Fine-tuning pays here The fine-tuned network was kept. The trial took 11 minutes (expected: 9.1 minutes)." in words
    assert "The head alone leaves 8.7 % to win." in words
    assert "head alone 91.3 0.271 fine-tuned kept 94.7 0.180" in words
    assert "--budget 15m" in words, "three times the budget of 5m"
    assert "Fine-tuning pays · kept: fine-tuned" in text_of(page)


def test_an_average_says_how_much_of_it_is_fine_tuned(make_tuned: MakeTuned) -> None:
    words = text_of(write_report(make_tuned(PAYS | {"kept": "average", "average": 0.25})), "tuning")
    assert "An average of the weights before and after fine-tuning was kept, 25 % of it fine-tuned." in words


def test_scores_carry_their_intervals_where_the_photos_are_counted(make_tuned: MakeTuned, capsys: pytest.CaptureFixture[str]) -> None:
    told = PAYS | {"n_val": 150}
    assert "head alone 91.3 86–95 0.271 fine-tuned kept 94.7 90–97 0.180" in text_of(write_report(make_tuned(told)), "tuning")
    show_tuning({"tuning": told})
    assert "fine-tuned 94.7 % (95 %: 90 to 97, loss 0.180), kept" in capsys.readouterr().out


def test_a_trial_that_broke_off_is_called_given_up(make_tuned: MakeTuned) -> None:
    told = PAYS | {"tuned": None, "probe": None, "kept": "probe", "phases": [], "given_up": "training diverged in epoch 2"}
    words = text_of(write_report(make_tuned(told, (), [])), "tuning")
    assert words.startswith(
        "Fine-tuning was given up It was given up after 11 minutes: training diverged in epoch 2. The classifier is the head alone"
    )
    assert "expected" not in words
    assert "--" not in words


def test_without_val_photos_nothing_is_claimed(make_tuned: MakeTuned) -> None:
    page = write_report(make_tuned(PAYS | {"tuned": None, "probe": None}))
    words = text_of(page, "tuning")
    assert words.startswith("Fine-tuning was done The fine-tuned network was kept. There were no validation photos to judge it by.")
    assert "Right, %" not in words


def test_a_dense_head_is_neither_dropped_nor_given_up(make_tuned: MakeTuned) -> None:
    phases = [{"cut": "head", "px": 64, "epochs": 3, "recomputed": False, "store_bytes": 4096}]
    head = {"kind": "dense", "hidden": [8]}
    compared = {"probe": TUNED, "dense": PROBE, "kept": "dense", "hindsight": "did not pay"}
    told = NOT_TRIED | compared | {"minutes": 0.2, "estimate_minutes": None, "phases": phases}
    page = write_report(make_tuned(told, (Phase(cut="head", epochs=3),), HISTORY[:3], head=head))
    words = text_of(page, "tuning")
    assert words.startswith(
        "Fine-tuning was not tried The classifier is the dense head that was asked for, on frozen features. "
        "The solved head does no worse on validation photos."
    )
    assert "solved head 94.7 0.180 dense head kept 91.3 0.271" in words
    assert "--" not in words
    assert "not kept" not in text_of(page, "training")
    assert "stored, 4.0 KiB" in text_of(page, "training")


def test_an_average_is_shown_beside_the_two_it_is_made_of(make_tuned: MakeTuned) -> None:
    told = PAYS | {"kept": "average", "average": 0.5, "averaged": {"val_accuracy": 0.95, "val_loss": 0.17}}
    assert "fine-tuned 94.7 0.180 average of both kept 95.0 0.170" in text_of(write_report(make_tuned(told)), "tuning")


def test_a_trial_that_failed_says_that_it_was_expected_to_pay(make_tuned: MakeTuned) -> None:
    page = write_report(make_tuned(PAYS | {"kept": "probe"}))
    words = text_of(page, "tuning")
    assert "Fine-tuning does not pay here The head alone was kept" in words
    assert "It was expected to pay." in words
    assert "head alone kept 91.3 0.271" in words
    assert "--budget" not in words
    assert "This was tried and not kept." in text_of(page, "training")


@pytest.mark.parametrize(
    ("told", "config", "title", "option"),
    [
        (NOT_TRIED, {}, "Fine-tuning was not tried", "--budget 30m"),
        (NOT_TRIED | {"estimate_minutes": 2.0}, {}, "Fine-tuning was not tried", "--set tune=always"),
        (NOT_TRIED | {"estimate_minutes": None}, {"tune": "never"}, "Fine-tuning was not tried", "--set tune=if-it-pays"),
        (NOT_TRIED | {"verdict": "does not pay"}, {}, "Fine-tuning is unlikely to pay here", "--set tune=always"),
        (NOT_TRIED | {"verdict": "does not pay"}, {"tune": "always"}, "Fine-tuning is unlikely to pay here", "--budget 30m"),
    ],
)
def test_what_was_not_tried_says_how_to_try_it(
    make_tuned: MakeTuned, told: dict[str, Any], config: dict[str, Any], title: str, option: str
) -> None:
    page = write_report(make_tuned(told, (), [], **config))
    words = text_of(page, "tuning")
    assert words.startswith(title)
    assert "he classifier is the head alone, on frozen features." in words
    assert f"{option} , with a new folder" in words
    assert option in text_of(page).split("What to do next")[1].split("About this run")[0]


def test_phases_of_ones_own_get_no_advice_on_planning(make_tuned: MakeTuned) -> None:
    folder = make_tuned()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"asked": record["config"]}))
    assert "--budget" not in text_of(write_report(folder), "tuning")


def test_the_table_of_phases_says_what_each_did(make_tuned: MakeTuned) -> None:
    words = text_of(write_report(make_tuned()), "training")
    first = "1 layer3 32 3 epoch 2: loss 0.600, 85.0 % adamw · 0.001 · cosine crop-flip"
    rows = "recomputed every epoch from stored pixels, for which alone the store had room, 3.0 MiB"
    assert f"{first} {rows} 1.5 minutes, 20 images/s" in words
    second = "2 input 32 4 of 6 epoch 4: loss 0.460, 90.0 % adamw · 0.00001 · cosine flip, rotate 15, mixup 0.2"
    assert f"{second} pixels stored, 5.0 MiB 4.0 minutes, 10 images/s" in words


def test_curves_show_all_four_with_the_rate_and_where_phases_begin(make_tuned: MakeTuned) -> None:
    text = html.unescape(write_report(make_tuned()).read_text(encoding="utf-8"))
    assert "Loss over 7 epochs of 2 phases: validation photos end at 0.46, training photos end at 0.3." in text
    assert "Accuracy over 7 epochs of 2 phases: validation photos end at 0.9, training photos end at 0.9" in text
    assert "the head alone has 0.913 on validation photos" in text
    assert "Learning rate over 7 epochs of 2 phases: from 0.001 to 1e-05, at most 0.001." in text


def test_two_phases_at_one_cut_are_two_phases(make_tuned: MakeTuned) -> None:
    history = [["head", i, 0.1, 0.5, 0.5, 0.5, 0.5, 1.0, 9.0] for i in (1, 2, 1, 2, 3)]
    page = write_report(make_tuned(history=history))
    assert "Loss over 5 epochs of 2 phases" in page.read_text(encoding="utf-8")


def test_a_photo_is_shown_eight_times_as_the_network_saw_it(make_tuned: MakeTuned) -> None:
    page = write_report(make_tuned(PAYS | {"phases": [PAYS["phases"][0] | {"recomputed": False}, PAYS["phases"][1]]}))
    section = re.search(r'<section aria-labelledby="views">(.*?)</section>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert section is not None
    stored, fresh = re.findall(r'<ul class="views">(.*?)</ul>', section[1], flags=re.DOTALL)
    pictures = re.findall(r'src="(data:image/jpeg;base64,[^"]+)" alt="[^"]{20,}"', fresh)
    assert len(pictures) == 1 + 8
    assert len(set(pictures)) == len(pictures)
    assert max(map(len, pictures)) < 20_000
    assert stored.count("<img") == 3, "the centre view and the two others of 3 views"
    words = text_of(page, "views")
    assert "Phase 1: crop-flip An epoch takes one of 3 fixed views of each photo at 32 x 32 px" in words
    assert "Phase 2: flip, rotate 15 A new view of each photo is drawn for every epoch, at 32 x 32 px. Then mixup (alpha 0.2)" in words


def test_recomputed_rows_are_augmented_afresh(make_tuned: MakeTuned) -> None:
    words = text_of(write_report(make_tuned()), "views")
    assert "Phase 1: crop-flip A new view of each photo is drawn for every epoch" in words


def test_no_views_where_nothing_was_augmented(make_tuned: MakeTuned) -> None:
    phases = (Phase(cut="layer3", views=1), Phase(cut="input", augment="none"))
    assert 'id="views"' not in write_report(make_tuned(phases=phases)).read_text(encoding="utf-8")


def test_views_need_the_photo_as_it_was(make_tuned: MakeTuned, tmp_path: Path) -> None:
    folder = make_tuned()
    for file in (tmp_path / "photos").iterdir():
        file.write_bytes(file.read_bytes() + b"edited")
    assert "were changed, so their views cannot be shown" in text_of(write_report(folder), "views")
    (folder / "model" / "bundle.json").unlink()
    assert "holds no model" in text_of(write_report(folder), "views")


def test_an_augmentation_of_another_version_stops_nothing(make_tuned: MakeTuned) -> None:
    folder = make_tuned()
    record = json.loads((folder / "run.json").read_text())
    record["config"]["phases"][1]["augment"] = "twirl 5"
    (folder / "run.json").write_text(json.dumps(record))
    assert "cannot be made by this version of headstart" in text_of(write_report(folder), "views")


def test_a_run_without_a_word_on_fine_tuning_has_no_section_on_it(make_run: MakeRun) -> None:
    page = write_report(make_run(epochs=3))
    assert "Fine-tuning" not in text_of(page)
    assert 'id="training"' in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "told",
    [
        {"verdict": "pays"},
        {"verdict": ["pays"]},
        {"verdict": "pays", "why": "x", "probe": 3, "tuned": [1], "phases": {"cut": 1}, "minutes": "long", "kept": 7},
        PAYS | {"phases": [None, {"cut": None, "px": "big", "store_bytes": "nan"}], "why": ["", 5], "estimate_minutes": 1e300},
    ],
)
def test_damaged_records_are_survived(make_tuned: MakeTuned, told: dict[str, Any]) -> None:
    folder = make_tuned(told, budget="9" * 400 + "h")
    assert write_report(folder).stat().st_size > 1000
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"config": {"phases": 3, "budget": None}}))
    assert write_report(folder).stat().st_size > 1000


def test_the_page_with_all_of_it_keeps_its_promises(make_tuned: MakeTuned, browser: Browser) -> None:
    folder = make_tuned(PAYS | {"why": ["<script>alert(1)</script>" + "W" * 300, "new\nline"]})
    page = write_report(folder)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "http" not in text.split("</style>")[1]
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""href=["']#([^"']+)""", text)) <= set(ids)
    assert browser.content_widths(page, [360, 1280]) == {360: 360, 1280: 1280}
    assert write_report(folder).read_text(encoding="utf-8") == text


def test_words_of_configuration_stay_whole(make_tuned: MakeTuned, browser: Browser) -> None:
    page = write_report(make_tuned(weights="/a/very/long/path/" * 8 + "file.safetensors"))
    keys = re.findall(r"<dt><bdi>(weights)</bdi></dt>", page.read_text(encoding="utf-8"))
    assert keys == ["weights"]
    # The measuring page counts the lines of the cell: one line is as high as that of a short key with a short value.
    script = "const d = this.contentDocument; const h = [...d.querySelectorAll('.keys dt bdi')].filter(e => e.textContent === 'weights')"
    script += "[0].getClientRects().length; this.title = 'lines ' + h"
    assert browser.title_of(page, 360, script) == "lines 1"


def test_the_terminal_tells_the_same_story(capsys: pytest.CaptureFixture[str]) -> None:
    show_tuning({"tuning": NOT_TRIED, "config": {"budget": "5m", "tune": "if-it-pays"}})
    printed = capsys.readouterr().out
    assert printed.startswith("\nFine-tuning was not tried. The classifier is the head alone, on frozen features. On this")
    assert "machine it would take about 24 minutes." in printed
    assert "right on val: head alone 91.3 % (loss 0.271), kept\n" in printed
    assert "  It would take longer than the budget.\n" in printed
    assert "  To try it: --budget 30m\n" in printed
    show_tuning({"config": {}})
    assert capsys.readouterr().out == ""


@given(st.floats(min_value=1e-3, max_value=1e4))
def test_a_budget_holds_the_work_with_room_to_spare_and_not_far_too_much(minutes: float) -> None:
    text = tuning.budget_for(minutes)
    budget = float(text[:-1]) * {"m": 1, "h": 60}[text[-1]]
    assert budget >= 1.25 * minutes
    assert budget <= max(1.0, 3.2 * minutes)
