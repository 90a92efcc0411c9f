import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headstart.bundle.onnx_file import MalformedError, _any_external, has_external_data


def external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    return tensor


def inside() -> TensorProto:
    return numpy_helper.from_array(np.arange(1000, dtype=np.float32), "w")


def model(*nodes: onnx.NodeProto, weights: list[TensorProto] | None = None) -> onnx.ModelProto:
    return helper.make_model(graph(*nodes, weights=weights))


def graph(*nodes: onnx.NodeProto, weights: list[TensorProto] | None = None) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], initializer=[] if weights is None else weights)


def in_a_function() -> onnx.ModelProto:
    made = model(weights=[inside()])
    node = helper.make_node("Constant", [], ["c"], value=external())
    made.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 18)]))
    return made


def sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.append(onnx.SparseTensorProto(values=external(), indices=inside(), dims=[5]))
    return made


HIDDEN = {
    "a weight": model(weights=[inside(), external()]),
    "a constant": model(helper.make_node("Constant", [], ["c"], value=external())),
    "a list of constants": model(helper.make_node("Own", [], ["c"], values=[inside(), external()])),
    "a branch": model(helper.make_node("If", ["x"], ["y"], then_branch=graph(weights=[external()]), else_branch=graph())),
    "a list of graphs": model(helper.make_node("Own", [], ["y"], graphs=[graph(), graph(weights=[external()])])),
    "a function": in_a_function(),
    "a sparse weight": sparse(),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_weights_in_other_files_are_found_wherever_a_graph_can_hold_them(where: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(HIDDEN[where].SerializeToString())
    assert has_external_data(tmp_path / "net.onnx")


def test_a_location_without_the_external_flag_is_found_too(tmp_path: Path) -> None:
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    (tmp_path / "net.onnx").write_bytes(model(weights=[tensor]).SerializeToString())
    assert has_external_data(tmp_path / "net.onnx")


def test_a_file_with_its_weights_inside_has_none(tmp_path: Path) -> None:
    made = model(helper.make_node("Constant", [], ["c"], value=inside()), weights=[inside()])
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    assert not has_external_data(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"\xff" * 20, "a number does not end"),
        (b"\x3a\x7f", "127 bytes expected at byte 2, 0 are left"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x38\x01", "field 7 of a model is not a message"),
        (b"\x02\x00", "no field has the tag 2"),
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(MalformedError, match=text):
        has_external_data(tmp_path / "net.onnx")


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    nested = b""
    for _ in range(60):  # graph > node > attribute > graph > ...
        for tag in (0x32, 0x2A, 0x0A):
            nested = bytes([tag]) + _varint(len(nested)) + nested
    (tmp_path / "net.onnx").write_bytes(b"\x3a" + _varint(len(nested)) + nested)
    with pytest.raises(MalformedError, match="more than 100 deep"):
        has_external_data(tmp_path / "net.onnx")


def test_a_graph_behind_a_tag_of_more_than_32_bits_is_refused(tmp_path: Path) -> None:
    hidden = graph(weights=[external()]).SerializeToString()
    tag = (7 << 3 | 2) | 1 << 32  # Protocol Buffers in C++ read the lower 32 bits: field 7, the graph
    (tmp_path / "net.onnx").write_bytes(_varint(tag) + _varint(len(hidden)) + hidden)
    with pytest.raises(MalformedError, match=f"no field has the tag {tag}"):
        has_external_data(tmp_path / "net.onnx")


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_cause_another_error(content: bytes) -> None:
    with contextlib.suppress(MalformedError):
        _any_external(content, 0, len(content), "model", 0)
