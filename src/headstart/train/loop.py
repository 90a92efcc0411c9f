"""The one training loop: a tail over stored rows, whatever the cut.

Head only, the top stages, everything: the same call with another tail and another store. At cut `input` the rows are
pixels, prepared on the fly; at every other cut they are activations, used as they are, or computed anew from pixels by `front`.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from headstart.backbone.cut import Tail, Trunk
from headstart.config import Phase
from headstart.data.pixels import Preprocessing
from headstart.progress import progress, quiet
from headstart.train.batches import Examples, Feed
from headstart.train.checkpoint import Checkpoint, fingerprint
from headstart.train.processes import Processes
from headstart.train.tally import Tally, answer, tally_of
from headstart.train.training import Epoch, Trained, Training

__all__ = ["Epoch", "Examples", "Tally", "Trained", "logits_of", "train", "validate"]

LONG_S = 2.0  # answers that take longer show their progress


def train(
    tail: Tail,
    examples: Examples,
    val: Examples,
    phase: Phase,
    *,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    class_weights: np.ndarray | None = None,
    front: Trunk | None = None,
    checkpoint: Path | None = None,
    start: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train every parameter of `tail` that requires a gradient, on rows of the store.

    Where `accelerate launch` started several processes, each takes a part of every batch, and all end with the same tail. Only the
    first one writes, shows progress and calls `on_epoch`.

    Args:
        tail: rows [n, ...] to logits [n, k]. It is copied; the one given stays as it is. Several processes all start from the first one's.
        examples: what to train on; val: what selects the epoch (may be empty: then the last epoch is kept).
        seed: order of the rows, dropout and augmentation follow from it, the epoch and the step.
        precision: "fp32", or "bf16" for autocast; the phase's own goes first.
        preprocessing: for rows that are pixels: how a network's input is made of them.
        class_weights: float [k], each class's weight in the loss; None for 1.
        front: for rows that are pixels and a tail that is not cut at `input`: the trunk that computes the tail's rows, each time anew.
        checkpoint: a file kept up to date after every epoch (shorter epochs: every second). Where it holds this very training, that
            goes on from there and ends as it would have without a break: bit by bit on a CPU in fp32 with the same number of threads. With
            another number it goes on as well, and may end in other last bits.
        start: for the checkpoint: what made `tail` and the rows, in a text that differs wherever these differ by more than rounding.
        on_epoch: told of each epoch that this call computes.

    Returns: the tail of the epoch with the lowest val loss, and the history of all epochs run.
    Raises: ConfigError: training diverged: a loss or a weight is not finite any more; cutmix of rows that are no pixels; dropout for a
        head without dropout layers.
    """
    processes = Processes.joined(device)
    if phase.precision != "run":
        precision = phase.precision
    tail = _as_in_the_first(tail, processes)
    feed = Feed(examples, phase, processes, seed, preprocessing, class_weights)
    training = Training(tail, feed, dataclasses.replace(feed, examples=val, seed=None), front=front, precision=precision)
    file = None
    if checkpoint is not None:
        file = Checkpoint(checkpoint, fingerprint(tail, start, feed, training.val, phase, precision=precision))
        training.go_on_from(file.read())
    description, total, done = f"Training from {phase.cut}", phase.epochs * len(examples), len(training.history) * len(examples)
    with quiet() if processes.rank else contextlib.nullcontext(), progress(description, total, "images", done=done) as advance:
        while not training.is_done:
            training.run_epoch(advance)
            if file is not None and processes.rank == 0 and (file.is_due or training.is_done):
                file.write(training.snapshot())
            if on_epoch is not None and processes.rank == 0:  # after the file is written, so that whatever happens there costs nothing
                on_epoch(training.history[-1])
    return training.result()


def validate(
    tail: Tail,
    val: Examples,
    phase: Phase,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    front: Trunk | None = None,
) -> Tally:
    """Loss and accuracy of `tail`, which is on `device`, on `val` in the centre view; arguments as in `train`."""
    return tally_of(tail, Feed(val, phase, Processes.joined(device), preprocessing=preprocessing), front, precision)


@torch.inference_mode()
def logits_of(
    tail: Tail,
    examples: Examples,
    phase: Phase,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    preprocessing: Preprocessing | None = None,
    front: Trunk | None = None,
) -> np.ndarray:
    """The logits of every row, float32 [n, k], centre view, in the order of `examples`; n may be 0.

    Each of several processes computes all of them. `tail` and `front` are on the CPU and stay there.

    Args: precision: "fp32", or "bf16" for autocast, whatever the phase was trained in. front: as in `train`.
    """
    tail, n = tail.eval(), len(examples)
    if not n:  # k is the classifier's to say, and a head's layers take no rows where a body may not
        return tail.classifier(torch.zeros(0, tail.d_features)).float().numpy()  # type: ignore[no-any-return]
    processes = Processes.joined(device)
    place, found, advance, started = processes.device, list[np.ndarray](), None, time.monotonic()
    if place.type != "cpu":
        tail, front = copy.deepcopy(tail).to(place), None if front is None else copy.deepcopy(front).to(place)
    with quiet() if processes.rank else contextlib.nullcontext(), contextlib.ExitStack() as bar:
        for batch in Feed(examples, phase, Processes(str(place)), preprocessing=preprocessing).batches():
            found.append(answer(tail, batch.x.to(place), front, precision).cpu().numpy())
            if advance is not None:
                advance(batch.n_rows)
            elif time.monotonic() - started > LONG_S:
                advance = bar.enter_context(progress("Computing answers", n, "images", done=sum(map(len, found))))
    return np.concatenate(found)


def _as_in_the_first(tail: Tail, processes: Processes) -> Tail:
    """A tail with the first process's weights: what others solved or drew for themselves may differ, if only by rounding."""
    if processes.n == 1:
        return tail
    tail = copy.deepcopy(tail)
    for tensor in tail.state_dict().values():
        tensor.copy_(processes.first(tensor))
    return tail
