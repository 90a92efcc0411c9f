"""One batch in several parts, each on a thread of its own with its own batch statistics, as if on several machines.

PyTorch's own threads meet at a barrier after every operation; on a machine that does other work too, they mostly wait for each
other there (docs/LOG.md, 2026-11-20). Parts meet a few times per step.
"""

import copy
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from pretrain.student import Batch, Student
from pretrain.threads import share

Draw = Callable[[int], Batch]
"""Part number to its photos."""


@dataclass(frozen=True)
class Sums:
    """Over the views of one step: loss, count."""

    loss: float
    n: int


class Parts:
    """Copies of a network that share its parameters and have batch statistics of their own."""

    def __init__(self, student: Student, n_parts: int, weights: tuple[float, float, float]) -> None:
        self.students = [student, *(_twin(student) for _ in range(n_parts - 1))]
        self.parameters = list(student.parameters())
        self.weights = weights
        self.pool = ThreadPoolExecutor(n_parts, thread_name_prefix="part")

    def gradients(self, draw: Draw) -> Sums:
        """Leave the mean gradient over all parts in the parameters' `.grad`, and the mean statistics in every copy's buffers.

        The parts are added in their order, so that the result does not depend on which thread is done first.
        """
        done = list(self.pool.map(lambda part: self._one(part, draw), range(len(self.students))))
        n = sum(sums.n for _, sums in done)

        def add(entry: tuple[torch.nn.Parameter, tuple[torch.Tensor, ...]]) -> None:
            parameter, grads = entry
            parameter.grad = functools.reduce(torch.add, grads) / n

        share(self.pool, add, zip(self.parameters, zip(*(grads for grads, _ in done), strict=True), strict=True))
        self._share_statistics()
        return Sums(sum(sums.loss for _, sums in done), n)

    def _one(self, part: int, draw: Draw) -> tuple[tuple[torch.Tensor, ...], Sums]:
        torch.set_num_threads(1)  # a setting of the calling thread
        batch = draw(part)
        student = self.students[part].train()
        # Without the cache of cast weights, which would be shared between the threads.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = student.loss(batch, self.weights)
        grads = torch.autograd.grad(loss, self.parameters)
        return grads, Sums(loss.item(), len(batch.labels))

    @torch.no_grad()
    def _share_statistics(self) -> None:
        for buffers in zip(*(student.network.buffers() for student in self.students), strict=True):
            if len(buffers) > 1 and buffers[0].is_floating_point():
                mean = torch.stack(buffers).mean(0)
                for buffer in buffers:
                    buffer.copy_(mean)


def _twin(student: Student) -> Student:
    twin = copy.deepcopy(student)
    for source, module in zip(student.modules(), twin.modules(), strict=True):
        for name, parameter in source.named_parameters(recurse=False):
            setattr(module, name, parameter)
    return twin
