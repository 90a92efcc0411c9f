"""The one training loop: a tail over stored rows, whatever the cut.

Head only, the top stages, everything: the same call with another tail and another store. At cut `input` the rows are
pixels, prepared on the fly; at every other cut they are activations, used as they are.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from headstart.backbone.cut import Tail
from headstart.config import Phase
from headstart.data.pixels import Preprocessing, prepare
from headstart.data.reading import read_ahead
from headstart.data.views import augment
from headstart.errors import ConfigError
from headstart.features.store import Rows
from headstart.progress import progress
from headstart.train.optim import optimiser, rate_schedule

READ_AHEAD = 4  # batches gathered from the store (or decoded and augmented) while the tail computes


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
class Epoch:
    """One line of history.csv. Losses are mean cross-entropy in nats; accuracies 0 to 1; val fields None without val photos."""

    phase: str
    epoch: int
    rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A trained tail, in eval mode, with the weights of its best epoch on val."""

    tail: Tail
    history: tuple[Epoch, ...]
    best_epoch: int


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
) -> Trained:
    """Train every parameter of `tail` that requires a gradient, on rows of the store.

    Args:
        tail: rows [n, ...] to logits [n, k]. It is copied; the one given stays as it is.
        examples: what to train on; val: what selects the epoch (may be empty: then the last epoch is kept).
        seed: order of the rows, dropout and augmentation follow from it.
        precision: "fp32", or "bf16" for autocast.
        preprocessing: for rows that are pixels: how a network's input is made of them.
        class_weights: float [k], each class's weight in the loss; None for 1.

    Returns: the tail of the epoch with the lowest val loss, and the history of all epochs run.
    Raises: ConfigError: training diverged: a loss or a weight is not finite any more.
    """
    # Device and precision are this call's own: Accelerate's hold for the whole process. After a call on the CPU it would stay there
    # without a word, after one on a GPU it would refuse the CPU, and it offers no way to reset that.
    accelerator = Accelerator(device_placement=False)
    place = torch.device(device)
    autocast = torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16")
    torch.manual_seed(seed)
    n_steps = phase.epochs * len(_slices(len(examples), phase))
    tail = copy.deepcopy(tail).to(place).train()
    optimizer = optimiser(tail, phase)
    schedule = rate_schedule(optimizer, phase, n_steps)
    tail, optimizer = accelerator.prepare(tail, optimizer)
    weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32, device=place)
    loss_of = nn.CrossEntropyLoss(weight=weights, label_smoothing=phase.label_smoothing)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = float("inf"), 0, tail.state_dict()
    with progress(f"Training from {phase.cut}", phase.epochs * len(examples), "rows") as advance:
        for epoch in range(1, phase.epochs + 1):
            started, rate = time.monotonic(), float(schedule.get_last_lr()[0])
            tally = Tally()
            for x, y in _batches(examples, phase, seed=seed, epoch=epoch, preprocessing=preprocessing):
                x, y = x.to(place), y.to(place)
                with autocast:
                    logits = tail(x)
                logits = logits.float()
                loss = loss_of(logits, y)
                if not math.isfinite(float(loss.detach())):
                    raise _diverged(phase, epoch)
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                tally.add(logits.detach(), y)
                advance(len(y))
            val_tally = validate(tail, val, phase, place, preprocessing)
            if not (math.isfinite(val_tally.loss) and all(bool(weight.isfinite().all()) for weight in tail.parameters())):
                raise _diverged(phase, epoch)  # in the epoch's last step, whose outcome no training loss has seen
            seconds = time.monotonic() - started
            history.append(Epoch(phase.cut, epoch, rate, tally.loss, tally.accuracy, *val_tally.as_optional(), seconds))
            selecting_loss = val_tally.loss if len(val) else -float(epoch)
            if selecting_loss < best_loss:
                best_loss, best_epoch, best_state = selecting_loss, epoch, copy.deepcopy(tail.state_dict())
            elif epoch - best_epoch >= phase.patience:
                break
    tail = accelerator.unwrap_model(tail)
    tail.load_state_dict(best_state)
    return Trained(tail.eval().cpu(), tuple(history), best_epoch)


@torch.inference_mode()
def validate(tail: nn.Module, val: Examples, phase: Phase, device: torch.device, preprocessing: Preprocessing | None) -> "Tally":
    """Loss and accuracy on `val`, centre view, in eval mode; the tail is back in train mode afterwards."""
    tail.eval()
    tally = Tally()
    for x, y in _batches(val, phase, seed=None, epoch=0, preprocessing=preprocessing):
        tally.add(tail(x.to(device)).float(), y.to(device))
    tail.train()
    return tally


@torch.inference_mode()
def logits_of(tail: Tail, examples: Examples, phase: Phase, *, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """The logits of every row, float32 [n, k], centre view, in the order of `examples`; n may be 0."""
    tail = tail.eval()
    if not len(examples):  # k is the classifier's to say, and a head's layers take no rows where a body may not
        return tail.classifier(torch.zeros(0, tail.d_features)).float().numpy()  # type: ignore[no-any-return]
    batches = _batches(examples, phase, seed=None, epoch=0, preprocessing=preprocessing)
    return np.concatenate([tail(x).float().cpu().numpy() for x, _ in batches])


def _diverged(phase: Phase, epoch: int) -> ConfigError:
    return ConfigError(f"training diverged in epoch {epoch} of phase '{phase.cut}' at rate {phase.rate:g}", hint="use a lower rate")


class Tally:
    """Running mean of loss and accuracy over batches; unweighted and unsmoothed, so that train and val compare."""

    def __init__(self) -> None:
        self.n = 0
        self._loss = self._right = 0.0

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: logits float [n, k], labels int64 [n]."""
        self.n += len(labels)
        self._loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        self._right += float((logits.argmax(1) == labels).sum())

    @property
    def loss(self) -> float:
        return self._loss / max(1, self.n)

    @property
    def accuracy(self) -> float:
        return self._right / max(1, self.n)

    def as_optional(self) -> tuple[float | None, float | None]:
        """Loss and accuracy, None where nothing was counted."""
        return (self.loss, self.accuracy) if self.n else (None, None)


def _slices(n: int, phase: Phase) -> list[slice]:
    """The rows of each batch of an epoch over `n` rows, as places in the epoch's order."""
    starts = list(range(0, n, phase.batch_size))
    # Batch norm refuses a single row where the maps are 1 x 1, and its statistics would mean little elsewhere: a last batch of one row
    # joins the batch before it. Where statistics are the published ones, one row is a batch like any other.
    if phase.norm == "batch" and len(starts) > 1 and n - starts[-1] == 1:
        del starts[-1]
    return [slice(*bounds) for bounds in itertools.pairwise([*starts, n])]


def _batches(
    examples: Examples, phase: Phase, *, seed: int | None, epoch: int, preprocessing: Preprocessing | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one epoch, read ahead in a thread. `seed` None: in order, centre view (val); else shuffled."""
    n = len(examples)
    order, view_of = np.arange(n), np.zeros(n, np.int64)
    if seed is not None:
        rng = np.random.default_rng([seed, epoch])
        order, view_of = rng.permutation(n), rng.integers(len(examples.views), size=n)
    read = _reader(examples, phase.augment if seed is not None else "none", epoch, preprocessing)

    def load(places: slice) -> tuple[torch.Tensor, torch.Tensor]:
        some = order[places]
        return torch.from_numpy(read(some, view_of[some])), torch.from_numpy(examples.labels[some])

    yield from read_ahead(load, _slices(n, phase), threads=2, ahead=READ_AHEAD)


def _reader(
    examples: Examples, policy: str, epoch: int, preprocessing: Preprocessing | None
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """How rows become a batch: pixels are prepared or augmented; activations are taken as they are."""

    def activations(some: np.ndarray, view_of: np.ndarray) -> np.ndarray:
        rows = examples.at[some]
        batch: np.ndarray = examples.views[0][rows]
        for view in range(1, len(examples.views)):
            if (mine := view_of == view).any():
                batch[mine] = examples.views[view][rows[mine]]
        return batch.astype(np.float32)

    if preprocessing is None:
        return activations
    recipe = preprocessing

    def pictures(some: np.ndarray, view_of: np.ndarray) -> np.ndarray:
        images = examples.views[0][examples.at[some]]
        if policy == "none":
            return np.stack([prepare(image, recipe) for image in images])
        drawn = zip(images, some, strict=True)
        return np.stack([augment(image, examples.sha256s[i], policy, epoch, recipe) for image, i in drawn])

    return pictures
