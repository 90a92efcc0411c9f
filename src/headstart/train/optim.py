"""Parameter groups, optimiser and learning-rate schedule of a phase."""

import math

import torch
from torch import nn

from headstart.config import Phase

WARM_UP = 0.1  # share of all steps over which a cosine schedule rises from 0


def optimiser(module: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over every trainable parameter of `module`.

    Matrices and kernels decay, norms and biases do not: decaying them pulls a normalised layer's scale to zero for no
    gain (Goyal et al. 2017, arXiv:1706.02677, section 5.3; He et al. 2019, arXiv:1812.01187, section 3.1).
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": phase.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if phase.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=phase.rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=phase.rate)


def rate_schedule(optimiser: torch.optim.Optimizer, phase: Phase, n_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Rate as a function of the step, over all `n_steps` steps of the phase."""
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(phase.schedule, step, n_steps))


def rate_factor(schedule: str, step: int, n_steps: int) -> float:
    """Share of the peak rate at `step` (0 to n_steps): constant, or a linear warm-up and half a cosine down to 0."""
    if schedule == "constant":
        return 1.0
    n_warm = max(1, round(WARM_UP * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))
