"""The store's key: every ingredient changes it, nothing else does."""

import dataclasses
import json
import subprocess
import sys

import pytest

from headstart.features.key import Spec

SPEC = Spec(
    decoder="pillow 11.3 / 1",
    preprocessing={"input_px": 224, "crop": 0.875, "interpolation": "bicubic", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    network="resnet50.a1_in1k",
    weights_sha256="ab" * 32,
    cut="layer3",
    stop="layer4",
    view_policy="flip",
    dtype="float16",
    engine="openvino 2025.3",
    precision="bf16",
    row_shape=(1024, 14, 14),
    network_args={"output_stride": 32},
)

OTHER = {
    "decoder": "pillow 11.4 / 1",
    "preprocessing": {**SPEC.preprocessing, "input_px": 225},
    "network": "resnet50.a2_in1k",
    "weights_sha256": "ac" * 32,
    "cut": "layer2",
    "stop": None,
    "view_policy": "none",
    "dtype": "float32",
    "engine": "torch 2.8",
    "precision": "fp32",
    "row_shape": (1024, 14, 15),
    "network_args": {"output_stride": 16},
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Spec)])
def test_every_ingredient_changes_the_digest(name: str) -> None:
    assert dataclasses.replace(SPEC, **{name: OTHER[name]}).digest() != SPEC.digest()


@pytest.mark.parametrize("name", list(SPEC.preprocessing))
def test_every_step_of_the_preprocessing_changes_the_digest(name: str) -> None:
    without = {key: value for key, value in SPEC.preprocessing.items() if key != name}
    assert dataclasses.replace(SPEC, preprocessing=without).digest() != SPEC.digest()


def test_all_single_changes_give_different_digests() -> None:
    digests = {dataclasses.replace(SPEC, **{name: value}).digest() for name, value in OTHER.items()}
    assert len(digests) == len(OTHER)


def test_equal_specs_have_equal_digests_in_another_process() -> None:
    code = f"from headstart.features.key import Spec; import json; print(Spec(**json.loads({json.dumps(SPEC.to_json())!r})).digest())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert told.stdout.strip() == SPEC.digest()


def test_the_order_of_preprocessing_keys_and_lists_for_tuples_do_not_matter() -> None:
    turned = {key: list(v) if isinstance(v, tuple) else v for key, v in reversed(SPEC.preprocessing.items())}
    again = dataclasses.replace(SPEC, preprocessing=turned, row_shape=[1024, 14, 14])
    assert again == SPEC
    assert again.digest() == SPEC.digest()
    assert hash(again) == hash(SPEC)


def test_a_change_of_the_given_dictionary_does_not_change_the_spec() -> None:
    given = {"input_px": 224}
    spec = dataclasses.replace(SPEC, preprocessing=given)
    before = spec.digest()
    given["input_px"] = 32
    assert spec.digest() == before


def test_row_bytes_count_the_dtype() -> None:
    assert SPEC.row_bytes == 1024 * 14 * 14 * 2
    assert SPEC.with_dtype("float32").row_bytes == 1024 * 14 * 14 * 4
    assert dataclasses.replace(SPEC, row_shape=(None, None, 3)).row_bytes is None


def test_a_dtype_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float16, float32, uint8.*'bfloat16'"):
        SPEC.with_dtype("bfloat16")
    with pytest.raises(ValueError, match=r"at least 1.*\(0, 3\)"):
        dataclasses.replace(SPEC, row_shape=(0, 3))
