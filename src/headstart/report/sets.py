"""When not to believe one answer: photos that are none of the classes, and sets of labels that hold the right one as often as promised."""

from dataclasses import dataclass
from typing import Any

from headstart.report import words
from headstart.report.folder import RunFolder, number, pair, section, whole

MOST_ROWS_SHOWN = 25  # of a per-class table; the rest folds away

_SCORES = {"energy": "energy of the logits, in use", "nearest": "distance to the nearest stored photo", "probability": "top probability"}
_FALSE_ALARMS, _COVERAGE = 0.05, 0.9  # where the model does not say
_MISSES_MOST = 0.3  # detection below which the page says so


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval, as text in percent; its value for ordering and bars."""

    value: float | None
    text: str
    interval: tuple[float, float] | None
    interval_text: str

    @property
    def said(self) -> str:
        """For a sentence: the share, and its interval in brackets."""
        return f"{self.text}\u00a0%" + (f" (95\u00a0% interval {self.interval_text})" if self.interval_text else "")


@dataclass(frozen=True)
class LeftOut:
    """One class that was left out."""

    name: str
    n: int
    detection: Share
    auroc: str


@dataclass(frozen=True)
class Rule:
    """One way to tell the unknown from the known."""

    name: str
    detection: Share
    auroc: str


@dataclass(frozen=True)
class Unknown:
    """How well photos of unknown classes are noticed: the classes that are noticed least come first; none where it was not measured."""

    sentence: str
    alarms: str
    caution: str
    """what must not be read into it"""
    rules: list[Rule]
    rows: list[LeftOut]


@dataclass(frozen=True)
class Covered:
    """One class's part in the coverage."""

    name: str
    n: int
    coverage: Share
    mean_size: str
    short: bool
    """whether its interval lies below what was promised"""


@dataclass(frozen=True)
class Sets:
    """How often the sets hold the right label and how large they are: the classes with the lowest coverage come first."""

    sentence: str
    promised: str
    coverage: Share
    mean_size: str
    alone: str
    rows: list[Covered]


def unknown(folder: RunFolder) -> Unknown | None:
    """How well it says "none of these", as far as that was measured; None where it never says so."""
    record, threshold = section(folder.metrics, "none_of_these"), section(folder.bundle, "none_of_these")
    alarms = _measured_alarms(section(record, "test"))
    if not threshold and not alarms:
        return None
    found = {name: section(section(record, "scores"), key) for key, name in _SCORES.items()}
    rules = [Rule(name, _share(each, "detection"), _area(each)) for name, each in found.items() if each]
    rows = []
    for name, each in section(record, "per_class").items():
        by_energy = section(each, "energy")
        if by_energy:
            rows.append(LeftOut(name, whole(each.get("n")), _share(by_energy, "detection"), _area(by_energy)))
    sentence, caution = _detected(record, is_own=number(threshold.get("detection")) is not None)
    return Unknown(sentence, alarms, caution, rules, sorted(rows, key=lambda row: _order(row.detection)))


def _detected(record: dict[str, Any], *, is_own: bool) -> tuple[str, str]:
    """What share of unknown photos is noticed, and what must not be read into that. is_own: whether this very kind of head was tried."""
    allowed = number(record.get("false_alarms"))
    alarms = words.percent(_FALSE_ALARMS if allowed is None else allowed)
    detection = _share(section(section(record, "scores"), "energy"), "detection")
    if detection.value is None:
        rule = f"A photo that looks less like the classes than all but {alarms}\u00a0% of their own photos is called none of these."
        return rule, "How many photos of something else that finds was not measured: it takes at least three classes, and enough photos."
    left_out = words.count(whole(record.get("n_classes")), "class", "classes")
    calls = f"calls {detection.said} none of these, at {alarms}\u00a0% false alarms."
    if is_own:
        sentence = f"Of photos of a class it was never shown, it {calls} Measured on {left_out} left out in turn."
    else:
        sentence = (
            f"An estimate, by linear heads on the frozen features and not by this classifier: of photos of a class it was never shown, "
            f"such a head {calls} Measured on {left_out} left out in turn."
        )
    if detection.value < _MISSES_MOST:
        return sentence, (
            "So it misses most photos of what it does not know: an answer does not mean that the photo shows one of its classes."
        )
    return sentence, "The others are given one of the classes. Photos of quite another kind may be noticed more often, or less."


def _measured_alarms(test: dict[str, Any]) -> str:
    alarms = _share(test, "false_alarms")
    if alarms.value is None:
        return ""
    return f"Of the test photos, all of known classes, {alarms.said} are called none of these by mistake."


def sets(folder: RunFolder) -> Sets | None:
    """What the sets of labels do on test photos; None where that was not measured."""
    record = section(folder.metrics, "conformal")
    coverage = _share(record, "coverage")
    if coverage.value is None:
        return None
    asked = number(section(folder.bundle, "conformal").get("coverage"))
    promised = _COVERAGE if asked is None else asked
    size, alone = number(record.get("mean_size")), number(record.get("alone"))
    mean_size = "" if size is None else f"{size:.2g}" if size < 10 else f"{size:.0f}"
    on_average = f", with {mean_size} labels on average" if mean_size else ""
    asked_text = words.percent(promised)
    meant = f"Sets of labels meant to hold the right one for {asked_text}\u00a0% of photos"
    sentence = f"{meant} do so for {coverage.said} of test photos{on_average}."
    rows = []
    for name, each in section(record, "per_class").items():
        if isinstance(each, dict) and whole(each.get("n")):
            share, of_class = _share(each, "coverage"), number(each.get("mean_size"))
            short = share.interval is not None and share.interval[1] < promised
            rows.append(Covered(name, whole(each.get("n")), share, "–" if of_class is None else f"{of_class:.1f}", short))
    shown_alone = "" if alone is None else words.percent(alone)
    return Sets(sentence, words.percent(promised), coverage, mean_size, shown_alone, sorted(rows, key=lambda row: _order(row.coverage)))


def _order(share: Share) -> float:
    return 2.0 if share.value is None else share.value


def _share(record: dict[str, Any], key: str) -> Share:
    value, interval = number(record.get(key)), pair(record.get(f"{key}_ci95"))
    if value is None or not 0 <= value <= 1:
        return Share(None, "–", None, "")
    return Share(value, words.percent(value, words.decimals_for(interval)), interval, words.between(interval))


def _area(record: dict[str, Any]) -> str:
    value = number(record.get("auroc"))
    return "–" if value is None else f"{value:.3f}"
