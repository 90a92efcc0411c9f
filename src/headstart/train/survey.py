"""What a plan is made from: what the photos and the probe say, and what training costs on this machine."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from headstart.backbone import cut as cuts
from headstart.backbone.graph import is_norm
from headstart.backbone.networks import Network
from headstart.data import pixels
from headstart.data.reading import read_unchanged
from headstart.errors import ConfigError
from headstart.features import engine
from headstart.train import optim
from headstart.train.parts import LEAST_ROWS, in_parts
from headstart.train.plan import BATCH, DEPTHS, Cost, Situation, seconds_of, start_s
from headstart.train.task import Task
from headstart.train.tune import Place

MEASURE_S = 5.0
MEASURE_PHOTOS = 16
LONG_S = 0.5  # two calls that take longer together are measure enough
TRUNK_PHOTOS = 32  # a trunk pass over fewer says little about its speed


@dataclass(frozen=True)
class Sample:
    """What `measure` works on.

    images: uint8 [m, px, px, 3], real photos.
    load_s: seconds it took to read a photo.
    trunk_s: seconds a photo that the trunk pass up to `head` took, where it ran.
    export_s, open_s: seconds it took to make that trunk ready for the engine, the first and the second time.
    """

    images: np.ndarray
    load_s: float
    trunk_s: float | None
    n_classes: int
    device: str = "cpu"
    precision: str = "fp32"
    export_s: float = 0.0
    open_s: float = 0.0


def situation_of(task: Task, logits: np.ndarray, photos: np.ndarray, own: tuple[int, int]) -> Situation:
    """The situation after the probe.

    Args:
        logits [n, k]: what the probe said of `photos`, not having seen them.
        own: how many photos the probe was solved on, and how many of these it gets wrong all the same.
    """
    counts = np.bincount(task.table.labels[task.fit], minlength=task.n_classes)
    sides = [min(task.table.photos[i].width, task.table.photos[i].height) for i in task.fit]
    return Situation(
        n_train=len(task.fit),
        n_select=len(task.halves[0]),
        n_classes=task.n_classes,
        per_class=int(np.median(counts)),
        fewest=int(counts.min()),
        evenness=_evenness(counts),
        n_right=int((logits.argmax(1) == task.table.labels[photos]).sum()),
        n_answered=len(photos),
        n_solved=own[0],
        n_missed=own[1],
        photo_px=int(np.quantile(sides, 0.9, method="higher")) if sides else 0,
        input_px=task.network.preprocessing.input_px,
        norm=_norm_of(task.network),
    )


def _evenness(counts: np.ndarray) -> float:
    """Entropy of the classes' shares over that of equal ones, 0 to 1; `counts`: photos of each class, int [k]."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum() / np.log(len(counts))) if len(counts) > 1 else 0.0


def network_to_tune(task: Task, situation: Situation) -> Network:
    """The network at the size that the photos are tuned at; at the run's, where that was asked for or weights depend on the size."""
    px, network = situation.enough_px, task.network
    if px == network.preprocessing.input_px or task.asked.px is not None or task.network_at is None:
        return network
    try:
        smaller = task.network_at(px)
    except ConfigError:  # a size it does not take
        return network
    return smaller if _shapes(smaller) == _shapes(network) else network


def _shapes(network: Network) -> list[torch.Size]:
    return [tensor.shape for tensor in network.module.state_dict().values()]


def candidates(network: Network) -> dict[str, int]:
    """The cuts that are tried, and the training photos from which on: before the top quarter, the top half, and all of the stages.

    The one nearest to the head comes first. In a network of few stages two shares may be the same cut, which takes the fewer photos.
    """
    names = cuts.cut_names(network)[:-1]  # tails of 1, 2, ... stages begin at the last but one, last but two, ... of these
    n, found = len(names) - 1, dict[str, int]()
    for share, photos in DEPTHS if n else ():
        found.setdefault(names[-1 - max(1, round(share * n))], photos)
    return found


def measure(network: Network, cut: str, sample: Sample, batch_size: int = BATCH) -> Cost:
    """Time real steps behind `cut` on the sample's photos, as many at a time as keep the cores as busy as a batch does."""
    place = torch.device(sample.device)
    trunk, tail = cuts.split(network, cut)
    trunk, tail = trunk.to(place), tail.with_head(sample.n_classes).to(place).to(memory_format=torch.channels_last)
    n = min(batch_size, max(len(sample.images), LEAST_ROWS * torch.get_num_threads()))
    x = torch.from_numpy(np.resize(sample.images, (n, *sample.images.shape[1:]))).to(place)
    labels = torch.zeros(len(x), dtype=torch.int64, device=place)
    optimiser = optim.adam([{"params": [weight for weight in tail.parameters() if weight.requires_grad]}], rate=0.0)
    autocast = torch.autocast(place.type, torch.bfloat16, enabled=sample.precision == "bf16")
    rows = trunk(x)

    def live() -> None:
        with autocast:
            trunk(x)

    def answer() -> None:
        with torch.inference_mode(), autocast:
            tail.eval()(rows)

    def learn() -> None:
        with autocast:
            logits = forward(rows)
        nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]

    is_pixels = trunk.cut == cuts.INPUT
    live_s, forward_s = (0.0 if work is live and is_pixels else _timed(work, place) / len(x) for work in (live, answer))
    forward = in_parts(tail.train())
    step_s = _timed(learn, place) / len(x) + _timed(optimiser.step, place) / batch_size
    trunk_s = sample.load_s + live_s if sample.trunk_s is None else sample.trunk_s
    px = network.preprocessing.input_px
    row_bytes = rows[0].numel() * (1 if is_pixels else 2)
    return Cost(trunk.cut, px, sample.load_s, trunk_s, live_s, step_s, forward_s, row_bytes, export_s=sample.export_s, open_s=sample.open_s)


def measure_all(network: Network, sample: Sample) -> list[Cost]:
    """The costs of the `candidates`, the one nearest to the head first; later ones are left out where MEASURE_S might not be enough."""
    started, found = time.monotonic(), list[Cost]()
    for name, photos in candidates(network).items():
        if found and 3 * (time.monotonic() - started) > MEASURE_S:  # the next one takes at least as long as those so far
            break
        found.append(dataclasses.replace(measure(network, name, sample), from_photos=photos))
    return found


def _norm_of(network: Network) -> str:
    """Kind of the network's norms: `batch` (also where they were folded away) or `layer`."""
    norms = [module for module in network.module.modules() if is_norm(module)]
    return "layer" if norms and not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in norms) else "batch"


def _timed(work: Callable[[], None], place: torch.device) -> float:
    """Seconds of one call, after one to warm up; the faster of two where they are short."""
    took = []
    for _ in range(3):
        started = time.monotonic()
        work()
        if place.type != "cpu":  # else the clock would stop before the work does
            torch.accelerator.synchronize(place)
        took.append(time.monotonic() - started)
        if len(took) == 2 and sum(took) > LONG_S:
            break
    return min(took)


def sample_of(task: Task, network: Network) -> Sample:
    """A few training photos, read the way a run reads them for this network, the task's at any size."""
    some = task.fit[:: max(1, len(task.fit) // MEASURE_PHOTOS)][:MEASURE_PHOTOS]
    started = time.monotonic()
    images = [pixels.load(read_unchanged(task.table.file(i), task.table.photos[i].sha256), network.preprocessing) for i in some]
    load_s = (time.monotonic() - started) / len(images)
    ran = [one for one in task.extract.passes if one.n_computed >= TRUNK_PHOTOS]
    trunk_s = ran[0].seconds / ran[0].n_computed if ran else None
    if trunk_s is not None:  # what is computed goes with the pixels; reading does not
        pixels_share = (network.preprocessing.input_px / task.network.preprocessing.input_px) ** 2
        trunk_s = max(min(trunk_s, load_s), pixels_share * trunk_s)
    asked = task.asked
    return Sample(np.stack(images), load_s, trunk_s, task.n_classes, asked.device, asked.precision, *_opening_s(task, network))


def _opening_s(task: Task, network: Network) -> tuple[float, float]:
    """Seconds to open the trunk up to `head` a first and a second time; what is exported here is used again by the trial's head."""
    trunk, took = cuts.Trunk(network, cuts.HEAD), list[float]()
    try:
        for _ in range(2):
            started = time.monotonic()
            engine.open_trunk(trunk, task.extract.choice)
            took.append(time.monotonic() - started)
    except engine.CannotExportError:  # PyTorch runs it, which has nothing to open
        return 0.0, 0.0
    return took[0], took[1]


def estimate(task: Task, situation: Situation, places: Sequence[Place]) -> float | None:
    """Minutes that given phases will take at most, before early stopping; None where measuring alone would take long."""
    started, seconds = time.monotonic(), 0.0
    for place in places:
        if 2 * (time.monotonic() - started) > MEASURE_S:
            return None
        phase = place.phase
        cost = measure(place.network, place.cut, sample_of(task, place.network), phase.batch_size * phase.accumulate)
        n_rows, stored = len(set(task.table.sha256s)), not place.recomputed
        if place is places[0] and phase.hidden is None:
            seconds += start_s(cost, situation)
        seconds += seconds_of(cost, situation, phase.epochs, phase.views, n_rows=n_rows, stored=stored)
    return seconds / 60
