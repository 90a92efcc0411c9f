"""Weights in 5 bits each, for the next embedded backbone (today's is fp16): every number is one of 32 levels times its channel's scale.

A tensor `x` of more than one dimension is stored as `x.codes`, uint8, the 5-bit positions of its numbers in `levels` one behind the other
(lowest bit first, the last byte filled up with zeros); `x.scale`, float32, one for each entry of its first dimension; `x.shape`, int64.
`levels`, float32 [32], is the file's. pretrain/export.py writes it.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BITS = 5
CODES, SCALE, SHAPE, LEVELS = ".codes", ".scale", ".shape", "levels"


def unpacked(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The same with every packed tensor as float32 under its own name; unchanged where none is packed."""
    import torch

    names = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
    if not names or LEVELS not in tensors:
        return tensors
    found = {}
    for name in names:
        shape = tensors[name + SHAPE].tolist()
        bits = np.unpackbits(tensors[name + CODES].numpy(), count=BITS * int(np.prod(shape)), bitorder="little").reshape(-1, BITS)
        positions = torch.from_numpy(bits @ (1 << np.arange(BITS, dtype=np.uint8)))
        scale = tensors[name + SCALE].float()
        found[name] = tensors[LEVELS].float()[positions.int()].view(shape) * scale.view(-1, *[1] * (len(shape) - 1))
    endings = (CODES, SCALE, SHAPE)
    mine = {name + ending for name in names for ending in endings} | {LEVELS}
    return {name: tensor for name, tensor in tensors.items() if name not in mine} | found
