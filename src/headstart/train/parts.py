"""A tail on a CPU, over a batch in several parts: each on cores of its own, so that they meet twice a step.

PyTorch shares every single operation between its threads, which wait for each other at the end of it. For the small tensors of a batch
that is much of the time, and nearly all of it where other programs want the same cores (docs/LOG.md, "Training on a CPU").
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

from headstart.backbone.cut import Tail
from headstart.backbone.graph import is_norm
from headstart.train.tally import Compute

LEAST_ROWS = 8  # of a part: with fewer, a product has too few rows to keep a core busy

_RATES = ("p", "prob", "drop_prob")  # of dropout, of timm's kinds of it
_T = TypeVar("_T")

Gradients = tuple[torch.Tensor | None, ...]


def in_parts(tail: Tail) -> Compute:
    """How to compute the logits of a tail in train mode: by its body in parts where that may be, else by the tail itself.

    A body may be divided where it is on the CPU, trains, draws nothing, and no batch norm looks at the batch. The classifier always sees
    the whole batch. Gradients of the parts are added in their order: the same seed and number of threads give the same result.
    """
    modules, weights = list(tail.body.modules()), list(tail.body.parameters())
    trains = any(weight.requires_grad for weight in weights)
    is_here = all(weight.device.type == "cpu" for weight in weights)
    draws = any("drop" in type(module).__name__.lower() and any(getattr(module, rate, 0) for rate in _RATES) for module in modules)
    looks = any(is_norm(module) and module.training for module in modules)
    if torch.get_num_threads() < 2 or not trains or not is_here or draws or looks:
        return tail
    return _Parts(tail, torch.get_num_threads())


class _Parts:
    def __init__(self, tail: Tail, n_threads: int) -> None:
        self._tail, self._n_threads = tail, n_threads
        self._trained = [weight for weight in tail.body.parameters() if weight.requires_grad]
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="headstart-part")  # they end with the last reference to it

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rows [n, ...] to logits [n, k]."""
        n_parts = min(self._n_threads, len(x) // LEAST_ROWS)
        if n_parts < 2:
            whole: torch.Tensor = self._tail(x)
            return whole
        features = _Features.apply(self, x.tensor_split(n_parts), *self._trained)
        logits: torch.Tensor = self._tail.classifier(features)
        return logits

    def features(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Of each part, with a graph of its own."""
        dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

        def one(x: torch.Tensor) -> torch.Tensor:
            # Autocast is a setting of a thread. Weights that were cast for one thread's graph are no good in another's: none are kept.
            with torch.autocast("cpu", dtype, enabled=enabled, cache_enabled=False):
                return self._tail.features(x)

        return self._each(one, parts)

    def gradients(self, features: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> Gradients:
        """Of the body's trained parameters, summed over the parts."""

        def one(mine: torch.Tensor, theirs: torch.Tensor) -> Gradients:
            return torch.autograd.grad(mine, self._trained, theirs, allow_unused=True)

        # Not added in place: what autograd returns for two parameters may be one tensor.
        first, *others = self._each(one, features, wanted)
        for more in others:
            first = tuple(a if b is None else b if a is None else a + b for a, b in zip(first, more, strict=True))
        return first

    def _each(self, work: Callable[..., _T], *given: Sequence[Any]) -> list[_T]:
        """`work` on a thread for each part, which share the cores between them."""
        n_each = max(1, self._n_threads // len(given[0]))

        def alone(*mine: Any) -> _T:
            torch.set_num_threads(n_each)
            return work(*mine)

        try:
            return list(self._pool.map(alone, *given))
        finally:
            # What was set last is not only this thread's number: autograd gives it to every thread that asks for gradients. It must be
            # theirs while the parts do (else convolutions in bf16 take twenty times as long), and this one from then on.
            torch.set_num_threads(self._n_threads)


class _Features(torch.autograd.Function):
    """The features of all parts as one operation, whose gradients are the parts'."""

    @staticmethod
    def forward(ctx: Any, parts: _Parts, rows: Sequence[torch.Tensor], *trained: nn.Parameter) -> torch.Tensor:
        ctx.parts, ctx.features = parts, parts.features(rows)
        return torch.cat([features.detach() for features in ctx.features])

    @staticmethod
    def backward(ctx: Any, *wanted: torch.Tensor) -> tuple[Any, ...]:
        features, ctx.features = ctx.features, None  # their graphs are freed as soon as they are used
        each = torch.split(wanted[0], [len(one) for one in features])
        return None, None, *ctx.parts.gradients(features, each)
