"""The new classifier on top of a network: from a solved head, or dense layers to be trained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from headstart.train.head import LinearHead


class Linear(nn.Linear):
    """A linear layer that can drop a share of what it is given, in training; its tensors are a plain linear layer's."""

    def __init__(self, d_features: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__(d_features, n_classes)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.drop(x))


class Standardise(nn.Module):
    """Features less their mean, over their standard deviation: what the training rows showed, fixed."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rows.mean(0)))
        self.register_buffer("std", torch.from_numpy(np.maximum(rows.std(0), 1e-6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def linear(solved: LinearHead) -> Linear:
    """The layer of a solved head."""
    layer = Linear(*solved.weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(solved.weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(solved.bias))
    return layer


def dense(rows: np.ndarray, n_classes: int, hidden: Sequence[int], dropout: float, seed: int) -> nn.Sequential:
    """Hidden layers with ReLU and dropout over standardised features, new weights from `seed`; no hidden layers: a new linear head.

    Args: rows: float32 [n, d], the training rows' features, which give mean and deviation.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = [Standardise(rows)]
    width = rows.shape[1]
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, n_classes) if hidden else Linear(width, n_classes, dropout))


class Mirrored(nn.Module):
    """The mean of a network's answers to a photo and to its mirror image: uint8 [n, h, w, 3] to logits [n, k]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = (self.network(x_nhwc) + self.network(x_nhwc.flip(2))) / 2
        return logits
