"""A running average of a tail's weights, over the steps of its training."""

import copy

import torch

from headstart.backbone.cut import Tail


class AveragedWeights:
    """A copy of a tail whose trained weights follow it slowly: mean = d * mean + (1 - d) * weights after each step.

    d is `decay`, less in the first steps, (1 + step) / (10 + step): else a short training would average mostly what it started from
    (Source: TensorFlow's ExponentialMovingAverage, `num_updates`). Statistics of norms are not averaged but taken over as they are.

    Attributes: tail: in eval mode.
    """

    def __init__(self, tail: Tail, decay: float) -> None:
        self.tail = copy.deepcopy(tail).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, tail: Tail, step: int) -> None:
        """Take in the weights that `tail` has after `step` (counted from 0)."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, weights in zip(self.tail.parameters(), tail.parameters(), strict=True):
            if weights.requires_grad:
                mean.lerp_(weights, share)
        self.take_statistics(tail)

    def take_statistics(self, tail: Tail) -> None:
        """Take over the statistics of the norms of `tail`."""
        for mine, theirs in zip(self.tail.buffers(), tail.buffers(), strict=True):
            mine.copy_(theirs)
