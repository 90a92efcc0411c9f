"""Training phase after phase: where each is cut, which rows it trains on, what it takes over from the one before."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from headstart.backbone import cut as cuts
from headstart.backbone.cut import HEAD, INPUT, Tail, Trunk
from headstart.backbone.networks import Network
from headstart.config import Head, Phase
from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError, did_you_mean
from headstart.features.extract import spec_of
from headstart.features.store import Rows
from headstart.files import human_bytes
from headstart.train.classifier import dense
from headstart.train.loop import Epoch, Examples, logits_of, train
from headstart.train.optim import shares
from headstart.train.task import Task
from headstart.values import true_of


@dataclass(frozen=True)
class Place:
    """Where a phase trains.

    cut: the cut's name, whatever words the phase has for it.
    store_bytes: what its rows take in the store.
    recomputed: whether the layers before the cut are computed again in every epoch, from stored pixels; `notice` says why.
    """

    phase: Phase
    network: Network
    cut: str
    store_bytes: int
    recomputed: bool = False
    notice: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        px = self.network.preprocessing.input_px
        return {
            "cut": self.cut,
            "px": px,
            "epochs": self.phase.epochs,
            "recomputed": self.recomputed,
            "store_bytes": self.store_bytes,
        }


@dataclass(frozen=True)
class Tuned:
    """A network after its phases.

    before: the tail that the last phase started from; None where that phase was the first, or started a new head.
    """

    tail: Tail
    behind: "Behind"
    history: tuple[Epoch, ...]
    before: Tail | None = None


@dataclass(frozen=True)
class Behind:
    """The rows on which tails behind one cut are trained and asked.

    rows: centre views, over the whole table.
    views: all views of the training photos, the centre one first; empty where it is the only one.
    preprocessing: where rows are pixels: how a network's input is made of them. front: what is computed of that before the tail.
    """

    task: Task
    phase: Phase
    network: Network
    trunk: Trunk
    rows: Rows
    views: tuple[Rows, ...] = ()
    preprocessing: Preprocessing | None = None
    front: Trunk | None = None

    def training(self) -> Examples:
        """What is trained on."""
        fit = self.task.fit
        return self.task.examples(self.views, fit, np.arange(len(fit))) if self.views else self.centre(fit)

    def centre(self, photos: np.ndarray) -> Examples:
        """The centre views of these photos."""
        return self.task.examples((self.rows,), photos)

    def logits(self, tail: Tail, photos: np.ndarray) -> np.ndarray:
        """What a tail says of these photos' centre views, float32 [n, k]."""
        asked = self.task.asked
        return logits_of(
            tail,
            self.centre(photos),
            self.phase,
            device=asked.device,
            precision=asked.precision,
            preprocessing=self.preprocessing,
            front=self.front,
        )


def resolved(head: Head, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases that are run: a dense head starts in the first one, which is added where that is not at cut `head`."""
    if head.kind == "linear":
        return tuple(phases)
    first, *others = phases if phases and phases[0].cut == HEAD else (Phase(cut=HEAD, epochs=60, patience=10), *phases)
    if first.hidden is None:
        first = dataclasses.replace(first, hidden=head.hidden)
    if first.dropout is None:
        first = dataclasses.replace(first, dropout=head.dropout)
    return (first, *others)


def network_for(task: Task, phase: Phase) -> Network:
    """The network at the phase's size."""
    if phase.px is None or phase.px == task.network.preprocessing.input_px or task.network_at is None:
        return task.network
    return task.network_at(phase.px)


def check_cuts(network: Network, phases: Sequence[Phase]) -> list[str]:
    """The names of the phases' cuts.

    Raises: ConfigError: no such cut, one that moves away from `input`, or keys that do nothing there (config could not know: `top 3`).
    """
    order = cuts.cut_names(network)
    names, problems = list[str](), list[str]()
    for number, phase in enumerate(phases):
        _, tail = cuts.split(network, phase.cut, batch_statistics=phase.norm == "batch")  # raises what the network cannot do
        names.append(cuts.resolve(network, phase.cut).name)
        found = [*phase.problems_at(names[-1]), *_stage_problems(phase, tail.stages, order)]
        problems += [f"phases.{number}: {problem}" for problem in found]
    if problems:
        rated = {stage for phase in phases for stage in phase.stage_rates or {}}
        near = next((hint for stage in sorted(rated - set(order)) if (hint := did_you_mean(stage, order[1:])) is not None), None)
        raise ConfigError("; ".join(problems), hint=near)
    places = [order.index(name) for name in names]
    if places != sorted(places, reverse=True):
        raise ConfigError(
            f"cuts may only move toward `input` from phase to phase, found {' -> '.join(phase.cut for phase in phases)}",
            hint=f"the network's order is {', '.join(order)}",
        )
    return names


def _stage_problems(phase: Phase, trained: Sequence[str], order: Sequence[str]) -> list[str]:
    """What is wrong with the stages that `stage_rates` names. `trained`: those behind the cut; `order`: all of the network's cuts."""
    named = {} if phase.stage_rates is None else phase.stage_rates
    unknown, before = ([name for name in named if name not in trained and (name in order[1:]) is there] for there in (False, True))
    return true_of(
        (bool(unknown), f"stage_rates names {', '.join(unknown)}, which this network does not have (its stages: {', '.join(order[1:])})"),
        (
            bool(before),
            f"stage_rates names {', '.join(before)}, before cut = {phase.cut}, where nothing trains (behind it: {', '.join(trained)})",
        ),
        (bool(named) and not any(shares(trained, phase).values()), "stage_rates leaves every stage a rate of 0, which trains nothing"),
    )


def find_places(task: Task, phases: Sequence[Phase], decided: Sequence[str | None] | None = None) -> list[Place]:
    """Where each phase trains, and on which rows: all rows of the run must fit the store together.

    Where they do not, the phase whose activations take most goes without them, until the rest fits.

    Args: decided: `Plan.recomputed`, where that was settled before: room comes and goes, a run's result should not.
    Raises:
        ConfigError: as `check_cuts`; or another px, which changes the shape of what an earlier phase trains.
        StoreError: the features of the head and stored pixels alone are too much.
    """
    names = check_cuts(task.network, phases)
    room = task.extract.store.room_bytes()
    head_bytes = task.extract.bytes_of(cuts.Trunk(task.network, HEAD), task.asked.test_views)
    places = list[Place]()
    for phase, name in zip(phases, names, strict=True):
        network = network_for(task, phase)
        trunk, more = cuts.Trunk(network, name), 0 if name == INPUT else phase.views - 1
        n_bytes = task.extract.bytes_of(trunk) + (task.extract.bytes_of(trunk, more, photos=task.fit) if more else 0)
        places.append(Place(phase, network, name, n_bytes))
    _check_sizes(places)
    if places and starts_anew(task, places[0]):
        head_bytes += task.extract.bytes_of(cuts.Trunk(places[0].network, HEAD), photos=task.fit)
    if decided is not None:
        return [place if why is None else _recomputed(task, place, why) for place, why in zip(places, decided, strict=True)]
    while (total := sum((wanted := _wanted(places, head_bytes)).values())) > room:
        stored = [i for i, place in enumerate(places) if place.cut != INPUT and not place.recomputed]
        if not stored:
            raise task.extract.store.no_room(_by_cut(wanted))
        most = max(stored, key=lambda i: places[i].store_bytes)
        why = (
            f"the activations at cut {places[most].cut} would take {human_bytes(places[most].store_bytes)} "
            f"({human_bytes(total)} with the run's other rows), the feature store has room for {human_bytes(room)}: "
            "the layers before the cut are computed again in every epoch"
        )
        places[most] = _recomputed(task, places[most], why)
    return places


def starts_anew(task: Task, first: Place) -> bool:
    """Whether the first phase needs a head of its own to start with: the probe's fits features at the run's size."""
    return first.network is not task.network and first.phase.hidden is None


def _check_sizes(places: Sequence[Place]) -> None:
    """Whether what is trained at one px fits the network at the next one. Raises: ConfigError: a tensor of another shape."""
    for before, after in itertools.pairwise(places):
        if before.network is after.network:
            continue
        trained, published = (cuts.split(place.network, place.cut)[1].state_dict() for place in (before, after))
        if changed := [name for name, tensor in trained.items() if tensor.shape != published[name].shape]:
            raise ConfigError(
                f"the size of {', '.join(changed)} depends on the network's input, so it cannot be trained at one px and then at another",
                hint="give all phases that train it the same px",
            )


def _wanted(places: Sequence[Place], head_bytes: int) -> dict[tuple[int | None, str, str], int]:
    """Bytes of each set of rows, which phases at the same cut share."""
    wanted: dict[tuple[int | None, str, str], int] = {(None, HEAD, "none"): head_bytes}
    for place in places:
        phase, is_pixels = place.phase, place.recomputed or place.cut == INPUT
        px = place.network.preprocessing.input_px
        key = (px, INPUT, "none") if is_pixels else (px, place.cut, phase.augment if phase.views > 1 else "none")
        wanted[key] = max(wanted.get(key, 0), place.store_bytes)
    return wanted


def _by_cut(wanted: Mapping[tuple[int | None, str, str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, cut, _), n_bytes in wanted.items():
        found[cut] = found.get(cut, 0) + n_bytes
    return found


def _recomputed(task: Task, place: Place, why: str) -> Place:
    pixels = task.extract.bytes_of(cuts.Trunk(place.network, INPUT))
    return dataclasses.replace(place, store_bytes=pixels, recomputed=True, notice=why)


def run_phases(task: Task, places: Sequence[Place], classifier: nn.Module) -> Tuned:
    """Train phase after phase, starting with `classifier` on the published network; val selects each phase's epoch."""
    (select, _), asked = task.halves, task.asked
    history: list[Epoch] = []
    tail: Tail | None = None
    before: Tail | None = None
    for number, place in enumerate(places):
        phase = place.phase
        behind = rows_behind(task, place)
        _, published = cuts.split(place.network, phase.cut, batch_statistics=phase.norm == "batch")
        tail = published.with_head(classifier) if tail is None else carry_over(tail, published)
        before = None if number == 0 or phase.hidden is not None else tail
        tail = _with_new_head(tail, behind, number)
        trained = train(
            tail,
            behind.training(),
            behind.centre(select),
            behind.phase,
            seed=asked.seed + number,
            device=asked.device,
            precision=asked.precision,
            preprocessing=behind.preprocessing,
            class_weights=task.class_weights(task.fit),
            front=behind.front,
            checkpoint=task.memory.checkpoint(number),
            start=_made_by(task, places[: number + 1]),
            on_epoch=task.on_epoch,
        )
        tail = trained.tail
        history += trained.history
    assert tail is not None, "no phases"
    return Tuned(tail, behind, tuple(history), before)


def _made_by(task: Task, places: Sequence[Place]) -> str:
    """What made the tail that the last of these phases starts from, and its rows; photos, labels and seed are known to `train`.

    The rows that a head and these phases see name the network, its weights and how it was run.
    """
    seen = [(cuts.Trunk(place.network, cut), place.phase.augment) for place in places for cut in (HEAD, place.cut)]
    made = {
        "head": dataclasses.asdict(task.asked.head),
        "groups": task.table.groups[task.fit].tolist(),
        "rows": [spec_of(trunk, task.extract.choice, policy).digest() for trunk, policy in seen],
        "test_views": task.asked.test_views,
        "phases": [[dataclasses.asdict(place.phase), place.cut, place.recomputed] for place in places],
    }
    return json.dumps(made, sort_keys=True)


def rows_behind(task: Task, place: Place) -> Behind:
    """Compute the rows of a phase that the store does not hold yet."""
    network, phase = place.network, place.phase
    trunk = cuts.Trunk(network, place.cut)
    if place.cut == INPUT:
        return Behind(task, phase, network, trunk, task.extract(trunk).rows, preprocessing=network.preprocessing)
    if place.recomputed:
        pixels = task.extract(cuts.Trunk(network, INPUT)).rows
        if phase.views == 1:  # what the store would have held: the centre view alone
            phase = dataclasses.replace(phase, augment="none")
        return Behind(task, phase, network, trunk, pixels, preprocessing=network.preprocessing, front=trunk)
    rows, views = task.extract(trunk).rows, tuple[Rows, ...]()
    for _ in range(2 if phase.views > 1 else 0):
        views = tuple(task.extract(trunk, view, phase.augment, photos=task.fit).rows for view in range(phase.views))
        if len({one.dtype for one in views[1:]}) < 2:
            break  # else a later view overflowed float16, and whoever goes on with this run finds all of them as float32
    return Behind(task, phase, network, trunk, rows, views)


def carry_over(trained: Tail, published: Tail) -> Tail:
    """The tail of the next phase: what was trained so far, behind the published stages that join it."""
    tail = published.with_head(trained.classifier)
    loaded = tail.load_state_dict(trained.state_dict(), strict=False)
    assert not loaded.unexpected_keys, f"trained tensors without a place at the new cut: {loaded.unexpected_keys}"
    return tail


def _with_new_head(tail: Tail, behind: Behind, number: int) -> Tail:
    """New dense layers over the features as they are now, where the phase asks for them."""
    task, phase = behind.task, behind.phase
    if phase.hidden is None:
        return tail
    features = behind.logits(tail.with_head(nn.Identity()), task.fit)
    dropout = task.asked.head.dropout if phase.dropout is None else phase.dropout
    return tail.with_head(dense(features, task.n_classes, phase.hidden, dropout, task.asked.seed + number))
