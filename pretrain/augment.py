"""From photos as stored to what the network sees: whole batches at a time, on tensors."""

import math

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] (channels last in memory), centred and scaled by ImageNet's mean and deviation."""
    x_nchw = pixels.permute(0, 3, 1, 2).float().div_(255)
    return x_nchw.sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


def random_crops(pixels: torch.Tensor, px: int, smallest: float, rng: torch.Generator) -> torch.Tensor:
    """One random view per photo: crop of `smallest`..1 of its area, sides at most 4:3, mirrored or not, light colour changes.

    Args: pixels: uint8 [n, h, w, 3]. px: side of the views. smallest: least part of the area, 0..1.
    Returns: float32 [n, 3, px, px], normalised.
    """
    n = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    area, aspect = uniform(smallest, 1.0), torch.exp(uniform(-math.log(4 / 3) / 2, math.log(4 / 3) / 2))
    w = (area.sqrt() * aspect).clamp(max=1.0)
    h = (area.sqrt() / aspect).clamp(max=1.0)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    grid_transform = torch.zeros(n, 2, 3)
    grid_transform[:, 0, 0] = w * mirror
    grid_transform[:, 1, 1] = h
    grid_transform[:, 0, 2] = uniform(-1, 1) * (1 - w)
    grid_transform[:, 1, 2] = uniform(-1, 1) * (1 - h)
    grid = torch.nn.functional.affine_grid(grid_transform, [n, 3, px, px], align_corners=False)
    x_nchw = torch.nn.functional.grid_sample(normalised(pixels), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _colour(x_nchw, uniform(0.75, 1.25), uniform(-0.25, 0.25), uniform(0.6, 1.3))


def _colour(x_nchw: torch.Tensor, contrast: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    grey = x_nchw.mean(1, keepdim=True)
    saturation, contrast, brightness = (v.view(-1, 1, 1, 1) for v in (saturation, contrast, brightness))
    coloured = torch.lerp(grey.expand_as(x_nchw), x_nchw, saturation).mul_(contrast).add_(brightness)
    return coloured.contiguous(memory_format=torch.channels_last)
