"""Weights in a few bits each: every number of a tensor is one of its 2**bits levels times its channel's scale.

A tensor `x` of more than one dimension is stored as `x.codes`, uint8, the positions of its numbers in the levels one behind the other,
each in `bits` bits (lowest bit first, the last byte filled up with zeros); `x.levels`, float32 [2**bits], at most 256; `x.scale`,
float32, one for each entry of its first dimension; `x.shape`, int64. pretrain/export.py writes it.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

ENDINGS = CODES, LEVELS, SCALE, SHAPE = ".codes", ".levels", ".scale", ".shape"


def unpacked(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The same with every packed tensor as float32 under its own name; unchanged where none is packed."""
    import torch

    names = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
    if any(name + ending not in tensors for name in names for ending in ENDINGS):
        return tensors
    found = {}
    for name in names:
        shape, levels = tensors[name + SHAPE].tolist(), tensors[name + LEVELS].float()
        bits = len(levels).bit_length() - 1
        positions = _positions(tensors[name + CODES].numpy(), bits)[: int(np.prod(shape))]
        scale = tensors[name + SCALE].float()
        found[name] = levels[torch.from_numpy(positions)].view(shape) * scale.view(-1, *[1] * (len(shape) - 1))
    mine = {name + ending for name in names for ending in ENDINGS}
    return {name: tensor for name, tensor in tensors.items() if name not in mine} | found


def _positions(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int32]:
    """Eight positions, which fill `bits` bytes, at a time: bit by bit takes five times as long."""
    rows = np.zeros((-(-len(codes) // bits), 8), np.uint8)
    filled = np.zeros(len(rows) * bits, np.uint8)
    filled[: len(codes)] = codes
    rows[:, :bits] = filled.reshape(-1, bits)
    words: npt.NDArray[np.uint64] = rows.view("<u8")
    shifts = bits * np.arange(8, dtype=np.uint64)
    positions: npt.NDArray[np.int32] = ((words >> shifts) & np.uint64(2**bits - 1)).astype(np.int32)
    return positions.reshape(-1)
