"""A network of three small layers, and what belongs in its bundle."""

import torch
from torch import nn

from headstart.bundle.format import Label
from headstart.data.pixels import Preprocessing

PX = 32
PREPROCESSING = Preprocessing(PX, 0.875, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LABELS = [Label("tabby", "n02123045"), Label("café au lait"), Label("a\nb,c", "n1")]


class TinyNet(nn.Module):
    """uint8 [n, 32, 32, 3] -> logits [n, 3]: which of red, green and blue is strongest, disturbed by random layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 3, 3, stride=2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x_nchw = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return 4 * x_nchw.mean((2, 3)) + self.layers(x_nchw).mean((2, 3))
