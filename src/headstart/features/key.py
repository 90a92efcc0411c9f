"""What decides a stored value: every input that can change it, and nothing else.

A `Spec` names a *space* of the store: all of a row's ingredients but the photo. A row within it is named by the photo's
content and the number of the view. So a moved or renamed photo costs nothing, and one new photo costs one row.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Changes when the files of docs/formats.md change; part of the digest, so that two versions never share a folder.
FORMAT = 1

# Bytes a value.
DTYPES = {"float16": 2, "float32": 4, "uint8": 1}

RowKey = tuple[str, int]
"""sha256 of the photo's bytes (hex), and the number of the view (0 is the centre view)."""


@dataclass(frozen=True)
class Spec:
    """A space of the store. At cut `input` no network is involved: its fields are empty and all networks share the pixels."""

    decoder: str
    """Decoder, its version and the image library's version."""
    preprocessing: Mapping[str, Any] = field(hash=False)
    """Plain JSON values: input side in pixels, crop, interpolation, mean, std."""
    network: str
    """The network's name, tag included."""
    weights_sha256: str
    """Digest of the weights file (hex)."""
    cut: str
    """Stage after which the rows were taken, or `input`."""
    stop: str | None
    """Last stage used, or None for the whole network."""
    view_policy: str
    """How views other than the centre view are made."""
    dtype: str
    """`float16`, `float32` or `uint8`."""
    engine: str
    """What ran the trunk, and its version."""
    precision: str
    """Arithmetic of the trunk: `fp32`, `bf16`."""
    row_shape: tuple[int | None, ...]
    """Shape of one row; None where each row has its own size."""
    network_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments the network was built with, as plain JSON values."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"expected one of {', '.join(DTYPES)} as a store's dtype, found {self.dtype!r}")
        if any(size is not None and size < 1 for size in self.row_shape):
            raise ValueError(f"expected sizes of at least 1 in a store's row_shape, found {self.row_shape}")
        for name in ("preprocessing", "network_args"):  # copies: a caller's later change must not change the key
            plain = json.loads(_canonical(dict(getattr(self, name))))
            object.__setattr__(self, name, MappingProxyType(plain))
        object.__setattr__(self, "row_shape", tuple(self.row_shape))

    @property
    def ragged(self) -> bool:
        """Whether each row has a shape of its own."""
        return None in self.row_shape

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row; None where each row has a size of its own."""
        if self.ragged:
            return None
        return math.prod(size for size in self.row_shape if size is not None) * DTYPES[self.dtype]

    def with_dtype(self, dtype: str) -> "Spec":
        """The same values, stored as `dtype`."""
        return dataclasses.replace(self, dtype=dtype)

    def to_json(self) -> dict[str, Any]:
        """Plain values, one key for each field."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps({k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}))
        return plain

    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON of all fields: the same in every process and on every machine."""
        return hashlib.sha256(_canonical({"format": FORMAT} | self.to_json()).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
