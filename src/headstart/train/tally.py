"""Loss and accuracy over batches, of one process or several."""

from collections.abc import Callable

import torch
from torch import nn

from headstart.backbone.cut import Trunk
from headstart.train.batches import Feed
from headstart.train.processes import Processes

Compute = Callable[[torch.Tensor], torch.Tensor]


class Tally:
    """Running mean of loss and accuracy over batches; unweighted and unsmoothed, so that train and val compare.

    What is added stays on its device until a mean is asked for, so that adding never waits for it.
    """

    def __init__(self) -> None:
        self._sums = [0.0, 0.0, 0.0]  # loss, right answers, rows
        self._pending: list[torch.Tensor] = []
        self._shared: list[torch.Tensor] = []  # counted by all processes together already

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: logits float [n, k], labels int64 [n]."""
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        right = (logits.argmax(1) == labels).sum()
        self._pending.append(torch.stack((loss, right.to(loss.dtype), torch.full_like(loss, len(labels)))))

    def take(self, device: torch.device) -> torch.Tensor:
        """Remove what was added since the last mean or `take`: float32 [3], the sums of loss, right answers and rows."""
        taken, self._pending = self._pending, []
        return torch.stack(taken).sum(0) if taken else torch.zeros(3, device=device)

    def put(self, sums: torch.Tensor) -> None:
        """Count what `take` removed in all processes, for good: `take` leaves it alone."""
        self._shared.append(sums)

    @property
    def n(self) -> int:
        """How many rows were counted."""
        return int(self._settled()[2])

    @property
    def loss(self) -> float:
        return self._settled()[0] / max(1, self.n)

    @property
    def accuracy(self) -> float:
        return self._settled()[1] / max(1, self.n)

    def as_optional(self) -> tuple[float | None, float | None]:
        """Loss and accuracy, None where nothing was counted."""
        return (self.loss, self.accuracy) if self.n else (None, None)

    def _settled(self) -> list[float]:
        if taken := [*self._pending, *self._shared]:
            self._pending, self._shared = [], []
            new: list[float] = torch.stack(taken).cpu().double().sum(0).tolist()
            self._sums = [before + more for before, more in zip(self._sums, new, strict=True)]
        return self._sums


@torch.inference_mode()
def tally_of(tail: nn.Module, feed: Feed, front: Trunk | None, precision: str) -> Tally:
    """Loss and accuracy of `tail` in eval mode on the feed's rows, shared between the processes; the tail's mode is as before after it."""
    processes, was_training = feed.processes, tail.training
    tail.eval()
    tally = Tally()
    for batch in feed.batches():
        if len(batch.labels):
            tally.add(answer(tail, batch.x.to(processes.device), front, precision), batch.labels.to(processes.device))
    tail.train(was_training)
    if processes.n > 1:
        tally.put(processes.sum(tally.take(processes.device)))
    return tally


def answer(tail: Compute, x: torch.Tensor, front: Compute | None, precision: str) -> torch.Tensor:
    """The logits of a batch, float32 [n, k]."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = tail(x if front is None else front(x))
    return logits.float()


@torch.no_grad()
def add_up(parameters: list[nn.Parameter], tally: Tally, processes: Processes) -> None:
    """Give every process the sum of all processes' gradients, and of what their tallies counted in this step, in one exchange."""
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]  # no rows, no gradient
    total = processes.sum(torch.cat([*(gradient.flatten() for gradient in gradients), tally.take(processes.device)]))
    *parts, counted = torch.split(total, [*(gradient.numel() for gradient in gradients), 3])
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = gradient.copy_(part.view(gradient.shape))
    tally.put(counted)
