"""A phase under way: one epoch after the other, its state as numbers to write down, and how to go on from them."""

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.backbone.cut import Tail, Trunk
from headstart.backbone.graph import is_norm
from headstart.errors import ConfigError
from headstart.progress import Advance
from headstart.train import mix
from headstart.train.batches import Batch, Feed
from headstart.train.checkpoint import Snapshot, optimiser_tensors, restore_optimiser
from headstart.train.ema import AveragedWeights
from headstart.train.optim import Schedule, optimiser, take_step
from headstart.train.parts import in_parts
from headstart.train.tally import Tally, add_up, answer, tally_of

LOOK_EVERY = 10  # steps between two looks at the running loss: on a GPU, each waits for what is still being computed


@dataclass(frozen=True)
class Epoch:
    """One line of history.csv. Losses are mean cross-entropy in nats; accuracies 0 to 1; val fields None without val photos.

    Neither class weights nor label smoothing count in them. Of mixed training rows the label with the larger share counts.

    rate: of the phase, in the epoch's first step; each stage has its share of it.
    seconds: of training and validation. images_per_s: training rows a second, validation not counted.
    """

    phase: str
    epoch: int
    rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class Trained:
    """A trained tail, in eval mode, with the weights of its best epoch on val."""

    tail: Tail
    history: tuple[Epoch, ...]
    best_epoch: int


class Training:
    """A phase under way: tail, optimiser, schedule, averaged weights, the best so far, history."""

    def __init__(self, tail: Tail, feed: Feed, val: Feed, *, front: Trunk | None, precision: str) -> None:
        _check(tail, feed, front)
        phase, place = feed.phase, feed.processes.device
        self.feed, self.val, self._phase, self._place, self._precision = feed, val, phase, place, precision
        self._front = None if front is None else copy.deepcopy(front).to(place).to(memory_format=torch.channels_last)
        # Channels last is what convolutions are fastest in, with and without bf16; they bring their input into the order of their weights.
        self._tail = copy.deepcopy(tail).to(place).to(memory_format=torch.channels_last).train()
        if phase.dropout is not None:
            for module in _dropouts(self._tail):
                module.p = phase.dropout
        self._forward = in_parts(self._tail)
        self._trained = [parameter for parameter in self._tail.parameters() if parameter.requires_grad]
        self._optimiser = optimiser(self._tail, phase)
        self._schedule = Schedule(self._optimiser, phase, phase.epochs * feed.n_steps)
        self._average = AveragedWeights(self._tail, phase.ema) if phase.ema else None
        self._class_weights = None if feed.class_weights is None else torch.as_tensor(feed.class_weights, dtype=torch.float32, device=place)
        self._step = 0
        self.history: list[Epoch] = []
        self._best_loss, self._best_epoch, self._best = math.inf, 0, self._tail.state_dict()

    @property
    def is_done(self) -> bool:
        """Whether all epochs have run, or val has not improved for too long."""
        n = len(self.history)
        return n == self._phase.epochs or (n > 0 and n - self._best_epoch >= self._phase.patience)

    def run_epoch(self, advance: Advance) -> None:
        """Train for one epoch, validate, and keep the weights where they are the best so far."""
        epoch, started, rate = len(self.history) + 1, time.monotonic(), self._schedule.rate(self._step)
        tally = Tally()
        for number, batch in enumerate(self.feed.batches(epoch)):
            torch.manual_seed(_seed_of(self.feed, epoch, number))  # of dropout
            self._learn(batch, tally)
            if batch.ends_step:
                self._move(tally)
                if self._step % LOOK_EVERY == 0:
                    if not math.isfinite(tally.loss):
                        raise self._diverged(epoch)
                    advance.note = _note(epoch, self._phase.epochs, tally, self.history, self._schedule.rate(self._step - 1))
            advance(batch.n_rows)
        trained_s = time.monotonic() - started
        selected = self._tail if self._average is None else self._average.tail
        val_tally = self._validate(selected)
        finite = all(bool(weight.isfinite().all()) for weight in self._trained)  # the last step's outcome no training loss has seen
        if not (finite and math.isfinite(tally.loss) and math.isfinite(val_tally.loss)):
            raise self._diverged(epoch)
        seconds = time.monotonic() - started
        speed = len(self.feed.examples) / max(trained_s, 1e-9)
        means = tally.loss, tally.accuracy, *val_tally.as_optional()
        self.history.append(Epoch(self._phase.cut, epoch, rate, *means, seconds, speed))
        self._schedule.observe(val_tally.loss if len(self.val.examples) else tally.loss)
        selecting_loss = val_tally.loss if len(self.val.examples) else -float(epoch)
        if selecting_loss < self._best_loss:
            self._best_loss, self._best_epoch, self._best = selecting_loss, epoch, copy.deepcopy(selected.state_dict())
        advance.note = _note(epoch, self._phase.epochs, tally, self.history, rate)

    def _learn(self, batch: Batch, tally: Tally) -> None:
        """Add the gradient of this process's rows to what the step has so far."""
        if not len(batch.labels):
            return
        x, labels = batch.x.to(self._place), batch.labels.to(self._place)
        front: Callable[[torch.Tensor], torch.Tensor] | None = self._front
        if batch.mixing is not None:
            front = functools.partial(_blended, mixing=batch.mixing, front=self._front)
        logits = answer(self._forward, x, front, self._precision)
        losses = self._losses(logits, labels)
        if batch.mixing is not None:
            share = torch.from_numpy(batch.mixing.label_share).to(self._place)
            losses = share * losses + (1 - share) * self._losses(logits, batch.partner_labels.to(self._place))
        torch.autograd.backward(losses.sum() / batch.step_weight)
        tally.add(logits.detach(), labels)

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self._phase.label_smoothing
        return nn.functional.cross_entropy(logits, labels, self._class_weights, label_smoothing=smoothing, reduction="none")

    def _move(self, tally: Tally) -> None:
        """One step of the optimiser, by the gradient of all processes."""
        if self.feed.processes.n > 1:
            add_up(self._trained, tally, self.feed.processes)
        if self._phase.clip:
            nn.utils.clip_grad_norm_(self._trained, self._phase.clip)
        self._schedule.apply(self._step)
        take_step(self._optimiser)
        self._optimiser.zero_grad()
        if self._average is not None:
            self._average.follow(self._tail, self._step)
        self._step += 1

    def _validate(self, tail: Tail) -> Tally:
        processes = self.feed.processes
        if processes.n > 1:  # batch norms have seen other rows in each of them: the mean, in all of them
            for module in self._tail.body.modules():
                for statistic in module.buffers(recurse=False) if is_norm(module) and module.training else ():
                    if statistic.is_floating_point():
                        statistic.copy_(processes.sum(statistic) / processes.n)
            if self._average is not None:
                self._average.take_statistics(self._tail)
        return tally_of(tail, self.val, self._front, self._precision)

    def _diverged(self, epoch: int) -> ConfigError:
        phase = self._phase
        return ConfigError(f"training diverged in epoch {epoch} of phase '{phase.cut}' at rate {phase.rate:g}", hint="use a lower rate")

    def snapshot(self) -> Snapshot:
        """Everything that the epochs to come depend on, and all that `result` tells."""
        tensors = {f"tail.{name}": tensor for name, tensor in self._tail.state_dict().items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(self._optimiser).items()}
        if self._average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self._average.tail.state_dict().items()}
        is_best = self._best_epoch == len(self.history)  # then the weights are here already
        if not is_best:
            tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        facts: dict[str, Any] = {
            "step": self._step,
            "schedule": self._schedule.facts(),
            "history": [dataclasses.astuple(epoch) for epoch in self.history],
            "best": [self._best_loss, self._best_epoch],
        }
        return Snapshot(tensors, facts)

    def go_on_from(self, snapshot: Snapshot | None) -> None:
        """Take over what `snapshot` gave in another process.

        Raises: ConfigError: the processes found different states.
        """
        step = 0 if snapshot is None else snapshot.facts["step"]
        if self.feed.processes.n > 1 and not self.feed.processes.agree(step):
            raise ConfigError(
                "the processes of this training see different checkpoints", hint="put the run on a disk that all of them share"
            )
        if snapshot is None:
            return

        def under(name: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(name): value for key, value in snapshot.tensors.items() if key.startswith(name)}

        self._tail.load_state_dict(under("tail."))
        restore_optimiser(self._optimiser, under("optimiser."))
        if self._average is not None:
            self._average.tail.load_state_dict(under("average."))
        self._step = step
        self._schedule.restore(snapshot.facts["schedule"])
        self.history = [Epoch(*values) for values in snapshot.facts["history"]]
        self._best_loss, self._best_epoch = snapshot.facts["best"]
        selected = self._tail if self._average is None else self._average.tail
        self._best = under("best.") or copy.deepcopy(selected.state_dict())

    def result(self) -> Trained:
        """The best weights so far, on the CPU, in PyTorch's usual order."""
        self._tail.load_state_dict(self._best)
        tail = self._tail.eval().cpu().to(memory_format=torch.contiguous_format)
        return Trained(tail, tuple(self.history), self._best_epoch)


def _check(tail: Tail, feed: Feed, front: Trunk | None) -> None:
    """Whether the phase fits the tail and its rows."""
    phase = feed.phase
    if phase.cutmix and (feed.preprocessing is None or front is not None):
        raise ConfigError(
            f"cutmix pastes pieces of photos and needs cut `input`, found cut '{phase.cut}'",
            hint="use mixup there, which blends stored rows too",
        )
    if phase.dropout and not _dropouts(tail):
        raise ConfigError(
            f"expected a head with dropout layers for dropout = {phase.dropout:g} in phase '{phase.cut}', found one without",
            hint="give the head hidden layers, such as hidden = [256]",
        )


def _dropouts(tail: Tail) -> list[nn.Dropout]:
    return [module for module in tail.classifier.modules() if isinstance(module, nn.Dropout)]


def _blended(x: torch.Tensor, *, mixing: mix.Mixing, front: Trunk | None) -> torch.Tensor:
    return mix.blend(x if front is None else front(x), mixing)


def _seed_of(feed: Feed, epoch: int, number: int) -> int:
    """For what PyTorch draws in pass `number` of an epoch, in this process: 64 bits that depend on all of them."""
    assert feed.seed is not None
    return int(np.random.SeedSequence([feed.seed, epoch, number, feed.processes.rank]).generate_state(1, np.uint64)[0])


def _note(epoch: int, n_epochs: int, tally: Tally, history: list[Epoch], rate: float) -> str:
    """`epoch 3/20, train 0.312 (90.1 %), val 0.420 (87.3 %), rate 0.001`; val is the last epoch's."""
    last = history[-1] if history else None
    val = f", val {last.val_loss:.3f} ({last.val_accuracy:.1%})" if last is not None and last.val_loss is not None else ""
    return f"epoch {epoch}/{n_epochs}, train {tally.loss:.3f} ({tally.accuracy:.1%}){val}, rate {rate:.2g}"
