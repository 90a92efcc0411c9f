"""A look into an ONNX file before a runtime gets it: a stranger's graph may name other files on this machine as its weights.

ONNX is a Protocol Buffers message. Only the few fields that lead to tensors are followed, weights themselves are skipped over,
so that 100 MB cost milliseconds and predicting needs no ONNX library.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers), https://protobuf.dev/programming-guides/encoding/
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

Buffer = bytes | mmap.mmap

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 100  # messages within messages; Protocol Buffers' own limit

# Message -> field number -> message in it. All that can hold a tensor.
_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor


class MalformedError(ValueError):
    """Not an ONNX file."""


def has_external_data(path: Path) -> bool:
    """Whether any tensor of the file lies in another file. Raises: MalformedError: this is no ONNX file."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise MalformedError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _any_external(data, 0, len(data), "model", 0)


def _any_external(data: Buffer, start: int, end: int, message: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise MalformedError(f"messages lie more than {_DEEPEST} deep in each other")
    for number, kind, value, stop in _fields(data, start, end):
        if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            return True
        child = _CHILDREN[message].get(number)
        if child is None:
            continue
        if kind != _BYTES:
            raise MalformedError(f"field {number} of a {message} is not a message")
        if _any_external(data, value, stop, child, depth + 1):
            return True
    return False


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, value or where its bytes start, where they stop) of each field of one message."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if tag >= 2**32 or number == 0:  # runtimes drop the upper bits, and would see another field here
            raise MalformedError(f"no field has the tag {tag}, found before byte {at}")
        if kind == _VARINT:
            value, at = _varint(data, at, end)
            yield number, kind, value, at
            continue
        if kind == _BYTES:
            length, at = _varint(data, at, end)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise MalformedError(f"unknown wire type {kind} at byte {at}")
        if length > end - at:
            raise MalformedError(f"{length} bytes expected at byte {at}, {end - at} are left")
        yield number, kind, at, at + length
        at += length


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError(f"a number does not end by byte {at}")
