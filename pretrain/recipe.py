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
    model_args: dict[str, Any] = dataclasses.field(default_factory=lambda: {"channels": [32, 64, 96, 304], "stem_width": 16})
    """Arguments of timm.create_model beside the number of classes."""
    epochs: float = 11.0
    """Passes over the training photos when no `minutes` are given."""
    minutes: float | None = None
    """Time budget of the training steps, all resumed parts together; the schedule is then a function of the time spent."""
    batch_size: int = 128
    """Photos per step."""
    parts: int = 2
    """Threads that share a step's photos; each normalises by the statistics of its own part."""
    rate: float = 0.2
    """Peak learning rate of SGD with Nesterov momentum."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """On convolutions and matrices only."""
    warm_up: float = 0.06
    """Part of the run over which the rate rises; it then falls along a cosine."""
    sizes: tuple[tuple[float, int], ...] = ((0.35, 48), (0.75, 64), (1.0, 96))
    """(until this part of the run, side of the crops in px): small crops first, because they cost less."""
    smallest_crop: float = 0.35
    """Least part of a photo's area that a crop shows."""
    label_smoothing: float = 0.0
    """None: it raises the accuracy on the classes trained for and lowers that of a linear head on other photos.
    Source: Kornblith et al. 2021, "Why Do Better Loss Functions Lead to Less Transferable Features?"."""
    ema_decay: float = 0.9985
    """Of the averaged weights, which are the ones kept (per step; rises towards this value over the first steps)."""
    val_px: int = 64
    """Side at which the held-out photos are read after each epoch."""
    checkpoint_s: float = 120.0
    """A killed run loses at most this much work."""
    seed: int = 0

    def progress(self, step: int, steps_per_epoch: int, spent_s: float) -> float:
        """Part of the run that is done, 0..1."""
        if self.minutes is not None:
            return min(1.0, spent_s / (60 * self.minutes))
        return min(1.0, step / max(1, round(self.epochs * steps_per_epoch)))

    def rate_at(self, progress: float) -> float:
        """Learning rate at `progress`: linear warm-up, then a cosine to a hundredth of the peak."""
        if progress < self.warm_up:
            return self.rate * (0.05 + 0.95 * progress / self.warm_up)
        fall = (progress - self.warm_up) / (1 - self.warm_up)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))

    def px_at(self, progress: float) -> int:
        """Side of the crops at `progress`, in px."""
        return next((px for until, px in self.sizes if progress < until), self.sizes[-1][1])

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
        return cls(**values)
