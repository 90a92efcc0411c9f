"""Whether fine-tuning is likely to pay on these photos, what it costs on this machine, and the phases that do it.

The rule is written out in `against` and `plan`, and for people in docs/concepts/store-and-phases.md.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.backbone import cut as cuts
from headstart.config import Phase
from headstart.evaluate.intervals import wilson
from headstart.values import build

# Where fine-tuning is unlikely to pay. Val decides in the end; these only spare the time of a hopeless trial.
LEFT_TO_TEACH = 0.01  # share of its own photos that the head gets wrong. Source: docs/LOG.md, "Fine-tuning: when it pays"
# The others are chosen, not measured.
WRONG_AT_LEAST = 5  # val photos that the head alone gets wrong: a gain on fewer cannot be told from chance; of many photos, its own, too
PER_CLASS_AT_LEAST = 20  # training photos of the median class
TRAIN_AT_LEAST = 100  # training photos
SELECT_AT_LEAST = 30  # val photos that select

# How much of the network is trained: (share of its stages from the top, training photos from which on: `Situation.worth`).
DEPTHS = ((0.25, 0), (0.5, 1_000), (1.0, 5_000))

# Best first: (epochs, stored views). A deeper cut must afford the last but one, the shallowest takes the last.
LADDER = ((12, 4), (12, 2), (8, 2), (8, 1), (5, 1), (3, 1))

# Photos much smaller than a network's input are tuned at a smaller one: so many times their side is enough, rounded up to what networks
# divide by; below LEAST_PX, and below LEAST_SHARE of the network's input, even the smallest photos are read worse. Where little is saved,
# the network's own size stays.
# Source: docs/LOG.md, "Fine-tuning: at which size small photos are tuned"; photos of 64 px are read best at 160 px, below and above worse,
# by mobilenetv2_100 and the embedded network.
# Kolesnikov et al. (2020), "Big Transfer", arXiv:1912.11370, tune photos below 96 px at 128.
ENLARGED = 2.5
LEAST_PX = 128
LEAST_SHARE = 4 / 7  # of the network's input: 128 of 224 px, 192 of 299
STEP_PX = 32
SMALLER = 0.75  # of the network's input, at most

BATCH = 32
RATE = {"batch": 1e-4, "layer": 5e-5}  # by the kind of the network's norms: transformers take less
RATE_DECAY = 0.8
PATIENCE = 4


@dataclass(frozen=True)
class Situation:
    """What is known before anything is fine-tuned. Counts are photos unless they say otherwise."""

    n_train: int
    n_select: int
    "val photos that select"
    n_classes: int
    per_class: int
    "training photos of the median class"
    fewest: int
    "training photos of the smallest class"
    evenness: float
    "how alike in number the classes' training photos are, 0 to 1: the entropy of their shares over that of equal ones"
    n_right: int
    "right answers of the probe on photos it had not seen"
    n_answered: int
    n_solved: int
    "photos that the probe was solved on: train and val"
    n_missed: int
    "of these, that it gets wrong all the same"
    photo_px: int
    "shorter side that nine in ten training photos do not exceed; 0 where nobody knows"
    input_px: int
    "side of the network's input in this run"
    norm: str
    "kind of the network's norms: batch or layer"

    @property
    def error(self) -> float:
        """Share that the probe gets wrong, 0 to 1."""
        return 1 - self.n_right / max(1, self.n_answered)

    @property
    def worth(self) -> int:
        """How many training photos of equally many a class would tell as much: n labels tell n times the entropy of the classes' shares."""
        return round(self.evenness * self.n_train)

    @property
    def enough_px(self) -> int:
        """Side of the input at which these photos are tuned, where the network takes any."""
        px = max(LEAST_PX, STEP_PX * math.ceil(max(ENLARGED * self.photo_px, LEAST_SHARE * self.input_px) / STEP_PX))
        return px if self.photo_px > 0 and px <= SMALLER * self.input_px else self.input_px


@dataclass(frozen=True)
class Cost:
    """What training behind one cut costs, measured on real photos. Seconds are per photo."""

    cut: str
    px: int
    "side of the input it was measured at"
    load_s: float
    "reading a photo"
    trunk_s: float
    "reading it and the layers before the cut, by the engine that fills the store"
    live_s: float
    "the same where they are computed again in every epoch, in PyTorch"
    step_s: float
    "a training step"
    forward_s: float
    "an answer of the tail"
    row_bytes: int
    "of one stored row"
    from_photos: int = 0
    "what the training photos have to be worth for this cut to be planned (DEPTHS)"
    export_s: float = 0.0
    "making the layers before the cut ready for the engine the first time, in all, not per photo"
    open_s: float = 0.0
    "the same each time after: every stored view is a pass of its own"


@dataclass(frozen=True)
class Plan:
    """What was decided, and why.

    verdict: "pays": worth a trial; "does not pay"; "not tried": nothing can be said, or it would take longer than it may.
    why: sentences.
    estimate_minutes: of `phases`; where these are empty, of the cheapest trial there is, if known.
    recomputed: why each phase's activations are computed again in every epoch, None where they are stored; None as long as nobody
        has looked how much room the store has.
    """

    verdict: str
    why: tuple[str, ...]
    estimate_minutes: float | None = None
    phases: tuple[Phase, ...] = ()
    recomputed: tuple[str | None, ...] | None = None

    def in_words(self) -> str:
        """One sentence for whoever waits; "" where fine-tuning was no question."""
        if not self.why:
            return ""
        judged = {"pays": "is likely to pay", "does not pay": "is unlikely to pay"}.get(self.verdict, "is not tried")
        parts = [f"Fine-tuning {judged}: {self.why[0]}", *self.why[1:]]
        if not self.phases:
            parts.append("the head alone is kept")
        elif self.verdict != "not tried":
            expected = "" if self.estimate_minutes is None else f", expected time {_duration(60 * self.estimate_minutes)}"
            parts.append(f"it is tried{' all the same' if self.verdict == 'does not pay' else ''}{expected}")
        parts += dict.fromkeys(why for why in self.recomputed or () if why is not None)
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for run.json."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote, for a run that goes on."""
        phases = tuple(build(Phase, phase, "") for phase in value["phases"])
        recomputed = None if value["recomputed"] is None else tuple(value["recomputed"])
        return Plan(value["verdict"], tuple(value["why"]), value["estimate_minutes"], phases, recomputed)


def plan(
    situation: Situation, measured: Callable[[], Sequence[Cost]], *, budget_s: float, room_bytes: int, n_rows: int, always: bool = False
) -> Plan:
    """Decide whether to fine-tune, and how: LP-FT, the solved head, then the top stages at a low rate.

    Fine-tuning is unlikely to pay for the reasons in `against`; then it is not tried. Else, of the cuts that the photos are worth
    (DEPTHS), the deepest is taken whose five epochs are expected to fit the budget, and for it the best of LADDER that fits.
    Epochs are fixed here, so the result does not depend on how fast the machine is later. Stored views that the store has no room
    for are not planned; where not even one view fits, the layers before the cut are computed again in every epoch, and the
    estimate says so.
    Source: Kumar et al. (2022), "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv:2202.10054.

    Args:
        measured: the costs of the cuts that may be tried, the one nearest to the head first, at the size that is to be trained at
            (`enough_px`, where the network takes it); asked only where it matters.
        room_bytes: what the store can take.
        n_rows: rows of the centre view in the store; augmented views are of training photos alone.
        always: go on where it is unlikely to pay, as long as val photos can judge it.
    """
    doubts = against(situation)
    verdict, why = ("does not pay", doubts) if doubts else ("pays", in_favour(situation))
    if (doubts and not always) or situation.n_select == 0:
        return Plan(verdict, why)
    costs = measured()
    options = list(_options(costs, situation, situation.worth, room_bytes, n_rows))
    if not options:
        return Plan(verdict if doubts else "not tried", (*why, "this network has no stage that could be trained"))
    fitting = next(((cost, epochs, views, seconds) for cost, epochs, views, seconds in options if seconds <= budget_s), None)
    if fitting is None:
        cheapest_s = min(seconds for *_, seconds in options)
        refused = f"the shortest trial is expected to take {_duration(cheapest_s)}, the budget is {_duration(budget_s)}"
        return Plan(verdict if doubts else "not tried", (*why, refused), cheapest_s / 60)
    cost, epochs, views, seconds = fitting
    is_smaller = cost.px != situation.input_px
    phase = Phase(
        cut=cost.cut,
        px=cost.px if is_smaller else None,
        epochs=epochs,
        rate=RATE[situation.norm],
        rate_decay=RATE_DECAY,
        batch_size=BATCH,
        views=views,
        patience=PATIENCE,
    )
    if is_smaller:
        small = f"nine in ten photos have at most {situation.photo_px} px"
        why = (*why, f"{small}, so {cost.px} px are enough to tune at, in place of {situation.input_px}")
    of_equal_classes = _options(costs, situation, situation.n_train, room_bytes, n_rows)
    if next(option for option in of_equal_classes if option[-1] <= budget_s)[0] is not cost:
        why = (*why, f"{_worth(situation)}, so no more of the network is trained than with so many")
    return Plan(verdict, why, seconds / 60, (phase,))


def _options(
    costs: Sequence[Cost], situation: Situation, worth: int, room_bytes: int, n_rows: int
) -> Iterator[tuple[Cost, int, int, float]]:
    """Trials that photos worth so many allow, the best first: (cost, epochs, views, seconds)."""
    for cost in reversed(costs):
        if worth < cost.from_photos:
            continue
        for epochs, views in LADDER if cost is costs[0] else LADDER[:-1]:
            if views == 1 or (cost.cut != cuts.INPUT and _n_stored(situation, views, n_rows) * cost.row_bytes <= room_bytes):
                fits = n_rows * cost.row_bytes <= room_bytes
                seconds = start_s(cost, situation) + seconds_of(cost, situation, epochs, views, n_rows=n_rows, stored=fits)
                yield cost, epochs, views, seconds


def seconds_of(cost: Cost, situation: Situation, epochs: int, views: int, *, n_rows: int, stored: bool) -> float:
    """What a phase will take; `stored`: whether its activations are in the store, rather than computed again in every epoch."""
    first, again = n_rows * cost.load_s, cost.load_s + cost.live_s
    if stored and cost.cut != cuts.INPUT:
        opening = cost.export_s + (views - 1) * cost.open_s
        first, again = opening + _n_stored(situation, views, n_rows) * cost.trunk_s, 0.0
    return first + epochs * (situation.n_train * (again + cost.step_s) + situation.n_select * (again + cost.forward_s))


def start_s(cost: Cost, situation: Situation) -> float:
    """What the features take that the first phase's head is solved on, where the network's input is of another size than the probe's."""
    return 0.0 if cost.px == situation.input_px else cost.open_s + situation.n_train * (cost.trunk_s + cost.forward_s)


def _n_stored(situation: Situation, views: int, n_rows: int) -> int:
    """Rows of all views: the centre view of every photo, augmented ones of training photos."""
    return n_rows + (views - 1) * situation.n_train


def against(situation: Situation) -> tuple[str, ...]:
    """Why fine-tuning is unlikely to pay, in sentences; empty where nothing speaks against a trial."""
    one, found = situation, []
    if one.n_select < SELECT_AT_LEAST:
        found.append(f"{one.n_select} val photos are too few to tell a gain from chance ({SELECT_AT_LEAST} are the least)")
    elif one.error * one.n_select < WRONG_AT_LEAST:
        found.append(
            f"the head alone gets {_accuracy(one)}, so about {one.error * one.n_select:.0f} of {one.n_select} val photos are wrong: "
            f"a gain could not be told from chance"
        )
    elif one.n_missed < min(WRONG_AT_LEAST, LEFT_TO_TEACH * one.n_solved):
        but = f" but {one.n_missed}" if one.n_missed else ""
        found.append(
            f"the head alone gets all{but} of the {one.n_solved} photos right that it was solved on, which leaves hardly anything to learn "
            f"from them: more photos would help, not more of the network"
        )
    if one.worth < TRAIN_AT_LEAST <= one.n_train:
        found.append(f"{_worth(one)}, too few to change more than the head ({TRAIN_AT_LEAST} are the least)")
    if one.n_train < TRAIN_AT_LEAST or one.per_class < PER_CLASS_AT_LEAST:
        found.append(
            f"{one.n_train} training photos, {one.per_class} in the median class, are too few to change more than the head "
            f"({TRAIN_AT_LEAST} and {PER_CLASS_AT_LEAST} are the least)"
        )
    return tuple(found)


def in_favour(situation: Situation) -> tuple[str, ...]:
    """What speaks for a trial."""
    one = situation
    return (
        f"the head alone gets {_accuracy(one)}, and {one.n_train} training photos of {one.n_classes} classes are enough to change more",
    )


def _worth(one: Situation) -> str:
    return (
        f"{one.n_train} training photos of classes of such unequal size (the smallest has {one.fewest}) "
        f"tell no more than {one.worth} of classes of equal size"
    )


def _accuracy(one: Situation) -> str:
    low, high = wilson(one.n_right, one.n_answered)
    return f"{1 - one.error:.3f} of photos it has not seen right (95 %: {low:.3f} to {high:.3f})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
