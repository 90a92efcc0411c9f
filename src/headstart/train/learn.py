"""From stored rows to a trained classifier: the head is solved first; then, where phases are given or likely to pay, the network is tuned.

Which of the two is kept, or an average of both, val decides.
"""

import contextlib
import copy
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.backbone import cut as cuts
from headstart.backbone.cut import HEAD, Tail
from headstart.backbone.networks import Network
from headstart.config import Phase
from headstart.data import pixels
from headstart.data.reading import read_ahead, read_unchanged
from headstart.errors import ConfigError, HeadstartError, StoreError
from headstart.features.engine import is_out_of_memory
from headstart.features.extract import MIRROR
from headstart.progress import progress, say
from headstart.train import survey
from headstart.train.average import ALPHAS, Scored, averaged, can_average, choose, score
from headstart.train.classifier import Mirrored, linear
from headstart.train.head import LinearHead, solve_linear
from headstart.train.loop import Epoch
from headstart.train.plan import Cost, Plan, Situation, against, in_favour, plan
from headstart.train.processes import Processes
from headstart.train.task import Asked, Memory, Task
from headstart.train.tune import Place, Tuned, find_places, resolved, run_phases, starts_anew

__all__ = ["Asked", "Learned", "Memory", "Seen", "Task", "learn"]

LIVE_BATCH = 32


@dataclass(frozen=True)
class Seen:
    """What the frozen network saw in the table's photos, and what heads on it said.

    features: [n, d], pooled, of every photo of the table. logits: out of fold, float32 [m, k], of photos that a head was not fitted to;
    photos: their m indices into the table, none of them of test. n_missed: of the n_solved photos of train and val that the kept head was
    solved on, those that it gets wrong all the same.
    """

    features: np.ndarray
    logits: np.ndarray
    photos: np.ndarray
    n_solved: int
    n_missed: int


@dataclass(frozen=True)
class Learned:
    """A trained classifier and what it answered on photos its weights were not fitted to.

    module: uint8 [n, px, px, 3] to logits [n, k]: the published trunk and the trained tail, in eval mode; with two test views, the
        mean of the logits of the photo and its mirror image.
    network: the published network, at the size that `module` takes.
    tail_state: the trained tensors alone, by name.
    held_out: indices into the table of the photos of `logits` [n, k]; they calibrate. For a solved head these are
        out-of-fold answers for train and val; for a trained tail, val photos (`calibrate_on`).
    seen: the frozen network's features and out-of-fold answers, whatever was trained after it.
    phases: what was trained after the head was solved, even if it was not kept.
    facts: what the run's record keeps of the classifier; tuning: of the decision on fine-tuning (docs/formats.md).
    notices: sentences for the report.
    """

    module: nn.Module
    network: Network
    tail_state: dict[str, torch.Tensor]
    held_out: np.ndarray
    logits: np.ndarray
    calibrate_on: np.ndarray
    facts: dict[str, Any]
    seen: Seen
    history: tuple[Epoch, ...] = ()
    phases: tuple[Phase, ...] = ()
    tuning: dict[str, Any] = dataclasses.field(default_factory=dict)
    notices: tuple[str, ...] = ()


def learn(task: Task) -> Learned:
    """Train the classifier that the task asks for. Photos of test are never looked at.

    Photos of one group (`table.groups`: duplicates, bursts) stay on one side of every fold.

    Raises:
        ConfigError: a cut the network does not have, or one that moves away from `input`; training diverged.
        StoreError: the rows that cannot be done without do not fit the store.
        HeadstartError: phases that were asked for ran out of memory.
    """
    given = resolved(task.asked.head, task.asked.phases)
    left = _left(task)
    places = find_places(task, given, left.recomputed if given and left is not None else None)  # before anything is computed
    centre, features = probe_features(task)
    probe = _solved(task, features)
    decided = _decide(task, probe, places)
    if not decided.phases:
        return dataclasses.replace(probe, tuning=_tuning(task, decided))
    alone = linear(_solve(task, features[task.fit], task.fit))
    started = time.monotonic()
    try:
        with _memory_told():
            if not given or decided.recomputed != _reasons(places):  # planned, or another process saw another room in the store
                places = find_places(task, decided.phases, decided.recomputed)
            while True:
                try:
                    return _better(task, probe, alone, centre, decided, places)
                except StoreError as error:
                    if not given:
                        raise
                    decided = _with_less(task, decided, error)
                places = find_places(task, decided.phases, decided.recomputed)
    except HeadstartError as error:
        # Nobody asked for a planned phase, so it may not cost anybody the run. Of several processes, all fail alike by what was
        # configured (a rate that diverges); by anything else perhaps one alone, for which the others would wait for ever.
        if given or (Processes.joined(task.asked.device).n > 1 and not isinstance(error, ConfigError)):
            raise
        notice = f"fine-tuning was given up and the head alone kept: {error.message}"
        tuning = _tuning(task, decided, minutes=(time.monotonic() - started) / 60, given_up=error.message)
        return dataclasses.replace(probe, tuning=tuning, notices=(notice,))


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Running out of memory as an error for people. Raises: HeadstartError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        hint = "give the phases a smaller batch_size (accumulate makes up for it), a smaller px, or a cut nearer to the head"
        raise HeadstartError(f"fine-tuning ran out of memory ({type(error).__name__}: {str(error)[:200]})", hint=hint) from error


def _is_memory(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, MemoryError) or is_out_of_memory(error)


def probe_features(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The pooled features of every photo, [n, d]: of the centre view, and of the views that the head is solved on.

    With two test views these are the mean over a photo and its mirror image. A linear head's mean answer is its answer to the mean,
    so a head solved on means is fitted to, and calibrated on, what it will see.
    """
    trunk = cuts.Trunk(task.network, HEAD)
    centre: np.ndarray = task.extract(trunk).rows[:]
    if task.asked.test_views == 1:
        return centre, centre
    mean: np.ndarray = (centre.astype(np.float32) + task.extract(trunk, 1, MIRROR).rows[:].astype(np.float32)) / 2
    return centre, mean


def _solved(task: Task, features: np.ndarray) -> Learned:
    """The linear head, solved to its optimum over train and val; strength and calibration from out-of-fold answers."""
    fit = np.flatnonzero(task.splits != "test")
    solved = _solve(task, features[fit], fit)
    trunk, tail = cuts.split(task.network, HEAD)
    tail = tail.with_head(linear(solved))
    facts = {
        "kind": "linear",
        "strength": solved.strength,
        "oof_table": solved.oof_table,
        "folds": solved.folds,
        "class_weights": task.asked.head.class_weights,
    }
    held_out = fit[solved.oof_index]
    n_missed = int((solved.logits(features[fit]).argmax(1) != task.table.labels[fit]).sum())
    seen = Seen(features, solved.oof_logits, held_out, len(fit), n_missed)
    return Learned(_whole(task, trunk, tail), task.network, _state(tail), held_out, solved.oof_logits, held_out, facts, seen)


def _solve(task: Task, features: np.ndarray, photos: np.ndarray) -> LinearHead:
    """A head on these photos' features, [n, d]."""
    labels, groups = task.table.labels[photos], task.table.groups[photos]
    weights = task.class_weights(photos)
    return solve_linear(features, labels, task.n_classes, groups=groups, class_weights=weights, seed=task.asked.seed)


def _decide(task: Task, probe: Learned, places: Sequence[Place]) -> Plan:
    """The plan that an interrupted run or the first process left, else a new one, kept at once: a continued run must do what it began."""
    with task.extract.in_turn():
        decided = task.memory.recall()
        if decided is None:
            decided = with_room(task, _plan(task, probe, places), places)
            task.memory.note(decided)
        if sentence := decided.in_words():
            say(sentence)
    return decided


def _left(task: Task) -> Plan | None:
    """The plan that an interrupted run left, the same in every process: none of them makes one before all have looked."""
    with task.extract.in_turn():
        return task.memory.recall()


def _reasons(places: Sequence[Place]) -> tuple[str | None, ...]:
    return tuple(place.notice for place in places)


def with_room(task: Task, made: Plan, places: Sequence[Place]) -> Plan:
    """The plan, and which of its phases go without stored activations."""
    if places or not made.phases:
        return dataclasses.replace(made, recomputed=_reasons(places))
    try:
        return dataclasses.replace(made, recomputed=_reasons(find_places(task, made.phases)))
    except StoreError as error:
        return dataclasses.replace(made, verdict="not tried", why=(*made.why, error.message), phases=(), recomputed=())


def _with_less(task: Task, decided: Plan, error: StoreError) -> Plan:
    """The plan, with one phase more at least that goes without stored activations: they need more room than was thought.

    Values that float16 cannot hold take twice as much, and nobody knows before they are computed. It is noted for the next start, too.

    Raises: StoreError: `error`, where this is not the reason, or where other processes could not follow.
    """
    now = _reasons(find_places(task, decided.phases))
    before = (None,) * len(now) if decided.recomputed is None else decided.recomputed
    less = tuple(new if old is None else old for old, new in zip(before, now, strict=True))
    if less == before:
        raise error
    decided = dataclasses.replace(decided, recomputed=less)
    task.memory.note(decided)
    if Processes.joined(task.asked.device).n > 1:
        raise StoreError(error.message, hint="run the same command again: what does not fit is then computed in every epoch") from error
    say(decided.in_words())
    return decided


def _plan(task: Task, probe: Learned, places: Sequence[Place]) -> Plan:
    asked, phases = task.asked, tuple(place.phase for place in places)
    if not asked.phases and asked.head.kind == "dense":
        return Plan("not tried", ("a dense head was asked for, which is trained on frozen features",), None, phases)
    if not phases and asked.tune == "never":
        return Plan("not tried", ())
    situation = survey.situation_of(task, probe.logits, probe.held_out, (probe.seen.n_solved, probe.seen.n_missed))
    doubts = against(situation)
    verdict, why = ("does not pay", doubts) if doubts else ("pays", in_favour(situation))
    head_bytes = task.extract.bytes_of(cuts.Trunk(task.network, HEAD), asked.test_views)
    try:
        if phases:
            return Plan(verdict, why, survey.estimate(task, situation, places), phases)
        return plan(
            situation,
            lambda: _costs(task, situation),
            budget_s=asked.budget_s,
            room_bytes=task.extract.store.room_bytes() - head_bytes,
            n_rows=len(set(task.table.sha256s)),
            always=asked.tune == "always",
        )
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        return Plan(verdict, why, None, phases) if phases else Plan("not tried", (*why, "timing a trial ran out of memory"))


def _costs(task: Task, situation: Situation) -> list[Cost]:
    network = survey.network_to_tune(task, situation)
    return survey.measure_all(network, survey.sample_of(task, network))


def _better(task: Task, probe: Learned, alone: nn.Linear, centre: np.ndarray, decided: Plan, places: Sequence[Place]) -> Learned:
    """Run the plan's phases; keep the probe, the tuned network or an average of both, whichever val prefers.

    All of them are asked about centre views, [n, d] at the head: with two test views, too, where each would gain alike.

    Args: alone: the probe, solved on training photos alone.
    """
    started = time.monotonic()
    start = alone
    if starts_anew(task, places[0]):
        trunk = cuts.Trunk(places[0].network, HEAD)
        start = linear(_solve(task, task.extract(trunk, photos=task.fit).rows[:], task.fit))
    tuned = run_phases(task, places, start)
    select, calibrate = task.halves
    tails: dict[float, Tail] = {1.0: tuned.tail}
    scored: list[Scored] = []
    is_tuned = task.asked.head.kind == "linear" or bool(task.asked.phases)  # else the dense head that was asked for, which stays
    if is_tuned:
        tails |= _averages(task, tuned, alone if tuned.behind.network is task.network else start)
    if len(select):
        with torch.inference_mode():
            of_probe = alone(torch.from_numpy(centre[select].astype(np.float32))).numpy()
        labels = task.table.labels[select]
        scored = [score(0.0, of_probe, labels), *(score(a, tuned.behind.logits(tails[a], select), labels) for a in sorted(tails))]
    preferred = choose(scored).alpha if scored else 1.0
    kept = preferred if is_tuned else 1.0
    minutes = (time.monotonic() - started) / 60
    tuning = _tuning(task, decided, minutes=minutes, scored=scored, preferred=preferred, is_dense=not is_tuned, places=places)
    notices = tuple(dict.fromkeys(place.notice for place in places if place.notice is not None))
    common: dict[str, Any] = {"history": tuned.history, "phases": decided.phases, "tuning": tuning}
    if kept == 0.0:
        return dataclasses.replace(probe, **common, notices=notices)
    tail, network = tails[kept], tuned.behind.network
    module = _whole(task, tuned.behind.trunk, tail)
    val = task.val
    logits = tuned.behind.logits(tail, val) if task.asked.test_views == 1 else _live_logits(task, module, network, val)
    head = task.asked.head
    kind = "dense" if head.kind == "dense" or any(phase.hidden for phase in decided.phases) else "linear"
    facts = {"kind": kind, "class_weights": head.class_weights, "phases": [place.cut for place in places]}
    notices = (*task.about_val(), *notices)
    return Learned(module, network, _state(tail), val, logits, calibrate, facts, probe.seen, **common, notices=notices)


def _averages(task: Task, tuned: Tuned, start: nn.Linear) -> dict[float, Tail]:
    """Averages of the probe's and the tuned weights, by their share of the tuned ones.

    Where the head is of another shape, of the weights before and after the last phase, unless that phase began with the new head.
    """
    if not task.asked.average:
        return {}
    phase = tuned.behind.phase
    _, published = cuts.split(tuned.behind.network, phase.cut, batch_statistics=phase.norm == "batch")
    starts = (published.with_head(start), tuned.before)
    before = next((tail for tail in starts if tail is not None and can_average(tail, tuned.tail)), None)
    return {} if before is None else {alpha: averaged(before, tuned.tail, alpha) for alpha in ALPHAS}


def _tuning(
    task: Task,
    plan: Plan,
    *,
    minutes: float = 0.0,
    scored: Sequence[Scored] = (),
    preferred: float = 0.0,
    is_dense: bool = False,
    places: Sequence[Place] = (),
    given_up: str | None = None,
) -> dict[str, Any]:
    """What run.json tells of fine-tuning (docs/formats.md).

    Args: preferred: alpha of what val prefers. is_dense: whether all that was trained is a dense head on frozen features.
    """
    by_alpha = {one.alpha: one.to_json() for one in scored}
    between = {alpha: one for alpha, one in by_alpha.items() if 0 < alpha < 1}
    shown = preferred if preferred in between else min(between, key=lambda alpha: between[alpha]["val_loss"], default=None)
    return {
        "verdict": plan.verdict,
        "why": list(plan.why),
        "estimate_minutes": plan.estimate_minutes,
        "minutes": round(minutes, 3),
        "n_val": len(task.halves[0]),
        "probe": by_alpha.get(0.0),
        "tuned": None if is_dense else by_alpha.get(1.0),
        "dense": by_alpha.get(1.0) if is_dense else None,
        "averaged": None if shown is None else between[shown],
        "average": preferred if preferred in between else None,
        "kept": "dense" if is_dense else {0.0: "probe", 1.0: "tuned"}.get(preferred, "average"),
        "given_up": given_up,
        "hindsight": None if not scored else "paid" if preferred > 0 else "did not pay",
        "phases": [place.to_json() for place in places],
    }


def _live_logits(task: Task, module: nn.Module, network: Network, photos: np.ndarray) -> np.ndarray:
    """What the whole network says of these photos, read from their files, float32 [n, k]."""
    table, place = task.table, torch.device(task.asked.device)
    module = copy.deepcopy(module).to(place)

    def read(i: int) -> pixels.Pixels:
        return pixels.load(read_unchanged(table.file(i), table.photos[i].sha256), network.preprocessing)

    images = read_ahead(read, photos.tolist(), threads=2, ahead=2 * LIVE_BATCH)
    found = []
    with torch.inference_mode(), progress("Calibrating", len(photos)) as advance:
        while batch := list(itertools.islice(images, LIVE_BATCH)):
            found.append(module(torch.from_numpy(np.stack(batch)).to(place)).float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(found) if found else np.zeros((0, task.n_classes), np.float32)


def _whole(task: Task, trunk: cuts.Trunk, tail: Tail) -> nn.Module:
    whole = nn.Sequential(trunk, tail)
    return (whole if task.asked.test_views == 1 else Mirrored(whole)).eval()


def _state(tail: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tail.state_dict().items()}
