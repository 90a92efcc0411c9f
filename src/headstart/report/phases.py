"""The phases of a run: what each was told, from the configuration, and what came of it, from history.csv and `tuning`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.files import human_bytes
from headstart.report import words
from headstart.report.folder import RunFolder, number, section, whole
from headstart.report.tuning import duration

History = list[dict[str, str]]


@dataclass(frozen=True)
class PhaseFacts:
    """One phase as it was planned and run. None and empty text: not on record."""

    number: int
    cut: str
    px: int | None
    epochs: int
    optimiser: str
    rate: float | None
    schedule: str
    augment: str
    views: int
    mixup: float
    cutmix: float
    recomputed: bool | None
    store_bytes: float | None
    """of the rows that were stored: pixels, where the rest was recomputed"""

    @property
    def fresh(self) -> bool:
        """Whether a training view is drawn anew in each epoch, rather than from stored ones: wherever rows are pixels."""
        return self.cut == "input" or bool(self.recomputed)

    @property
    def augments(self) -> bool:
        """Whether the network sees anything but the centre view while it trains: behind `input`, one view is the centre view."""
        return self.augment not in ("", "none") and (self.cut == "input" or self.views > 1)


@dataclass(frozen=True)
class PhaseRow:
    """One line of the table of phases, as ready text."""

    number: int
    cut: str
    px: str
    epochs: str
    best: str
    recipe: str
    augment: str
    took: str
    rows: str


def phases_of(folder: RunFolder) -> list[PhaseFacts]:
    """The phases on record, in their order."""
    configured = _records(section(folder.run, "config").get("phases"))
    ran = _records(section(folder.run, "tuning").get("phases"))
    found = []
    for i in range(max(len(configured), len(ran))):
        # The plan names what was asked for, such as `top 2`; the trial names what that came to, such as `layer3`.
        asked = configured[i] if i < len(configured) else {}
        done = ran[i] if len(ran) >= len(configured) else next((each for each in ran if each.get("cut") == asked.get("cut")), {})
        found.append(_facts(i + 1, asked, done))
    return found


def _records(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _facts(place: int, asked: dict[str, Any], done: dict[str, Any]) -> PhaseFacts:
    told = {**asked, **{key: value for key, value in done.items() if value is not None}}
    recomputed = told.get("recomputed")
    return PhaseFacts(
        number=place,
        cut=str(told.get("cut", "")),
        px=whole(told.get("px")) or None,
        epochs=whole(asked.get("epochs")) or whole(done.get("epochs")),
        optimiser=str(told.get("optimiser", "")),
        rate=number(told.get("rate")),
        schedule=str(told.get("schedule", "")),
        augment=str(told.get("augment", "")),
        views=whole(told.get("views")),
        mixup=number(told.get("mixup")) or 0.0,
        cutmix=number(told.get("cutmix")) or 0.0,
        recomputed=recomputed if isinstance(recomputed, bool) else None,
        store_bytes=number(told.get("store_bytes")),
    )


def breaks(history: Sequence[dict[str, str]]) -> list[int]:
    """The rows of the history that begin a new phase, the first one aside: another name, or an epoch that is no later than the last."""
    numbers = [number(row.get("epoch")) for row in history]
    names = [row.get("phase", "") for row in history]
    starts = []
    for i, (before, now) in enumerate(pairwise(numbers), start=1):
        again = before is not None and now is not None and now <= before
        if names[i] != names[i - 1] or again:
            starts.append(i)
    return starts


def phase_rows(folder: RunFolder) -> list[PhaseRow]:
    """The table of phases; empty where nothing was trained step by step."""
    history = folder.history
    if not history:
        return []
    bounds = [0, *breaks(history), len(history)]
    epochs = [list(history[start:end]) for start, end in pairwise(bounds)]
    phases = phases_of(folder)
    if len(epochs) > len(phases):  # an older run's configuration does not say
        phases = [_facts(i + 1, {"cut": rows[0].get("phase", "")}, {}) for i, rows in enumerate(epochs)]
    return [_row(phase, epochs[i] if i < len(epochs) else []) for i, phase in enumerate(phases)]


def _row(phase: PhaseFacts, history: History) -> PhaseRow:
    ran = f"{len(history)} of {phase.epochs}" if 0 < len(history) < phase.epochs else str(len(history) or phase.epochs or "")
    seconds = sum(number(row.get("seconds")) or 0.0 for row in history)
    speeds = [speed for row in history if (speed := number(row.get("images_per_s"))) is not None]
    took = [duration(seconds / 60) if seconds else "", f"{sum(speeds) / len(speeds):,.0f} images/s" if speeds else ""]
    recipe = [phase.optimiser, "" if phase.rate is None else np.format_float_positional(phase.rate, trim="-"), phase.schedule]
    mixed = [f"{name} {alpha:g}" for name, alpha in (("mixup", phase.mixup), ("cutmix", phase.cutmix)) if alpha]
    return PhaseRow(
        number=phase.number,
        cut=phase.cut,
        px="" if phase.px is None else str(phase.px),
        epochs=ran,
        best=_best(history),
        recipe=" · ".join(part for part in recipe if part),
        augment=", ".join([phase.augment if phase.augments else "none", *mixed]) if phase.augment else "",
        took=", ".join(part for part in took if part),
        rows=_rows(phase),
    )


def _best(history: History) -> str:
    """The epoch that val chose, and its scores there."""
    losses = [(loss, i) for i, row in enumerate(history) if (loss := number(row.get("val_loss"))) is not None]
    if not losses:
        return ""
    loss, i = min(losses)
    accuracy = number(history[i].get("val_accuracy"))
    right = "" if accuracy is None else f", {words.percent(accuracy, 1)}\u00a0%"
    return f"epoch {whole(history[i].get('epoch'))}: loss {loss:.3f}{right}"


def _rows(phase: PhaseFacts) -> str:
    """Where the tail's input came from, and why."""
    if phase.recomputed is None:
        return ""
    size = human_bytes(phase.store_bytes) if phase.store_bytes else ""
    if phase.recomputed:
        what = "recomputed every epoch from stored pixels, for which alone the store had room"
    elif phase.cut == "input":
        what = "pixels stored"
    else:
        what = f"stored, {phase.views} views" if phase.views > 1 else "stored"
    return f"{what}, {size}" if size else what
