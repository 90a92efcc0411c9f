"""What the loop is fed: rows of a store, or photos, in batches; every draw follows from the seed and the epoch alone."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from headstart.config import Phase
from headstart.data.augment import augment
from headstart.data.pixels import Preprocessing, prepare
from headstart.data.reading import read_ahead
from headstart.features.store import Rows
from headstart.train import mix
from headstart.train.processes import Processes

READ_AHEAD = 4  # batches gathered from the store (or decoded and augmented) while the tail computes

_ORDER, _MIX = 0, 1  # what a generator is for, so that one draw more of one kind leaves the others as they are


@dataclass(frozen=True)
class Examples:
    """Stored rows with their labels.

    views: the same photos seen in one or more ways. An epoch draws one view of each photo.
    at: int64 [n], where each example lies in every one of `views`.
    labels: int64 [n], the index of each example's class.
    sha256s: [n] of the photos; with it, augmentation is a function of the photo.
    """

    views: tuple[Rows, ...]
    at: np.ndarray
    labels: np.ndarray
    sha256s: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Batch:
    """This process's share of one forward pass.

    x: rows [n, ...], float32, or uint8 where they are pixels; n is 0 where there are fewer rows than processes.
    labels: int64 [n].
    mixing: how the rows are to be blended, or None; partner_labels int64 [n] goes with it.
    n_rows: rows of the pass in all processes.
    step_weight: the sum of the class weights of all rows of the step in all processes: what their losses' sum is divided by.
    ends_step: whether it is the step's last pass.
    """

    x: torch.Tensor
    labels: torch.Tensor
    partner_labels: torch.Tensor
    mixing: mix.Mixing | None
    n_rows: int
    step_weight: float
    ends_step: bool


@dataclass(frozen=True)
class Feed:
    """Examples as one phase and one process see them.

    seed: of order, views and blends; None for the examples in their order, each once, in the centre view (val).
    preprocessing: for rows that are pixels: how a network's input is made of them.
    class_weights: float [k], each class's weight in the loss; None for 1.
    """

    examples: Examples
    phase: Phase
    processes: Processes
    seed: int | None = None
    preprocessing: Preprocessing | None = None
    class_weights: np.ndarray | None = None

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return -(-len(passes(len(self.examples), self.phase)) // self.phase.accumulate)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, read ahead in threads."""
        n, phase, labels = len(self.examples), self.phase, self.examples.labels
        if not n:
            return
        order, view_of, mixing = np.arange(n), np.zeros(n, np.int64), None
        slices = passes(n, phase)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, epoch, _ORDER])
            order = _drawn(labels, phase.sampling, rng)
            view_of = rng.integers(len(self.examples.views), size=n)
            px = 0 if self.preprocessing is None else self.preprocessing.input_px
            mixing = mix.draw(phase, slices, px, np.random.default_rng([self.seed, epoch, _MIX]))
        partner_labels = labels[order if mixing is None else order[mixing.partner]]
        step_weights = self._step_weights(labels[order], partner_labels, mixing, slices)
        read = _reader(self.examples, phase.augment if self.seed is not None else "none", epoch, self.preprocessing)

        def load(number: int) -> Batch:
            whole = slices[number]
            places = self.processes.share(whole)
            some = order[places]
            return Batch(
                x=read(some, view_of[places]) if len(some) else torch.empty(0),
                labels=torch.from_numpy(labels[some]),
                partner_labels=torch.from_numpy(partner_labels[places]),
                mixing=None if mixing is None else mixing.part(places),
                n_rows=whole.stop - whole.start,
                step_weight=float(step_weights[number // phase.accumulate]),
                ends_step=(number + 1) % phase.accumulate == 0 or number + 1 == len(slices),
            )

        yield from read_ahead(load, range(len(slices)), threads=2, ahead=READ_AHEAD)

    def _step_weights(self, labels: np.ndarray, partners: np.ndarray, mixing: mix.Mixing | None, slices: list[slice]) -> np.ndarray:
        weight = np.ones(len(labels))
        if self.class_weights is not None:
            share = 1.0 if mixing is None else mixing.label_share.astype(np.float64)
            weight = share * self.class_weights[labels] + (1 - share) * self.class_weights[partners]
        return np.add.reduceat(weight, [part.start for part in slices[:: self.phase.accumulate]])


def passes(n: int, phase: Phase) -> list[slice]:
    """The rows of each forward pass of an epoch over `n` rows, as places in the epoch's order."""
    starts = list(range(0, n, phase.batch_size))
    # Batch norm refuses a single row where the maps are 1 x 1, and its statistics would mean little elsewhere: a last batch of one row
    # joins the batch before it. Where statistics are the published ones, one row is a batch like any other.
    if phase.norm == "batch" and len(starts) > 1 and n - starts[-1] == 1:
        del starts[-1]
    return [slice(*bounds) for bounds in itertools.pairwise([*starts, n])]


def _drawn(labels: np.ndarray, sampling: str, rng: np.random.Generator) -> np.ndarray:
    """An epoch's order, int64 [n]: every row once, or `balanced`, n rows, of every class equally many (but for a remainder).

    A class with too few rows starts over once all of them were drawn; one with too many has others drawn in the next epoch.
    """
    n = len(labels)
    if sampling == "all":
        return rng.permutation(n)
    classes = np.unique(labels)
    counts = np.full(len(classes), n // len(classes))
    counts[rng.permutation(len(classes))[: n % len(classes)]] += 1
    drawn = []
    for label, count in zip(classes, counts, strict=True):
        rows = np.flatnonzero(labels == label)
        drawn.append(np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))] or [rows[:0]])[:count])
    return rng.permutation(np.concatenate(drawn))


def _reader(
    examples: Examples, policy: str, epoch: int, preprocessing: Preprocessing | None
) -> Callable[[np.ndarray, np.ndarray], torch.Tensor]:
    """How rows become a batch: pixels are prepared or augmented; activations are taken as they are."""

    def activations(some: np.ndarray, view_of: np.ndarray) -> torch.Tensor:
        rows = examples.at[some]
        centre = torch.from_numpy(examples.views[0][rows])
        # Float32 whatever the store holds, as views may be stored in different dtypes. PyTorch's own memory even for float32: it is
        # aligned, NumPy's is not always, and products may round by alignment.
        batch = centre.to(torch.float32, copy=True)
        for view in range(1, len(examples.views)):
            if (mine := view_of == view).any():
                batch[torch.from_numpy(mine)] = torch.from_numpy(examples.views[view][rows[mine]]).float()
        return batch

    if preprocessing is None:
        return activations
    recipe = preprocessing

    def pictures(some: np.ndarray, view_of: np.ndarray) -> torch.Tensor:
        images = examples.views[0][examples.at[some]]
        if policy == "none":
            return torch.from_numpy(np.stack([prepare(image, recipe) for image in images]))
        drawn = zip(images, some, strict=True)
        return torch.from_numpy(np.stack([augment(image, examples.sha256s[i], policy, epoch, recipe) for image, i in drawn]))

    return pictures
