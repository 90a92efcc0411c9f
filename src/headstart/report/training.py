"""Curves of a run: loss, accuracy and rate over epochs, and the strengths tried where a head was solved."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.report import charts, words
from headstart.report.folder import RunFolder, number, section
from headstart.report.phases import breaks

_WIDE_RANGE = 30  # from here on rates only read on a logarithmic scale


def has_epochs(folder: RunFolder) -> bool:
    """Whether anything was trained step by step."""
    return any(number(row.get(key)) is not None for row in folder.history for key in ("train_loss", "val_loss"))


def over_epochs(folder: RunFolder) -> list[Markup]:
    """Training and validation loss, training and validation accuracy, and the rate; empty where nothing was trained step by step."""
    if not has_epochs(folder):
        return []
    history = folder.history
    at = list(range(1, len(history) + 1))
    places = [start + 0.5 for start in breaks(history)]
    probe = section(section(folder.run, "tuning"), "probe")
    drawn = []
    for key, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        lines = [
            charts.Line("validation photos", at, [number(row.get(f"val_{key}")) for row in history], charts.FIRST),
            charts.Line("training photos", at, [number(row.get(f"train_{key}")) for row in history], charts.SECOND, dashed=True),
        ]
        lines = [line for line in lines if any(value is not None for value in line.values)]
        if lines:
            # Only accuracies compare: the head's loss is taken after calibration, an epoch's before.
            level = number(probe.get("val_accuracy")) if key == "accuracy" else None
            last = ", ".join(f"{line.name} end at {_last(line):.3g}" for line in lines)
            beside = "" if level is None else f"; the head alone has {level:.3g} on validation photos"
            alt = f"{title} over {_epochs(len(at), len(places))}: {last}{beside}."
            reference = None if level is None else ("head alone", level)
            drawn.append(
                charts.curves(
                    lines, key=key, alt=alt, x_label="Epoch", y_label=title, percent=key == "accuracy", breaks=places, reference=reference
                )
            )
    return drawn + _rate(history, at, places)


def _rate(history: Sequence[dict[str, str]], at: list[int], places: list[float]) -> list[Markup]:
    rates = [number(row.get("rate")) for row in history]
    known = [rate for rate in rates if rate is not None and rate > 0]
    if not known:
        return []
    wide = max(known) > _WIDE_RANGE * min(known)
    alt = f"Learning rate over {_epochs(len(at), len(places))}: from {known[0]:.3g} to {known[-1]:.3g}, at most {max(known):.3g}."
    line = charts.Line("rate", at, [None if wide and rate == 0 else rate for rate in rates], charts.FIRST)
    return [charts.curves([line], key="rate", alt=alt, x_label="Epoch", y_label="Learning rate", breaks=places, log=wide)]


def _last(line: charts.Line) -> float:
    return [value for value in line.values if value is not None][-1]


def _epochs(n: int, n_breaks: int) -> str:
    return words.count(n, "epoch", "epochs") + (f" of {n_breaks + 1} phases" if n_breaks else "")


def over_strengths(folder: RunFolder) -> list[Markup]:
    """Log loss and accuracy on photos left out over the strengths tried for a solved head's penalty."""
    table = folder.of("head", "oof_table")
    rows: list[dict[str, Any]] = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    chosen = number(folder.of("head", "strength"))
    drawn = []
    # The choice is made by the log loss that is left after calibration.
    loss = "calibrated_log_loss" if any("calibrated_log_loss" in row for row in rows) else "log_loss"
    for key, field, title in (
        ("penaltyloss", loss, "Log loss on photos left out"),
        ("penaltyaccuracy", "accuracy", "Accuracy on photos left out"),
    ):
        points = sorted(
            (strength, value)
            for row in rows
            if (strength := number(row.get("strength"))) is not None and (value := number(row.get(field))) is not None
        )
        if len(points) < 2:
            continue
        at, values = [point[0] for point in points], [point[1] for point in points]
        alt = f"{title} for {len(at)} strengths of the penalty from {at[0]:.3g} to {at[-1]:.3g}: "
        alt += f"between {min(values):.3g} and {max(values):.3g}."
        if chosen is not None:
            alt += f" Chosen: {chosen:.3g}."
        drawn.append(charts.strengths(at, values, chosen, key=key, alt=alt, y_label=title, percent=field == "accuracy"))
    return drawn
