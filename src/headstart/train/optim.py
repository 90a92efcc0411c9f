"""Parameter groups, optimiser, learning rate and momentum of a phase."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from headstart.backbone.cut import HEAD, Tail
from headstart.config import Phase

ONE_CYCLE_UP = 0.3  # share of the steps over which one-cycle's rate rises
ONE_CYCLE_START = 1 / 25  # of the peak rate
ONE_CYCLE_MOMENTUM = 0.1  # what momentum loses while the rate rises
PLATEAU_EPOCHS, PLATEAU_FACTOR = 3, 0.2

_FUSED = ("cpu", "cuda", "mps")
_ADAM_BETAS = (0.9, 0.999)
_ONE_CYCLE_ADAM = 0.95  # beta 1 where the cycle begins; Source of the four above: fastai's defaults, which PyTorch's OneCycleLR shares


def optimiser(tail: Tail, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over every trainable parameter of `tail`, in groups with keys of their own: `share`, `decay`.

    share: of the phase's rate, see `shares`.
    decay: `weight_decay` for matrices and kernels, 0 for norms and biases: decaying those pulls a normalised layer's scale to zero for
        no gain (Goyal et al. 2017, arXiv:1706.02677, section 5.3; He et al. 2019, arXiv:1812.01187, section 3.1).

    Decay is decoupled from the gradient for every optimiser (Loshchilov and Hutter 2019, arXiv:1711.05101), as in Keras; so `adam` and
    `adamw` are two names of one method. RMSprop forgets as Keras's does: a tenth a step, epsilon 1e-7.
    """
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in tail.named_parameters():
        if parameter.requires_grad:
            key = (tail.stage_of.get(name, HEAD), phase.weight_decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
    share = shares(tail.stages, phase)
    given = [{"params": parameters, "share": share[stage], "decay": decay} for (stage, decay), parameters in groups.items()]
    momentum = momentum_of(phase)
    if phase.optimiser == "sgd":
        return torch.optim.SGD(given, lr=phase.rate, momentum=momentum, nesterov=momentum > 0, fused=_can_fuse(given))
    if phase.optimiser == "rmsprop":
        return torch.optim.RMSprop(given, lr=phase.rate, alpha=0.9, eps=1e-7, momentum=momentum)
    return adam(given, phase.rate)


def shares(stages: Sequence[str], phase: Phase) -> dict[str, float]:
    """Each stage's share of the phase's rate: its own of `stage_rates`, else `rate_decay` to the power of its distance from the head.

    Args: stages: of the tail, in forward order; the last is `head`.
    """
    last = len(stages) - 1
    found = {stage: phase.rate_decay ** (last - i) for i, stage in enumerate(stages)}
    return found if phase.stage_rates is None else found | phase.stage_rates


def momentum_of(phase: Phase) -> float:
    """Of SGD and RMSprop, as asked or as usual with them."""
    return phase.momentum if phase.momentum is not None else 0.9 if phase.optimiser == "sgd" else 0.0


def adam(given: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """Adam over groups of parameters; decay is `take_step`'s."""
    return torch.optim.Adam(given, lr=rate, betas=_ADAM_BETAS, fused=_can_fuse(given))


def _can_fuse(given: list[dict[str, Any]]) -> bool:
    """Whether each parameter's memory can be gone over once, not once for each of a dozen operations: ResNet-50's takes a quarter."""
    return all(parameter.device.type in _FUSED for group in given for parameter in group["params"])


@torch.no_grad()
def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Decay the weights by each group's rate times its `decay`, then move them by the gradient."""
    for group in optimizer.param_groups:
        if group["decay"]:
            torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decay"])
    optimizer.step()


class Schedule:
    """Rate and momentum at every step of a phase; a function of the step, but for what `observe` was told.

    Attributes: reductions: how often a plateau has lowered the rate so far.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, phase: Phase, n_steps: int) -> None:
        self._optimizer, self._phase, self._n_steps = optimizer, phase, n_steps
        self.reductions = 0
        self._best, self._since_best = math.inf, 0

    def rate(self, step: int) -> float:
        """The phase's rate at `step` (0 to n_steps - 1), of which each stage has its share."""
        phase = self._phase
        reduced = PLATEAU_FACTOR**self.reductions if phase.schedule == "plateau" else 1.0
        return phase.rate * reduced * rate_factor(phase.schedule, step, self._n_steps, phase.warm_up)

    def apply(self, step: int) -> None:
        """Set the optimiser's rates, and with one-cycle its momentum, for `step`."""
        rate = self.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        if self._phase.schedule == "one-cycle":
            fall = ONE_CYCLE_MOMENTUM * _one_cycle_rise(step, self._n_steps)
            for group in self._optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (_ONE_CYCLE_ADAM - fall, _ADAM_BETAS[1])
                else:
                    group["momentum"] = max(0.0, momentum_of(self._phase) - fall)

    def observe(self, loss: float) -> None:
        """Tell the loss of the epoch just ended. Three epochs in a row that are not better than the best lower a plateau's rate."""
        if loss < self._best:
            self._best, self._since_best = loss, 0
            return
        self._since_best += 1
        if self._since_best >= PLATEAU_EPOCHS:
            self.reductions, self._since_best = self.reductions + 1, 0

    def facts(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {"reductions": self.reductions, "best": self._best, "since_best": self._since_best}

    def restore(self, facts: dict[str, Any]) -> None:
        """Go on where the schedule that gave these facts was."""
        self.reductions, self._best, self._since_best = facts["reductions"], facts["best"], facts["since_best"]


def rate_factor(schedule: str, step: int, n_steps: int, warm_up: float) -> float:
    """Share of the peak rate at `step` (0 to n_steps), but for what a plateau takes off.

    cosine: a linear warm-up, then half a cosine down to 0. constant, plateau: the warm-up, then 1.
    one-cycle: half a cosine up, another down to 0 (Smith and Topin 2018, arXiv:1708.07120); it knows no `warm_up`.
    """
    if schedule == "one-cycle":
        rise = _one_cycle_rise(step, n_steps)
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * rise if step < _n_up(n_steps) else rise
    n_warm = round(warm_up * n_steps)
    if step < n_warm:
        return (step + 1) / n_warm
    return _fall((step - n_warm) / max(1, n_steps - n_warm)) if schedule == "cosine" else 1.0


def _one_cycle_rise(step: int, n_steps: int) -> float:
    """How far one-cycle is up at `step`: 0 at the start, 1 at the peak, 0 at the end."""
    up = _n_up(n_steps)
    return 1 - _fall(step / up) if step < up else _fall((step - up) / max(1, n_steps - up))


def _n_up(n_steps: int) -> int:
    return round(ONE_CYCLE_UP * n_steps)


def _fall(share: float) -> float:
    """Half a cosine, from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * share))
