"""The story of fine-tuning in plain words, for the page and the terminal: whether it pays, what it cost, what was kept, what to do next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.config import seconds_of
from headstart.errors import ConfigError
from headstart.evaluate.intervals import wilson
from headstart.report import words
from headstart.report.folder import number, section

_BUDGETS_MINUTES = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440)
_SPARE = 1.25  # a budget that the estimate fills to the brim is soon too small
_MORE = 3  # a trial with so many times the budget may afford a deeper cut


@dataclass(frozen=True)
class Score:
    """What one candidate reached on val, as ready text."""

    name: str
    accuracy: str
    interval: str
    """of the accuracy, where the number of photos is on record"""
    loss: str
    kept: bool


@dataclass(frozen=True)
class Story:
    """What run.json's `tuning` says."""

    title: str
    short: str
    """the same in a few words"""
    summary: str
    """which classifier was kept, and what the trial cost"""
    why: list[str]
    scores: list[Score]
    advice: str
    """ends before `option`, both empty where nothing is left to try"""
    option: str
    """what to add to the command"""
    dropped: bool
    """whether it was tried, and the head alone kept"""


def story(run: Mapping[str, Any]) -> Story | None:
    """The story of `run`, the content of run.json; None where it has no word on fine-tuning."""
    record = section(run, "tuning")
    if record.get("verdict") not in ("pays", "does not pay", "not tried"):
        return None
    short = _short(record)
    why = record.get("why")
    advice, option = _advice(record, run)
    return Story(
        title=f"Fine-tuning {short}" + (" here" if short.endswith(("pay", "pays")) else ""),
        short=short,
        summary=" ".join(part for part in (_kept(record), _expected(record), _time(record)) if part),
        why=[_sentence(str(each)) for each in why if str(each).strip()] if isinstance(why, list) else [],
        scores=_scores(record),
        advice=advice,
        option=option,
        dropped=bool(section(record, "tuned")) and not _in_use(record),
    )


def duration(minutes: float) -> str:
    """A length of time as people say it.

    >>> duration(0.2), duration(1 / 60), duration(4.21), duration(42.0), duration(150)
    ('12 seconds', '1 second', '4.2 minutes', '42 minutes', '2.5 hours')
    """
    if minutes < 1.5:
        return words.count(round(60 * minutes), "second", "seconds") if minutes >= 1 / 60 else "less than a second"
    amount, unit = (minutes, "minutes") if minutes < 90 else (minutes / 60, "hours")
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def budget_for(minutes: float) -> str:
    """A round `--budget` that so many minutes of work fit into.

    >>> budget_for(0.5), budget_for(12.0), budget_for(24.1), budget_for(100), budget_for(2000)
    ('1m', '15m', '45m', '3h', '42h')
    """
    needed = _SPARE * minutes
    least = next((each for each in _BUDGETS_MINUTES if each >= needed), None)
    if least is None:
        return f"{-int(-needed // 60)}h"
    return f"{least // 60}h" if least >= 120 or least == 60 else f"{least}m"


def _in_use(record: dict[str, Any]) -> bool:
    return record.get("kept") in ("tuned", "average")


def _short(record: dict[str, Any]) -> str:
    """The outcome of the trial, and where there was none, what was expected of it."""
    if section(record, "tuned"):
        return "pays" if _in_use(record) else "does not pay"
    if _in_use(record):
        return "was done"
    if record.get("given_up"):
        return "was given up"
    return {"pays": "is likely to pay", "does not pay": "is unlikely to pay"}.get(str(record["verdict"]), "was not tried")


def _kept(record: dict[str, Any]) -> str:
    alpha = number(record.get("average"))
    if reason := record.get("given_up"):
        after = "" if not number(record.get("minutes")) else f" after {duration(float(record['minutes']))}"
        return f"It was given up{after}: {_sentence(str(reason), capital=False)} The classifier is the head alone, on frozen features."
    if record.get("kept") == "tuned":
        unjudged = "" if section(record, "tuned") else " There were no validation photos to judge it by."
        return f"The fine-tuned network was kept.{unjudged}"
    if record.get("kept") == "average":
        mix = "" if alpha is None else f", {words.percent(alpha)}\u00a0% of it fine-tuned"
        return f"An average of the weights before and after fine-tuning was kept{mix}."
    if record.get("kept") == "dense":
        better = " The solved head does no worse on validation photos." if record.get("hindsight") == "did not pay" else ""
        return f"The classifier is the dense head that was asked for, on frozen features.{better}"
    if section(record, "tuned"):
        return "The head alone was kept: fine-tuning did no better on validation photos."
    untried = "So it was not tried: the" if record["verdict"] == "does not pay" else "The"
    return f"{untried} classifier is the head alone, on frozen features."


def _expected(record: dict[str, Any]) -> str:
    """Where the trial came out differently than was thought."""
    if not section(record, "tuned") or (record["verdict"] == "pays") == _in_use(record) or record["verdict"] == "not tried":
        return ""
    return "It was expected to pay." if record["verdict"] == "pays" else "It was not expected to pay."


def _time(record: dict[str, Any]) -> str:
    estimate, minutes = number(record.get("estimate_minutes")), number(record.get("minutes"))
    if record.get("given_up"):
        return ""  # told with the reason
    if minutes is not None and minutes > 0 and (section(record, "tuned") or _in_use(record)):
        expected = "" if not estimate else f" (expected: {duration(estimate)})"
        return f"The trial took {duration(minutes)}{expected}."
    return f"On this machine it would take about {duration(estimate)}." if estimate is not None and estimate > 0 else ""


def _scores(record: dict[str, Any]) -> list[Score]:
    kept, n, found = record.get("kept"), number(record.get("n_val")), []
    names = {"probe": "head alone", "tuned": "fine-tuned", "averaged": "average of both"}
    if kept == "dense":
        names = {"probe": "solved head", "dense": "dense head"}
    for key, name in names.items():
        accuracy, loss = (number(section(record, key).get(f"val_{what}")) for what in ("accuracy", "loss"))
        if accuracy is not None or loss is not None:
            is_kept = kept == ("average" if key == "averaged" else key)
            interval = "" if accuracy is None or not n or not 0 <= accuracy <= 1 <= n else words.between(wilson(accuracy * n, n))
            found.append(Score(name, words.percent(accuracy, 1), interval, "–" if loss is None else f"{loss:.3f}", is_kept))
    return found


def _advice(record: dict[str, Any], run: Mapping[str, Any]) -> tuple[str, str]:
    """What to try next and the option for it."""
    config, estimate = section(run, "config"), number(record.get("estimate_minutes"))
    tune, budget = config.get("tune"), _minutes(config.get("budget"))
    if section(run, "asked").get("phases") or section(config, "head").get("kind") == "dense":  # not planned: phases would be one's own
        return "", ""
    if section(record, "tuned"):
        more = "A larger budget may afford a deeper cut, more epochs or views:"
        return (more, f"--budget {budget_for(_MORE * budget / _SPARE)}") if _in_use(record) and budget is not None else ("", "")
    if record.get("given_up") or record["verdict"] == "pays":  # or without photos to judge it by
        return "", ""
    if tune == "never":
        return "To try it:", "--set tune=if-it-pays"
    if estimate and (budget is None or estimate > budget) and (record["verdict"] != "does not pay" or tune == "always"):
        return "To try it:", f"--budget {budget_for(estimate)}"
    return ("To try it all the same:", "--set tune=always") if tune != "always" else ("", "")


def _minutes(budget: Any) -> float | None:
    try:
        return number(seconds_of(str(budget)) / 60)
    except ConfigError:
        return None


def _sentence(text: str, *, capital: bool = True) -> str:
    text = text.strip()
    return (text[0].upper() if capital else text[0]) + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
