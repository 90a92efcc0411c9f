"""The few numbers that the exported file can hold of each tensor, and weights rounded to them.

Every number is one of 2**bits levels times its channel's scale. The last part of a training computes with rounded kernels and lets the
gradients pass as if they were not, so that the averaged weights lose little when the file rounds them. Source: Bengio et al. 2013,
"Estimating or propagating gradients through stochastic neurons for conditional computation".
"""

import torch


def scale_of(value: torch.Tensor) -> torch.Tensor:
    """Root mean square of each channel's numbers, [channels]."""
    return value.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)


def levels_of(value: torch.Tensor, bits: int, *, most: int = 300_000, rounds: int = 60) -> torch.Tensor:
    """The levels nearest to which the scaled numbers of `value` lie, on average of squares, float32 [2**bits], rising.

    Source: Lloyd 1982, "Least squares quantization in PCM".
    """
    n_levels = 2**bits
    scaled = (value.flatten(1) / scale_of(value)[:, None]).flatten()
    chosen = scaled[torch.randperm(len(scaled), generator=torch.Generator().manual_seed(0))[:most]].double()
    levels = torch.quantile(chosen[:100_000], (torch.arange(n_levels).double() + 0.5) / n_levels)
    for _ in range(rounds):
        nearest = torch.bucketize(chosen, (levels[1:] + levels[:-1]) / 2)
        counts = torch.bincount(nearest, minlength=n_levels)
        levels = torch.where(counts > 0, torch.bincount(nearest, chosen, minlength=n_levels) / counts.clamp(min=1), levels)
    return levels.float()


def positions_of(value: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Which level is nearest to each scaled number of `value`, to bf16's precision; int64, of its shape."""
    return _looked_up(_nearest(levels), value, scale_of(value))


def rounded(value: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """`value` as the file would give it back."""
    scale = scale_of(value)
    return _looked_up(levels[_nearest(levels)], value, scale).mul_(_as_rows(scale, value))


def _looked_up(table: torch.Tensor, value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """For each scaled number, the entry of its bf16 bits: a seventh of the time of a search among the levels."""
    bits = (value / _as_rows(scale, value)).bfloat16().contiguous().view(torch.int16).int() & 0xFFFF
    return table.index_select(0, bits.flatten()).view(value.shape)


def _nearest(levels: torch.Tensor) -> torch.Tensor:
    """For each of the 65,536 numbers of bf16, in the order of their bits, the position of the nearest level."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    return torch.bucketize(every, (levels[1:] + levels[:-1]) / 2)


def _as_rows(scale: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))
