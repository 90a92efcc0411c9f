"""What the student sees instead of what its teacher saw: mirrored, in other colours, some of it with little detail."""

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

COARSE = 0.15
"""Share of the views that lose their detail: the teacher saw it, so the student learns to do without."""
COARSE_SIDES = (0.2, 0.6)
"""To which part of their side these are scaled down before they are enlarged again."""


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] (channels last in memory), centred and scaled by ImageNet's mean and deviation."""
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


def resized(x_nchw: torch.Tensor, px: int) -> torch.Tensor:
    """Square photos at another size, bilinear."""
    if x_nchw.shape[-1] == px:
        return x_nchw
    return torch.nn.functional.interpolate(x_nchw, size=(px, px), mode="bilinear", align_corners=False, antialias=True)


def draw_mirror(n: int, rng: torch.Generator) -> torch.Tensor:
    """-1 (mirrored) or 1, float [n]."""
    return torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)


def augmented(x_nchw: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Views of 0..255 normalised as `normalised` does it, in lightly changed colours, some of them coarse; changes its argument.

    Returns: float32 [n, 3, px, px], channels last in memory.
    """
    n, side = len(x_nchw), x_nchw.shape[-1]
    coarse = torch.randperm(n, generator=rng)[: round(COARSE * n)]
    low, high = COARSE_SIDES
    small = max(4, round(side * (low + (high - low) * torch.rand(1, generator=rng).item())))
    few = torch.nn.functional.interpolate(x_nchw[coarse], size=(small, small), mode="bilinear", align_corners=False, antialias=True)
    x_nchw[coarse] = torch.nn.functional.interpolate(few, size=(side, side), mode="bilinear", align_corners=False)
    weight, bias = _colours(n, rng)
    mixed = torch.baddbmm(bias, weight, x_nchw.flatten(2)).view(x_nchw.shape)
    return mixed.contiguous(memory_format=torch.channels_last)


def _colours(n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of n views, weight [n, 3, 3] and bias [n, 3, 1] that normalise it and change saturation, contrast and brightness."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return (torch.rand(n, generator=rng) * (high - low) + low).view(n, 1, 1)

    contrast, brightness, saturation = uniform(0.75, 1.25), uniform(-0.25, 0.25), uniform(0.6, 1.3)
    change = contrast * ((1 - saturation) / 3 + saturation * torch.eye(3))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return change / (255 * std), change @ -(mean / std).view(3, 1) + brightness
