"""What is trained and how: every number of the recipe in one place, saved with the weights."""

import dataclasses
import json
import math
from typing import Any

import timm
import torch


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run. With `minutes` the schedule follows the clock, without it the step count."""

    architecture: str = "resnet10t"
    """timm's name."""
    model_args: dict[str, Any] = dataclasses.field(default_factory=lambda: {"layers": [1, 1, 2, 2], "stem_width": 16})
    """Arguments of timm.create_model beside the number of classes."""
    views: int = 3
    """Views of each photo that the teacher has answered for; each epoch reads one of them."""
    smallest_crop: float = 0.2
    """Least part of the area of a small photo that a crop shows."""
    jitter: float = 0.05
    """The student's crop has its centre and sides moved at random by up to this part of its sides from the crop that the teacher saw."""
    losses: tuple[float, float, float] = (0.3, 4.0, 1.0)
    """Weights of: cross-entropy with the labels, squared error of the teacher's features, divergence from the teacher's answers."""
    epochs: float = 24.0
    """Passes over the training photos when no `minutes` are given."""
    minutes: float | None = None
    """Time budget of the training steps, all resumed parts together; the schedule is then a function of the time spent."""
    batch_size: int = 384
    """Photos per step."""
    parts: int = 2
    """Threads that share a step's photos; each normalises by the statistics of its own part."""
    rate: float = 0.06
    """Peak turn of a kernel per step, in radians."""
    other_rate: float = 0.1
    """Peak learning rate of everything but the kernels: SGD with Nesterov momentum."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """Of the two matrices after pooling."""
    warm_up: float = 0.04
    """Part of the run over which the rates rise; they then fall along a cosine."""
    sizes: tuple[tuple[float, int], ...] = ((0.4, 64), (0.8, 96), (1.0, 128))
    """(until this part of the run, side of the crops in px): small crops first, because they cost less."""
    rounded_from: float = 0.85
    """From this part of the run on the large kernels are rounded as the file will hold them (rounding.py)."""
    bits: tuple[int, int] = (5, 8)
    """Of a number in the file: in kernels and matrices of at least `large` numbers, and in smaller ones, which are cheap to keep."""
    large: int = 140_000
    ema_decay: float = 0.998
    """Of the averaged weights, which are the ones kept (per step; rises towards this value over the first steps)."""
    val_px: int = 96
    """Side at which held-out photos are read after each epoch."""
    val_step: int = 4
    """Of them one in so many: all 10,000 would take half a minute."""
    checkpoint_s: float = 120.0
    """A killed run loses at most this much work."""
    seed: int = 0
    start: str | None = None
    """sha256 of the checkpoint whose averaged weights the run begins with, instead of fresh ones."""

    def progress(self, step: int, steps_per_epoch: int, spent_s: float) -> float:
        """Part of the run that is done, 0..1."""
        if self.minutes is not None:
            return min(1.0, spent_s / (60 * self.minutes))
        return min(1.0, step / max(1, round(self.epochs * steps_per_epoch)))

    def rate_at(self, progress: float) -> float:
        """Learning rate at `progress` as a share of its peak: linear warm-up, then a cosine to a hundredth."""
        if progress < self.warm_up:
            return 0.05 + 0.95 * progress / self.warm_up
        fall = (progress - self.warm_up) / (1 - self.warm_up)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall))

    def px_at(self, progress: float) -> int:
        """Side of the crops at `progress`, in px."""
        return next((px for until, px in self.sizes if progress < until), self.sizes[-1][1])

    def bits_of(self, value: torch.Tensor) -> int:
        """Bits that a number of this tensor has in the file."""
        return self.bits[0] if value.numel() >= self.large else self.bits[1]

    def network(self, n_classes: int) -> torch.nn.Module:
        """The network with fresh weights drawn from `seed`."""
        torch.manual_seed(self.seed)
        network: torch.nn.Module = timm.create_model(self.architecture, pretrained=False, num_classes=n_classes, **self.model_args)
        return network.to(memory_format=torch.channels_last)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        values = json.loads(text)
        values["sizes"] = tuple((until, px) for until, px in values["sizes"])
        for name in ("losses", "bits"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)


AGAIN: dict[str, Any] = {"rate": 0.035, "other_rate": 0.05, "warm_up": 0.03, "sizes": ((0.1, 64), (0.55, 96), (1.0, 128)), "seed": 1}
"""What is different in a second training from the first one's weights: lower rates, mostly the sizes that the network is used at."""
