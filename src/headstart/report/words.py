"""The report's sentences: how good, how sure, what went wrong most."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from headstart.evaluate.intervals import photos_to_halve
from headstart.report.folder import RunFolder, number, pair, section, whole

_BIDI_CONTROLS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NAME_LENGTH = 48
_PATH_LENGTH = 90
_OPTION = re.compile(r"(?<!\S)--[\w-]+(?: [^\s'\"-][^\s'\"]{0,15}(?!\S))?")  # with its value, where that is short


@dataclass(frozen=True)
class Confusion:
    """One kind of mistake: photos of `label` taken for `predicted`."""

    label: str
    predicted: str
    n: int
    n_label: int


def visible(text: str) -> str:
    """`text` with what a page would hide or obey written out: control characters, broken bytes, marks that reverse the reading order."""

    def hidden(c: str) -> bool:
        return c in _BIDI_CONTROLS or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")

    return "".join(c.encode("unicode_escape").decode() if hidden(c) else c for c in text)


def name(text: Any, length: int = _NAME_LENGTH) -> Markup:
    """A class or other name for the page: escaped, with its own reading direction, its middle left out where it is very long."""
    whole = visible(str(text))
    if len(whole) <= length:
        return Markup("<bdi>{}</bdi>").format(whole)
    head = length * 2 // 3
    return Markup('<bdi title="{}">{}…{}</bdi>').format(whole[:1000], whole[:head], whole[head - length + 1 :])


def path(text: Any) -> Markup:
    """A photo's path for the page; `name` with more room."""
    return name(text, _PATH_LENGTH)


def command(text: str) -> Markup:
    """A command line for the page, escaped: lines break between options, not within one.

    >>> command("predict <a> --top 3")
    Markup('predict &lt;a&gt; <span class="option">--top 3</span>')
    """
    shown = visible(text)
    pieces = [*_OPTION.finditer(shown)]
    starts, ends = [0, *(piece.end() for piece in pieces)], [*(piece.start() for piece in pieces), len(shown)]
    options = [Markup('<span class="option">{}</span>').format(piece[0]) for piece in pieces]
    between = [escape(shown[start:end]) for start, end in zip(starts, ends, strict=True)]
    return Markup("").join(part for pair in zip(between, [*options, Markup("")], strict=True) for part in pair)


def percent(share: float | None, decimals: int = 0) -> str:
    """A share as a percentage without its sign; never rounded up to 100 or down to 0 where it is not.

    >>> percent(0.94), percent(0.9996), percent(1.0), percent(0.0004)
    ('94', '99.96', '100', '0.04')
    """
    if share is None:
        return "–"
    while decimals < 4 and round(100 * share, decimals) in (0.0, 100.0) and share not in (0.0, 1.0):
        decimals += 1
    return f"{100 * share:.{decimals}f}"


def decimals_for(interval: tuple[float, float] | None) -> int:
    """As many decimals of a percentage as its interval makes meaningful."""
    if interval is None:
        return 0
    width = interval[1] - interval[0]
    return 0 if width >= 0.02 else 1 if width >= 0.002 else 2


def between(interval: tuple[float, float] | None, joint: str = "–") -> str:
    """An interval in percent, as `89–97`, or with words between its ends."""
    if interval is None:
        return ""
    decimals = decimals_for(interval)
    return f"{percent(interval[0], decimals)}{joint}{percent(interval[1], decimals)}"


def count(n: int, one: str, many: str) -> str:
    """`1 photo`, `12,345 photos`."""
    return f"{n:,} {one if n == 1 else many}"


def n_right(test: dict[str, Any]) -> int:
    """How many test photos are right, from what metrics.json has."""
    accuracy = number(test.get("accuracy"))
    return 0 if accuracy is None else round(accuracy * whole(test.get("n")))


def headline(test: dict[str, Any]) -> str | None:
    """The result in plain words, or None where nothing was tested."""
    n, accuracy = number(test.get("n")), number(test.get("accuracy"))
    if not n or accuracy is None:
        return None
    right, interval = n_right(test), pair(test.get("accuracy_ci95"))
    decimals = decimals_for(interval)
    text = f"{right:,} of {count(int(n), 'test photo', 'test photos')} right: {percent(accuracy, decimals)}\u00a0%"
    if interval is None:
        return text + "."
    more = int(float(f"{photos_to_halve(int(n)):.2g}"))
    plausible = f"{between(interval, ' to ')}\u00a0% is what the true accuracy plausibly is"
    return f"{text}, and {plausible}; about {more:,} more test photos would halve that range."


def confusions(test: dict[str, Any]) -> list[Confusion]:
    """Every pair of classes that was confused, most photos first; of equals, the larger share of its class first."""
    labels, counts = matrix(test)
    n_label = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [Confusion(labels[i], labels[j], int(counts[i, j]), int(n_label[i])) for i, j in zip(*np.nonzero(wrong), strict=True)]
    return sorted(pairs, key=lambda each: (-each.n, each.n_label, each.label, each.predicted))


def matrix(test: dict[str, Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Labels and counts of the confusion matrix; an empty one where it is absent or out of shape."""
    record = section(test, "confusion")
    labels, counts = record.get("labels"), record.get("counts")
    nothing = np.zeros((0, 0), dtype=np.int64)
    try:
        found = np.array(counts, dtype=np.int64)
    except (TypeError, ValueError):
        return [], nothing
    if not isinstance(labels, list) or found.shape != (len(labels), len(labels)):
        return [], nothing
    return [str(label) for label in labels], found


def calibration(folder: RunFolder, mean_confidence: float | None) -> str:
    """What the probabilities are worth, in one sentence."""
    ece, accuracy = number(folder.test.get("ece")), number(folder.test.get("accuracy"))
    interval = pair(section(folder.test, "ci95").get("ece"))
    if ece is None or accuracy is None:
        return ""
    measured = f"The calibration error is {percent(ece, 1)} points"
    if interval is not None:
        measured += f" ({between(interval)})"
    if interval is not None and interval[0] == 0.0:
        photos = count(test_n(folder), "photo", "photos")
        return f"{measured}: chance alone can show as much on {photos}, so nothing speaks against its probabilities."
    if mean_confidence is None:
        return f"{measured}."
    kind = "more" if mean_confidence > accuracy else "less"
    claims = f"claims {percent(mean_confidence)}\u00a0% and is right for {percent(accuracy)}\u00a0%"
    return f"{measured}: on average the classifier {claims}, so it is {kind} sure than it should be."


def test_n(folder: RunFolder) -> int:
    """Test photos (count)."""
    return whole(folder.test.get("n"))
