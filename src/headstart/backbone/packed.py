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
        shape, levels = tensors[name + SHAPE].tolist(), tensors[name + LEVELS].float().numpy()
        positions = _positions(tensors[name + CODES].numpy(), len(levels).bit_length() - 1)[: int(np.prod(shape))]
        rows = levels[positions].reshape(shape[0], -1)
        rows *= tensors[name + SCALE].float().numpy()[:, None]
        found[name] = torch.from_numpy(rows.reshape(shape))
    mine = {name + ending for name in names for ending in ENDINGS}
    return {name: tensor for name, tensor in tensors.items() if name not in mine} | found


def _positions(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Eight positions, which fill `bits` bytes, at a time: bit by bit takes almost three times as long."""
    filled = np.zeros((-(-len(codes) // bits), bits), np.uint8)
    filled.reshape(-1)[: len(codes)] = codes
    words = np.zeros(len(filled), np.uint64)
    for i in range(bits):
        words |= filled[:, i].astype(np.uint64) << np.uint64(8 * i)
    positions = np.empty((len(words), 8), np.uint8)
    for i in range(8):
        positions[:, i] = (words >> np.uint64(bits * i)) & np.uint64(2**bits - 1)
    return positions.reshape(-1)
