"""What one lesson shows: a crop of a photo, in a fifth of them with a second photo's crop laid over a part of it.

A view is numbers only, drawn once from a seed, so that teacher and student look at the same thing at their own sizes. Pieces of two
photos side by side make inputs that no photo of the set is: a student that follows its teacher there, too, learns the teacher's function
and not only 200 classes. Sources: Yun et al. 2019, "CutMix"; Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent".
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch

functional = torch.nn.functional

PATCHED = 0.2
"""Share of the views with a patch."""
PATCH_SIDES = (0.5, 0.85)
"""Sides of a patch as shares of the view's: of a 64 px view it still has 32, a photo's pixels halved."""


@dataclasses.dataclass(frozen=True)
class Views:
    """One view for each of n rows.

    Fields: photos, others: int64 [n], positions of the photo and of the patch's photo; the same where there is no patch.
    boxes, other_boxes: float32 [n, 4], centre x, y and half width, height of the crops, in -1..1 of their photo.
    patches: float32 [n, 4], centre and half sides of the part that the other crop covers, in -1..1 of the view; sides 0: none.
    """

    photos: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    other_boxes: npt.NDArray[np.float32]
    patches: npt.NDArray[np.float32]

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> "Views":
        return Views(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def patched(self) -> npt.NDArray[np.float32]:
        """Share of the view's area that the other photo covers, 0..1, [n]."""
        return self.patches[:, 2] * self.patches[:, 3]


def draw_views(photos: npt.NDArray[np.int64], smallest: float, seed: int) -> Views:
    """A view of each of `photos`. Args: smallest: least part of a photo's area that a crop shows, 0..1."""
    rng = torch.Generator().manual_seed(seed)
    n = len(photos)
    boxes, other_boxes = draw_boxes(n, smallest, rng), draw_boxes(n, smallest, rng)
    has_patch = torch.rand(n, generator=rng) < PATCHED
    others = torch.where(has_patch, torch.randperm(n, generator=rng), torch.arange(n))
    sides = _uniform(n, *PATCH_SIDES, rng), _uniform(n, *PATCH_SIDES, rng)
    centres = (_uniform(n, -1, 1, rng) * (1 - side) for side in sides)
    patches = torch.stack([*centres, *sides], 1) * has_patch[:, None]
    return Views(photos, photos[others.numpy()], boxes.numpy(), other_boxes.numpy(), patches.numpy())


def draw_boxes(n: int, smallest: float, rng: torch.Generator) -> torch.Tensor:
    """Random crops of `smallest`..1 of a photo's area, sides at most 4:3.

    Returns: float32 [n, 4]: centre x, y and half width, height, in -1..1 of the photo.
    """
    area, aspect = _uniform(n, smallest, 1.0, rng), torch.exp(_uniform(n, -math.log(4 / 3) / 2, math.log(4 / 3) / 2, rng))
    w = (area.sqrt() * aspect).clamp(max=1.0)
    h = (area.sqrt() / aspect).clamp(max=1.0)
    return torch.stack([_uniform(n, -1, 1, rng) * (1 - w), _uniform(n, -1, 1, rng) * (1 - h), w, h], 1)


def jittered(boxes: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """The boxes of `draw_boxes` with centre and sides moved at random by up to `share` of their sides, still inside the photo."""
    moves = (torch.rand(boxes.shape, generator=rng) * 2 - 1) * share
    half = (boxes[:, 2:] * (1 + moves[:, 2:])).clamp(max=1.0)
    centre = boxes[:, :2] + 2 * boxes[:, 2:] * moves[:, :2]
    return torch.cat([torch.maximum(torch.minimum(centre, 1 - half), half - 1), half], 1)


def show(pixels: npt.NDArray[np.uint8], views: Views, px: int, *, mode: str, mirror: torch.Tensor | None = None) -> torch.Tensor:
    """The views as squares of `px`.

    Args: pixels: uint8 [photos, h, w, 3], all photos. mode: of torch's grid_sample. mirror: -1 (mirrored) or 1 for each view, float [n].
    Returns: float32 [n, 3, px, px], 0..255 (bicubic may overshoot).
    """
    mirror = torch.ones(len(views)) if mirror is None else mirror
    boxes, patches = torch.from_numpy(views.boxes), torch.from_numpy(views.patches)
    x_nchw = _cut(pixels[views.photos], boxes[:, :2], boxes[:, 2:], px, mode, mirror)
    rows = np.flatnonzero(views.patched > 0)
    if not len(rows):
        return x_nchw
    patches, mirror = patches[rows], mirror[rows]
    others = torch.from_numpy(views.other_boxes[rows])
    scale = others[:, 2:] / patches[:, 2:]  # from the whole view's coordinates to the other photo's, through the patch's
    laid = _cut(pixels[views.others[rows]], others[:, :2] - patches[:, :2] * scale, scale, px, mode, mirror)
    ticks = (torch.arange(px) * 2 + 1) / px - 1
    inside_x = ((ticks * mirror[:, None] - patches[:, :1]).abs() < patches[:, 2:3])[:, None, None, :]
    inside_y = ((ticks - patches[:, 1:2]).abs() < patches[:, 3:])[:, None, :, None]
    x_nchw[rows] = torch.where(inside_x & inside_y, laid, x_nchw[rows])
    return x_nchw


def _cut(
    pixels: npt.NDArray[np.uint8], centres: torch.Tensor, halves: torch.Tensor, px: int, mode: str, mirror: torch.Tensor
) -> torch.Tensor:
    ticks = (torch.arange(px) * 2 + 1) / px - 1
    grid = torch.empty(len(pixels), px, px, 2)
    grid[..., 0] = (centres[:, :1] + halves[:, :1] * mirror[:, None] * ticks)[:, None, :]
    grid[..., 1] = (centres[:, 1:] + halves[:, 1:] * ticks)[:, :, None]
    x_nchw = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float()
    return functional.grid_sample(x_nchw, grid, mode=mode, padding_mode="reflection", align_corners=False)


def _uniform(n: int, low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=rng) * (high - low) + low
