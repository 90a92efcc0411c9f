"""Many small convex problems at once: a preconditioned L-BFGS whose iterations are shared.

The problems ("models") have parameters of one shape and differ in their objective (another fold, another strength). One call of `evaluate`
serves all models that are still running, so data that does not fit the processor's caches is read once for all of them.

Source: Nocedal and Wright, Numerical Optimization, 2nd edition: algorithm 7.4 (two-loop recursion), equation 3.4 (Armijo).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

HISTORY = 8  # pairs of steps kept per model; 3 to 12 need about as many evaluations (docs/concepts/head.md)
_ARMIJO = 1e-4
_MAX_HALVINGS = 12

Evaluate = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(parameters [m, p, k], which models [m]) -> objective values [m] float64, gradients [m, p, k]."""

Precondition = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(gradients [m, p, k], which models [m]) -> an approximate inverse Hessian times the gradients [m, p, k]."""


@dataclass(frozen=True)
class Minimum:
    """Where the search ended.

    parameters: [m, p, k]. values: objective, float64 [m]. iterations: evaluations that each model took part in, int64 [m].
    """

    parameters: torch.Tensor
    values: torch.Tensor
    iterations: torch.Tensor


def minimise(
    evaluate: Evaluate, precondition: Precondition, start: torch.Tensor, *, tolerance: float, max_iterations: int, history: int = HISTORY
) -> Minimum:
    """Minimise each model's objective from `start`.

    A model stops when the decrease its next step promises is at most `tolerance`, in the objective's own unit, or when rounding lets no
    step make progress. A model whose step fails halves it and tries again in the next shared evaluation, while the others go on.

    Args: start: [m models, p parameters, k classes]. tolerance: > 0. max_iterations: shared evaluations at most. history: pairs kept.
    """
    running = torch.arange(len(start), device=start.device)
    state = _State.at(start, running, evaluate, precondition)
    best, values = start.clone(), torch.empty(len(start), dtype=state.value.dtype, device=start.device)
    iterations = torch.full((len(start),), max_iterations, device=start.device)
    for iteration in range(1, max_iterations + 1):
        finished = (state.slope > -2 * tolerance) | (state.halvings > _MAX_HALVINGS)
        if bool(finished.any()):
            gone = running[finished]
            best[gone], values[gone], iterations[gone] = state.w[finished], state.value[finished], iteration
            running = running[~finished]
            state.keep(~finished)
        if not len(running):
            return Minimum(best, values, iterations)
        state.advance(running, evaluate, precondition, history)
    best[running], values[running] = state.w, state.value
    return Minimum(best, values, iterations)


@dataclass
class _State:
    """The running models: where each is, which way it goes, and what it remembers. First axis: model."""

    w: torch.Tensor
    value: torch.Tensor
    gradient: torch.Tensor
    direction: torch.Tensor
    slope: torch.Tensor
    step: torch.Tensor
    halvings: torch.Tensor
    steps: list[torch.Tensor]
    changes: list[torch.Tensor]
    rhos: list[torch.Tensor]
    gamma: torch.Tensor

    @classmethod
    def at(cls, w: torch.Tensor, models: torch.Tensor, evaluate: Evaluate, precondition: Precondition) -> "_State":
        value, gradient = evaluate(w, models)
        direction = -precondition(gradient, models)
        ones = torch.ones(len(w), device=w.device)
        return cls(w, value, gradient, direction, _dot(gradient, direction), ones, ones.long() * 0, [], [], [], ones)

    def keep(self, mask: torch.Tensor) -> None:
        """Drop the models that are not in `mask`."""
        for name in ("w", "value", "gradient", "direction", "slope", "step", "halvings", "gamma"):
            setattr(self, name, getattr(self, name)[mask])
        for name in ("steps", "changes", "rhos"):
            setattr(self, name, [pair[mask] for pair in getattr(self, name)])

    def advance(self, models: torch.Tensor, evaluate: Evaluate, precondition: Precondition, history: int) -> None:
        """One shared evaluation: each model takes its step, or shortens it."""
        trial = self.w + _wide(self.step) * self.direction
        value, gradient = evaluate(trial, models)
        noise = 2e-7 * (1 + self.value.abs())  # two equal objectives may differ by this much in float32
        good = value <= self.value + _ARMIJO * self.step * self.slope + noise
        change = gradient - self.gradient
        self._remember(trial - self.w, change, _dot(change, precondition(change, models)), good, history)
        self.w = torch.where(_wide(good), trial, self.w)
        self.value = torch.where(good, value, self.value)
        self.gradient = torch.where(_wide(good), gradient, self.gradient)
        self.halvings = torch.where(good, 0, self.halvings + 1)
        self.step = torch.where(good, torch.ones_like(self.step), self.step / 2)
        direction = -self._two_loops(models, precondition)
        self.direction = torch.where(_wide(good), direction, self.direction)
        self.slope = _dot(self.gradient, self.direction)
        if bool((self.slope >= 0).any()):  # rounding spoilt the memory of some model: let it start afresh
            uphill = _wide(self.slope >= 0)
            self.direction = torch.where(uphill, -precondition(self.gradient, models), self.direction)
            self.slope = _dot(self.gradient, self.direction)

    def _remember(self, step: torch.Tensor, change: torch.Tensor, scale: torch.Tensor, good: torch.Tensor, history: int) -> None:
        """Keep a step, the gradient's change along it, and that change's length under the preconditioner."""
        curvature = _dot(step, change)
        useful = good & (curvature > 1e-10 * _dot(step, step).sqrt() * _dot(change, change).sqrt()) & (scale > 0)
        # A pair of no use keeps its place with rho = 0, which the recursion passes over: rare, and simpler than histories of unlike length.
        self.steps.append(step)
        self.changes.append(change)
        self.rhos.append(torch.where(useful, 1 / curvature, torch.zeros_like(curvature)).to(step.dtype))
        self.gamma = torch.where(useful, curvature / scale, self.gamma).to(step.dtype)
        for memory in (self.steps, self.changes, self.rhos):
            del memory[:-history]

    def _two_loops(self, models: torch.Tensor, precondition: Precondition) -> torch.Tensor:
        """The inverse Hessian's estimate times the gradient [m, p, k]."""
        q, alphas = self.gradient.clone(), []
        for s, y, rho in zip(reversed(self.steps), reversed(self.changes), reversed(self.rhos), strict=True):
            alphas.append(rho * _dot(s, q))
            q -= _wide(alphas[-1]) * y
        q = _wide(self.gamma) * precondition(q, models)
        for s, y, rho, alpha in zip(self.steps, self.changes, self.rhos, reversed(alphas), strict=True):
            q += _wide(alpha - rho * _dot(y, q)) * s
        return q


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum((1, 2))


def _wide(per_model: torch.Tensor) -> torch.Tensor:
    return per_model[:, None, None]
