"""Mixup and cutmix: rows blended with another row of their batch, and their labels with them.

Mixup of stored activations is manifold mixup (Verma et al. 2019, arXiv:1806.05236) at one fixed layer: the cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.config import Phase


@dataclass(frozen=True)
class Mixing:
    """How each of n rows, in an epoch's or a batch's order, is blended with its partner, which is another of them.

    partner: int64 [n], the partner's place; the row's own where it has none.
    label_share: float32 [n], 0.5 to 1, how much the row's own label counts; so it is always the dominant one.
    value_share: float32 [n], how much the row's own values count in mixup; 1 where a box is pasted instead.
    box: int64 [n, 3], top, left and side in px of the partner's square to paste; side 0: none.
    """

    partner: np.ndarray
    label_share: np.ndarray
    value_share: np.ndarray
    box: np.ndarray

    def part(self, places: slice) -> "Mixing":
        """That of the rows at `places`, whose partners are all among them."""
        return Mixing(self.partner[places] - places.start, self.label_share[places], self.value_share[places], self.box[places])


def draw(phase: Phase, passes: Sequence[slice], px: int, rng: np.random.Generator) -> Mixing | None:
    """Draw an epoch's blends, or None where the phase asks for none.

    Neighbours in the epoch's random order blend with each other, two by two, by the same share; a last odd row of a batch stays alone.
    With both mixup and cutmix, each pair takes one of them, at even odds. The share is Beta(alpha, alpha), folded to 0.5 and more: a pair
    gives the same two blends either way, and a box covers half of the photo at most.

    Args: passes: the places of each batch; px: side of the photos that boxes are cut from.
    Source: Zhang et al. 2018, arXiv:1710.09412 (mixup); Yun et al. 2019, arXiv:1905.04899 (cutmix), with the box inside the photo.
    """
    if not (phase.mixup or phase.cutmix):
        return None
    n = passes[-1].stop
    place = np.arange(n)
    start = np.repeat([part.start for part in passes], [part.stop - part.start for part in passes])
    stop = np.repeat([part.stop for part in passes], [part.stop - part.start for part in passes])
    partner = start + ((place - start) ^ 1)
    partner = np.where(partner < stop, partner, place)
    first, alone = np.minimum(place, partner), partner == place

    share = np.ones((2, n))
    for kind, alpha in enumerate((phase.mixup, phase.cutmix)):
        if alpha:
            share[kind] = rng.beta(alpha, alpha, n)
    share = np.maximum(share, 1 - share)[:, first]
    odds = phase.cutmix > 0 if not (phase.mixup and phase.cutmix) else 0.5
    pasted = (rng.random(n) < odds)[first] & ~alone

    side = np.where(pasted, np.round(px * np.sqrt(1 - share[1])), 0).astype(np.int64)
    corner = np.floor(rng.random((2, n))[:, first] * (px - side + 1)).astype(np.int64)
    value_share = np.where(pasted | alone, 1.0, share[0])
    label_share = np.where(pasted, 1 - (side / max(px, 1)) ** 2, value_share)
    return Mixing(partner, label_share.astype(np.float32), value_share.astype(np.float32), np.stack([*corner, side], axis=1))


def blend(x: torch.Tensor, mixing: Mixing) -> torch.Tensor:
    """The blended rows: floats [n, ...], or uint8 [n, px, px, 3] where all that happens to them is boxes."""
    others = x[torch.from_numpy(mixing.partner).to(x.device)]
    if mixing.box[:, 2].any():
        top, left, side = torch.from_numpy(mixing.box).to(x.device).unbind(1)
        across = torch.arange(x.shape[2], device=x.device)
        down = torch.arange(x.shape[1], device=x.device)
        in_rows = (down >= top[:, None]) & (down < (top + side)[:, None])
        in_columns = (across >= left[:, None]) & (across < (left + side)[:, None])
        x = torch.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], others, x)
    if (mixing.value_share < 1).any():
        share = torch.from_numpy(mixing.value_share).to(x.device).view(-1, *[1] * (x.ndim - 1))
        x = share * x.float() + (1 - share) * others.float()
    return x
