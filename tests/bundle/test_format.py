import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.bundle.format import load_bundle
from headstart.bundle.record import Label, LabelSets, NoneOfThese, digest, read_record
from headstart.errors import BundleError


def change(folder: Path, edit: Callable[[dict[str, Any]], Any], *, sign: bool = True) -> None:
    """Edit bundle.json as a stranger would who also knows how to sign it."""
    file = folder / "bundle.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    edit(values)
    if sign:
        values["digest"] = digest(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def set_to(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return edit


def test_what_was_saved_is_what_is_loaded(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.labels == (Label("tabby", "n02123045"), Label("café au lait"), Label("a\nb,c", "n1"))
    assert (bundle.temperature, bundle.thresholds, bundle.licence) == (1.5, {"tabby": 0.5}, "MIT")
    assert bundle.preprocessing.input_px == 32
    assert bundle.provenance == {"backbone": {"name": "tiny"}}
    assert bundle.tail_file == folder / "tail.safetensors"
    assert bundle.record.golden.logits.shape == (4, 3)
    assert read_record(json.dumps(bundle.record.to_json()).encode()).to_json() == bundle.record.to_json()


def test_a_run_folder_leads_to_its_model(folder: Path) -> None:
    assert load_bundle(folder.parent).folder == folder
    assert load_bundle(str(folder.parent)).folder == folder


def test_a_bundle_may_move(folder: Path) -> None:
    assert load_bundle(shutil.move(folder, folder.with_name("elsewhere"))).labels[0].name == "tabby"


@pytest.mark.parametrize("name", ["model.onnx", "tail.safetensors"])
@pytest.mark.parametrize("where", [0, 0.25, 0.5, 0.75, 1])
def test_a_changed_byte_is_refused(folder: Path, name: str, where: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(where * (len(content) - 1))] ^= 0x20
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"model: {name} was changed or damaged: expected sha256 \w+\.\.\., found") as caught:
        load_bundle(folder)
    assert caught.value.hint == "copy or export the model again"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_of_the_record_is_refused_unless_it_means_the_same(folder: Path, at: int, flip: int) -> None:
    original = (folder / "bundle.json").read_bytes()
    content = bytearray(original)
    content[at % len(content)] ^= flip
    try:
        record = read_record(bytes(content))
    except BundleError:
        return
    assert record.to_json() == read_record(original).to_json()  # a blank for another blank


@pytest.mark.parametrize("name", ["model.onnx", "tail.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(folder)


def test_a_file_cut_short_is_refused(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=r"model\.onnx was changed or damaged"):
        load_bundle(folder)


def test_a_newer_format_asks_for_an_upgrade(folder: Path) -> None:
    change(folder, lambda values: values.update(format=4, something_new=1))
    with pytest.raises(BundleError, match="the model is of format 4, this headstart reads up to 3") as caught:
        load_bundle(folder)
    assert caught.value.hint == "pip install --upgrade headstart"


def as_format_1(values: dict[str, Any]) -> None:
    values["format"] = 1
    del values["none_of_these"], values["conformal"], values["network"]


def as_format_2(values: dict[str, Any]) -> None:
    values["format"] = 2
    del values["network"]


def test_a_bundle_of_format_2_is_fp32_and_may_be_computed_in_either_precision(folder: Path) -> None:
    change(folder, as_format_2)
    record = load_bundle(folder).record
    assert (record.precision, record.computed_in, record.network_file) == ("fp32", ("fp32", "bf16"), "model.onnx")


def test_a_bundle_of_format_1_still_reads_and_says_neither(folder: Path) -> None:
    change(folder, as_format_1)
    bundle = load_bundle(folder)
    assert (bundle.none_of_these, bundle.conformal, bundle.temperature) == (None, None, 1.5)
    assert bundle.record.to_json()["format"] == 3
    change(folder, as_format_1_with("conformal"))
    with pytest.raises(BundleError, match=r"missing fields \[\], unknown fields \['conformal'\]"):
        load_bundle(folder)


def as_format_1_with(key: str) -> Callable[[dict[str, Any]], None]:
    def edit(values: dict[str, Any]) -> None:
        values[key] = None

    return edit


def test_format_2_without_its_fields_is_refused(folder: Path) -> None:
    change(folder, lambda values: values.pop("none_of_these"))
    with pytest.raises(BundleError, match=r"missing fields \['none_of_these'\], unknown fields \[\]"):
        load_bundle(folder)


def test_what_it_says_of_the_unknown_is_read_back(folder: Path) -> None:
    kept = {"none_of_these": {"score": "energy", "threshold": -3, "false_alarms": 0.05, "detection": None}}
    change(folder, lambda values: values.update(kept, conformal={"coverage": 0.9, "threshold": 1}))
    bundle = load_bundle(folder)
    assert bundle.none_of_these == NoneOfThese(-3.0, 0.05)
    assert bundle.conformal == LabelSets(0.9, 1.0)
    assert read_record(json.dumps(bundle.record.to_json()).encode()).none_of_these == NoneOfThese(-3.0, 0.05)


def test_an_edit_by_hand_is_refused(folder: Path) -> None:
    change(folder, set_to("labels", 0, "name", value="tiger"), sign=False)
    with pytest.raises(BundleError, match="was changed or damaged since it was written: its digest does not fit"):
        load_bundle(folder)


BAD_FIELDS = [
    (("format",), 0, "'format' to be a whole number from 1 on, found 0"),
    (("format",), True, "'format' to be a whole number from 1 on, found True"),
    (("format",), "1", "'format' to be a whole number from 1 on, found '1'"),
    (("labels",), [], "'labels' to be a list of labels"),
    (("labels",), {"0": "cat"}, "'labels' to be a list of labels"),
    (("labels", 1), "cat", "expected label 1 to have a 'name' and an 'id'"),
    (("labels", 1, "name"), 7, "expected label 1"),
    (("labels", 1, "name"), "", "expected label 1"),
    (("labels", 1, "name"), "\ud800", "expected label 1"),
    (("labels", 1, "id"), 7, "expected label 1"),
    (("labels", 1), {"name": "tabby", "id": "n02123045"}, "a label comes twice"),
    (("temperature",), 0, "'temperature' to be a number over 0, found 0"),
    (("temperature",), "1", "'temperature' to be a number over 0, found '1'"),
    (("temperature",), True, "'temperature' to be a number over 0, found True"),
    (("temperature",), 10**400, "'temperature' to be a number over 0, found 1000"),
    (("thresholds",), {"tabby": 1.5}, "'thresholds' to be an object of probabilities"),
    (("thresholds",), {"lion": 0.5}, r"'thresholds' names unknown labels: \['lion'\]"),
    (("licence",), ["MIT"], "'licence' to be text or null"),
    (("decoder",), None, "'decoder' to be text, found None"),
    (("provenance",), [], "'provenance' to be an object"),
    (("files",), {}, "'files' to be an object of sha256 by file, among them model.onnx"),
    (("files", "../../evil"), "0" * 64, "'files' to be an object of sha256"),
    (("files", "model.onnx"), "0", "'files' to be an object of sha256"),
    (("preprocessing",), {}, "'preprocessing' to have input_px, crop, interpolation, mean, std, found"),
    (("preprocessing", "input_px"), 0, "'preprocessing.input_px' to be a whole number of 1 to 4096, found 0"),
    (("preprocessing", "input_px"), 10**9, "'preprocessing.input_px' to be a whole number"),
    (("preprocessing", "input_px"), 32.5, "'preprocessing.input_px' to be a whole number"),
    (("preprocessing", "crop"), 1e-9, "'preprocessing.crop' to be a number over 0.01"),
    (("preprocessing", "crop"), 2, "'preprocessing' cannot be used: expected a crop over 0 and up to 1"),
    (("preprocessing", "interpolation"), "best", "'preprocessing' cannot be used: expected an interpolation of"),
    (("preprocessing", "mean"), [0.5, 0.5], "'preprocessing.mean' to be three numbers"),
    (("preprocessing", "std"), [0.5, 0.5, 0], "'preprocessing' cannot be used"),
    (("golden",), {}, "'golden' to have 'decoder_digest' and 'logits'"),
    (("golden", "logits"), [[1, 2]], "'golden.logits' to be rows of 3 numbers"),
    (("golden", "logits"), [[1, 2, "3"]], "'golden.logits' to be rows of 3 numbers"),
    (("golden", "decoder_digest"), "0" * 64, "the model was made with other rules for reading pictures"),
    *[
        (("none_of_these",), {"score": "energy", "threshold": -3.5, "false_alarms": 0.05, "detection": 0.4, **wrong}, text)
        for wrong, text in [
            ({"score": "nearest"}, "'none_of_these.score' to be 'energy', found 'nearest'"),
            ({"score": ["energy"]}, "'none_of_these.score' to be 'energy'"),
            ({"threshold": None}, "'none_of_these.threshold' to be a number, found None"),
            ({"threshold": True}, "'none_of_these.threshold' to be a number, found True"),
            ({"threshold": -(10**400)}, "'none_of_these.threshold' to be a number, found -1000"),
            ({"false_alarms": 0}, "'none_of_these.false_alarms' to be a number over 0 and under 1, found 0"),
            ({"false_alarms": "0.05"}, "'none_of_these.false_alarms' to be a number over 0"),
            ({"detection": 1.01}, "'none_of_these.detection' to be a number of 0 to 1, or null, found 1.01"),
            ({"detection": [0.4]}, "'none_of_these.detection' to be a number of 0 to 1, or null"),
            ({"more": 1}, "'none_of_these' to have score, threshold, false_alarms, detection, found"),
        ]
    ],
    (("none_of_these",), {}, r"'none_of_these' to have score, threshold, false_alarms, detection, found \[\]"),
    (("none_of_these",), -3.5, r"'none_of_these' to have score, threshold, false_alarms, detection, found -3.5"),
    (("conformal",), {"coverage": 1, "threshold": 0.1}, "'conformal.coverage' to be a number over 0 and under 1, found 1"),
    (("conformal",), {"coverage": 0.9, "threshold": -0.1}, "'conformal.threshold' to be a number of 0 to 1, found -0.1"),
    (("conformal",), {"coverage": 0.9, "threshold": True}, "'conformal.threshold' to be a number of 0 to 1, found True"),
    (("conformal",), {"coverage": 0.9}, r"'conformal' to have coverage, threshold, found \['coverage'\]"),
    (("conformal",), [], r"'conformal' to have coverage, threshold, found \[\]"),
    (("surprise",), 1, r"missing fields \[\], unknown fields \['surprise'\]"),
]


@pytest.mark.parametrize(("keys", "value", "text"), BAD_FIELDS)
def test_every_field_is_checked_even_where_the_digest_fits(folder: Path, keys: tuple[str | int, ...], value: Any, text: str) -> None:
    change(folder, set_to(*keys, value=value))
    with pytest.raises(BundleError, match=text) as caught:
        load_bundle(folder)
    assert str(folder) in caught.value.message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "bundle.json is damaged"),
        (b"\xff\xfe{}", "bundle.json is damaged"),
        (b"not json", "bundle.json is damaged"),
        (b'{"format": 1', "bundle.json is damaged"),
        (b"[" * 100_000, "bundle.json is damaged"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b'{"format": 1, "format": 1}', "a key comes twice"),
        (b'{"format": ' + b"9" * 5000 + b"}", "bundle.json is damaged"),
        (b"[1]", r"expected an object, found \[1\]"),
        (b"{}", "expected 'format' to be a whole number from 1 on, found None"),
        (b'{"format": 1}', r"missing fields \['decoder'"),
    ],
)
def test_hostile_json_is_one_clear_error(folder: Path, content: bytes, text: str) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=text):
        load_bundle(folder)


def test_a_number_beyond_all_numbers_does_not_pass_as_signed(folder: Path) -> None:
    text = (folder / "bundle.json").read_text(encoding="utf-8").replace('"temperature": 1.5', '"temperature": 1e999')
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="its digest does not fit"):
        load_bundle(folder)


def test_an_enormous_record_is_not_read(folder: Path) -> None:
    os.truncate(folder / "bundle.json", 2**30)  # sparse: takes no room
    with pytest.raises(BundleError, match=r"bundle.json has 1.0 GiB, at most 64.0 MiB are read"):
        load_bundle(folder)


def swap_network(folder: Path, content: bytes) -> None:
    import hashlib

    (folder / "model.onnx").write_bytes(content)
    change(folder, set_to("files", "model.onnx", value=hashlib.sha256(content).hexdigest()))


def test_a_network_that_reads_other_files_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/passwd")
    swap_network(folder, model.SerializeToString())
    with pytest.raises(BundleError, match=r"model.onnx takes weights from other files on this machine") as caught:
        load_bundle(folder)
    assert "do not use it" in str(caught.value.hint)


def test_what_is_no_network_is_refused(folder: Path) -> None:
    swap_network(folder, b"\x80\x04pickle")
    with pytest.raises(BundleError, match=r"model.onnx is no ONNX file"):
        load_bundle(folder)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model at .*nowhere: there is nothing of that name"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no model at .*: it has no bundle\.json") as caught:
        load_bundle(tmp_path)
    assert "headstart train --out" in str(caught.value.hint)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BundleError, match=r"the run in .* has no model yet"):
        load_bundle(tmp_path)
