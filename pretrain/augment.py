"""From photos as stored to what the network sees: whole batches at a time, on tensors."""

import math

import torch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] (channels last in memory), centred and scaled by ImageNet's mean and deviation."""
    return _scaled(pixels.permute(0, 3, 1, 2).float())


def draw_boxes(n: int, smallest: float, rng: torch.Generator) -> torch.Tensor:
    """Random crops of `smallest`..1 of a photo's area, sides at most 4:3.

    Returns: float32 [n, 4]: centre x, y and half width, height, in -1..1 of the photo.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    area, aspect = uniform(smallest, 1.0), torch.exp(uniform(-math.log(4 / 3) / 2, math.log(4 / 3) / 2))
    w = (area.sqrt() * aspect).clamp(max=1.0)
    h = (area.sqrt() / aspect).clamp(max=1.0)
    return torch.stack([uniform(-1, 1) * (1 - w), uniform(-1, 1) * (1 - h), w, h], 1)


def jittered(boxes: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """The boxes of `draw_boxes` with centre and sides moved at random by up to `share` of their sides, still inside the photo."""
    moves = (torch.rand(boxes.shape, generator=rng) * 2 - 1) * share
    half = (boxes[:, 2:] * (1 + moves[:, 2:])).clamp(max=1.0)
    centre = boxes[:, :2] + 2 * boxes[:, 2:] * moves[:, :2]
    return torch.cat([torch.maximum(torch.minimum(centre, 1 - half), half - 1), half], 1)


def crops(pixels: torch.Tensor, boxes: torch.Tensor, px: int, *, mode: str, mirror: torch.Tensor | None = None) -> torch.Tensor:
    """The boxes of `draw_boxes`, resized to a square.

    Args: pixels: uint8 [n, h, w, 3]. px: side of the result. mode: of torch's grid_sample. mirror: -1 (mirrored) or 1 for each, float [n].
    Returns: float32 [n, 3, px, px], 0..255 (bicubic may overshoot).
    """
    x, y, w, h = boxes.unbind(1)
    grid_transform = torch.zeros(len(pixels), 2, 3)
    grid_transform[:, 0, 0] = w if mirror is None else w * mirror
    grid_transform[:, 1, 1] = h
    grid_transform[:, 0, 2] = x
    grid_transform[:, 1, 2] = y
    grid = torch.nn.functional.affine_grid(grid_transform, [len(pixels), 3, px, px], align_corners=False)
    x_nchw = pixels.permute(0, 3, 1, 2).float()
    return torch.nn.functional.grid_sample(x_nchw, grid, mode=mode, padding_mode="reflection", align_corners=False)


def student_views(pixels: torch.Tensor, boxes: torch.Tensor, px: int, rng: torch.Generator) -> torch.Tensor:
    """The boxes of `draw_boxes`, mirrored or not, with light colour changes.

    Args: pixels: uint8 [n, h, w, 3]. px: side of the views.
    Returns: float32 [n, 3, px, px], normalised, channels last in memory.
    """
    n = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    x_nchw = _scaled(crops(pixels, boxes, px, mode="bilinear", mirror=mirror))
    return _colour(x_nchw, uniform(0.75, 1.25), uniform(-0.25, 0.25), uniform(0.6, 1.3))


def _scaled(x_nchw: torch.Tensor) -> torch.Tensor:
    """0..255 to the scale of the network, in place."""
    return x_nchw.div_(255).sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


def _colour(x_nchw: torch.Tensor, contrast: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    grey = x_nchw.mean(1, keepdim=True)
    saturation, contrast, brightness = (v.view(-1, 1, 1, 1) for v in (saturation, contrast, brightness))
    coloured = torch.lerp(grey.expand_as(x_nchw), x_nchw, saturation).mul_(contrast).add_(brightness)
    return coloured.contiguous(memory_format=torch.channels_last)
