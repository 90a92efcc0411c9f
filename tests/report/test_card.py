"""The model card: metadata that reads back, figures that are metrics.json's, names that stay what they are, nothing private."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from report_tools import MakeRun

from headstart.data.named import cifar10_folder
from headstart.errors import DataError
from headstart.report.card import markdown, write_card

HOSTILE = [
    "<script>alert(1)</script>",
    '"quo\'ted": & co',
    "new\nline",
    "| a | b |",
    "![x](http://host/p.png)",
    "\u202edetrever",
    "{{ 7 * 7 }}",
    "---",
    "# loud",
    "'single: [1, 2]",
]


def metadata(card: Path) -> dict[str, Any]:
    """What stands above the card, read as YAML."""
    _, head, _ = card.read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    return found


def test_metadata_is_what_hugging_face_reads(make_run: MakeRun) -> None:
    folder = make_run(run={"backbone": {"name": "resnet50", "licence": "Apache-2.0"}})
    test = json.loads((folder / "metrics.json").read_text())["test"]
    card = write_card(folder)
    assert card.name == "MODEL_CARD.md"
    data = ModelCard.load(card).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "headstart", "image-classification")
    assert (data.datasets, data.base_model, data.license_link) == (None, None, None), "nothing is named that may not be on the Hub"
    assert data.eval_results is not None
    scores = {each.metric_type: each for each in data.eval_results}
    assert set(scores) == {"accuracy", "f1", "precision", "recall"}
    assert scores["accuracy"].metric_value == pytest.approx(test["accuracy"], abs=1e-4)
    low, high = test["accuracy_ci95"]
    assert scores["accuracy"].metric_name == f"Accuracy (95 % interval {low:.4f} to {high:.4f})"
    assert (scores["f1"].dataset_name, scores["f1"].dataset_type, scores["f1"].dataset_split) == ("flowers", "imagefolder", "test")


def test_only_photos_that_are_certainly_a_public_data_set_are_named_as_one(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(run={"data": {"name": "cifar10", "root": str(tmp_path / "datasets" / cifar10_folder())}})
    data = ModelCard.load(write_card(folder)).data
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.eval_results is not None
    assert {(each.dataset_type, each.dataset_name) for each in data.eval_results} == {("uoft-cs/cifar10", "cifar10")}
    record = json.loads((folder / "run.json").read_text()) | {"data": {"name": "cifar10", "root": str(tmp_path / "cifar10")}}
    (folder / "run.json").write_text(json.dumps(record))
    assert ModelCard.load(write_card(folder)).data.datasets is None


def test_a_published_backbone_is_the_base_model_and_its_page_holds_the_terms(make_run: MakeRun) -> None:
    backbone = {"name": "fastvit_t8.apple_in1k", "hub_id": "timm/fastvit_t8.apple_in1k", "licence": "fastvit-license"}
    data = ModelCard.load(write_card(make_run(run={"backbone": backbone}))).data
    assert data.base_model == "timm/fastvit_t8.apple_in1k"
    assert (data.license, data.license_name) == ("other", "fastvit-license")
    assert data.license_link == "https://huggingface.co/timm/fastvit_t8.apple_in1k"


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("apache-2.0", ("apache-2.0", None)),
        ("MIT", ("mit", None)),
        ("MIT (photos: research use)", ("other", "mit-photos-research-use")),
        ("unknown", ("unknown", None)),
        (None, ("unknown", None)),
    ],
)
def test_licences_go_by_hugging_faces_names_where_they_have_one(
    make_run: MakeRun, licence: str | None, expected: tuple[str, str | None]
) -> None:
    found = metadata(write_card(make_run(run={"backbone": {"licence": licence}})))
    assert (found["license"], found.get("license_name")) == expected


def test_hostile_names_stay_text_in_both_languages(make_run: MakeRun) -> None:
    run = {"name": HOSTILE[1], "data": {"name": HOSTILE[7] + "\n" + HOSTILE[9], "classes": HOSTILE}, "backbone": {"licence": "a: b\n---\n"}}
    card = write_card(make_run(HOSTILE, 80, run=run))
    found = metadata(card)
    assert found["model-index"][0]["name"] == HOSTILE[1]
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == r"---\n'single: [1, 2]"
    text = card.read_text(encoding="utf-8")
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert "\u202e" not in text
    assert not re.search(r"(?<!\\)\]\(", body), "no link"
    assert r"{{ 7 \* 7 }}" in body
    for line in body.splitlines():
        if line.startswith("|") and "test photos" not in line and "---|" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 9), "the columns of the table are its own"
    assert not re.search(r"(?m)^# loud", body)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_markdown_of_a_name_has_no_sign_left_to_obey(name: str) -> None:
    shown = markdown(name)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|~$#@!]", shown)
    assert "<" not in shown
    assert "://" not in shown


def test_nothing_of_the_machine_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(photos=True, run={"command": "headstart train /home/me/secret", "config": {"data": "/home/me/secret"}})
    (folder / "checks.json").write_text(
        json.dumps({"suspects": {"n": 1, "n_checked": 9, "photos": [{"path": "me/at home.jpg", "label": "daisy", "likely": "roses"}]}})
    )
    text = write_card(folder).read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "secret" not in text
    assert ".jpg" not in text.replace("photo.jpg", "")
    assert "1 label of 9 looked at may be wrong." in text


def test_warnings_of_the_checks_are_limits(make_run: MakeRun) -> None:
    folder = make_run()
    shortcut = {
        "name": "size",
        "words": "size",
        "accuracy": 0.6,
        "accuracy_ci95": [0.5, 0.7],
        "baseline": 0.3,
        "warning": "Size tells it all.",
    }
    (folder / "checks.json").write_text(
        json.dumps({"shortcuts": [shortcut], "duplicates": {"n_exact": 1, "n_photos": 2, "across_splits": 1, "across_test": 1}})
    )
    text = write_card(folder).read_text(encoding="utf-8")
    assert "Size tells it all." in text.split("## Limits")[1]
    assert "1 group lies on both sides of the split: the classifier has seen" in text.split("## Data")[1].split("## Figures")[0]


def test_a_run_without_scores_has_a_card_that_claims_nothing(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "metrics.json").unlink()
    card = write_card(folder)
    assert "model-index" not in metadata(card)
    assert "It was not tested" in card.read_text(encoding="utf-8")
    (folder / "run.json").unlink()
    with pytest.raises(DataError, match=r"neither run\.json nor metrics\.json"):
        write_card(folder)


def test_the_same_run_gives_the_same_card(make_run: MakeRun) -> None:
    folder = make_run()
    assert write_card(folder).read_bytes() == write_card(folder).read_bytes()
