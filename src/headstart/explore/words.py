"""What an exploration found, in plain words: one finding a topic, warnings marked. Made from the content of explore.json alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.data.table import some
from headstart.errors import safe_text

EVEN = 1.5  # largest class to smallest, up to which classes count as equal
UNEVEN = 3.0  # from which on accuracy alone misleads
MOST_NAMED = 5
ONE_CLASS_HELD_OUT = (
    "Only photos of {} could be held out, so nothing is known of how well a classifier would tell classes apart: add photos of the others."
)

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """topic: classes, files, pixels, duplicates, score, labels, shortcuts or growth. warning: whether something should be done."""

    topic: str
    text: str
    warning: bool = False


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What explore.json says, in the order in which it is best read."""
    parts = (_classes, _files, _pixels, _duplicates, _score, _labels, _shortcuts, _growth)
    return tuple(finding for part in parts for finding in part(facts))


def count(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 photo`, `1,000 photos`."""
    plural = f"{one}s" if many is None else many
    return f"{n:,} {one if n == 1 else plural}"


def percent(share: float) -> str:
    """A share for people: `43.1 %`."""
    return f"{100 * share:.1f} %"


def _named(names: Sequence[str]) -> str:
    return some((f"'{safe_text(name)}'" for name in names), MOST_NAMED)


def _classes(facts: Facts) -> Iterator[Finding]:
    data = facts["data"]
    n_each = {name: row["all"] for name, row in data["classes"].items()}
    largest, smallest = max(n_each, key=lambda name: n_each[name]), min(n_each, key=lambda name: n_each[name])
    least, most = n_each[smallest], n_each[largest]
    if data["imbalance"] <= EVEN:
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield Finding("classes", f"Classes are even: {each} photos each.")
    else:
        big, little = f"'{safe_text(largest)}'", f"'{safe_text(smallest)}'"
        ratio = f"{big} has {data['imbalance']:.1f} times as many photos as {little} ({most:,} and {least:,})"
        guess = f"Always answering {big} would be right for {percent(data['majority'])}"
        uneven = data["imbalance"] >= UNEVEN
        advice = ": read balanced accuracy beside accuracy, or add photos of the small classes." if uneven else "."
        yield Finding("classes", f"Classes are uneven: {ratio}. {guess}{advice}", warning=uneven)
    if small := data["small_classes"]:
        have = "1 class has" if len(small) == 1 else f"{len(small)} classes have"
        text = f"{have} fewer than 30 photos, so that a score on one says little: {_named(small)}. More photos of these help most."
        yield Finding("classes", text, warning=True)


def _files(facts: Facts) -> Iterator[Finding]:
    if omitted := facts["data"]["omitted"]:
        reasons = some((f"{safe_text(reason)} ({n:,})" for reason, n in omitted.items()), MOST_NAMED)
        yield Finding("files", f"{count(sum(omitted.values()), 'file')} left out: {reasons}. omitted.csv names each.", warning=True)


def _pixels(facts: Facts) -> Iterator[Finding]:
    looks = facts["looks"]
    yield Finding("pixels", f"Pixels have mean {looks['mean_all']:.2f} and standard deviation {looks['std_all']:.2f} (0 to 255).")
    if n := looks["not_finite"]:
        have = "1 photo holds" if n == 1 else f"{n:,} photos hold"
        named = [safe_text(path) for path in looks["not_finite_photos"][:MOST_NAMED]]
        more = f" and {n - len(named):,} more" if n > len(named) else ""
        text = f"{have} values that are not finite, which are read as black or white: {', '.join(named)}{more}."
        yield Finding("pixels", text, warning=True)


def _duplicates(facts: Facts) -> Iterator[Finding]:
    found = facts["duplicates"]
    n = found["n_exact"] + found["n_near"]
    if not n:
        yield Finding("duplicates", "No photo is there twice.")
        return
    words = (("n_exact", "of equal files"), ("n_near", "of photos that look the same"))
    kinds = [f"{found[key]:,} {word}" for key, word in words if found[key]]
    text = f"{count(found['n_photos'], 'photo')} in {count(n, 'cluster')} of duplicates ({', '.join(kinds)})."
    if across := found["across_test"]:
        text += f" {_lie(across)} in test and outside it: a score on them is memory, not skill."
    if across := found["across_classes"]:
        text += f" {_lie(across)} in more than one class: at most one of their labels is right."
    yield Finding("duplicates", text, warning=bool(found["across_test"] or found["across_classes"]))


def _lie(n_clusters: int) -> str:
    return "1 cluster lies" if n_clusters == 1 else f"{n_clusters:,} clusters lie"


def _score(facts: Facts) -> Iterator[Finding]:
    if (oof := facts["out_of_fold"]) is not None and oof["only_class"] is not None:
        yield Finding("score", ONE_CLASS_HELD_OUT.format(f"'{safe_text(oof['only_class'])}'"))
    elif oof is not None:
        low, high = oof["accuracy_ci95"]
        text = (
            f"A linear head on features of {facts['backbone']} is right for {percent(oof['accuracy'])} of photos it had not seen "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f} %), always answering the most frequent class for {percent(oof['majority'])}: "
            "what training starts from."
        )
        yield Finding("score", text)
    if (naive := facts["naive"]) is not None and naive["differ"]:
        alone, kept = naive["naive"]["accuracy"], naive["honest"]["accuracy"]
        text = (
            f"A split that parts photos which belong together would show {percent(alone)} instead of {percent(kept)}: "
            "headstart's splits keep them together."
        )
        yield Finding("score", text, warning=True)


def _labels(facts: Facts) -> Iterator[Finding]:
    found = facts["suspects"]
    if found is None:
        yield Finding("labels", "Too few photos to judge their labels.")
        return
    if not found["n"]:
        yield Finding("labels", f"No label of {count(found['n_checked'], 'photo')} is contradicted by 4 to 1 or more.")
        return
    first = found["photos"][0]
    text = (
        f"{count(found['n'], 'label')} of {found['n_checked']:,} may be wrong, first {safe_text(first['path'])} "
        f"('{safe_text(first['label'])}', likely '{safe_text(first['likely'])}'). Look at them in the report before you leave any out."
    )
    yield Finding("labels", text, warning=True)


def _shortcuts(facts: Facts) -> Iterator[Finding]:
    warnings = [shortcut["warning"] for shortcut in facts["shortcuts"] if shortcut["warning"] is not None]
    for warning in warnings:
        yield Finding("shortcuts", warning, warning=True)
    if facts["shortcuts"] and not warnings:
        tried = some((shortcut["name"] for shortcut in facts["shortcuts"]), 9)
        yield Finding("shortcuts", f"No shortcut found: {tried} alone do not give the class away.")


def _growth(facts: Facts) -> Iterator[Finding]:
    if (curve := facts["learning_curve"]) is None:
        return
    verdicts: dict[str, list[str]] = {}
    for name, row in curve["per_class"].items():
        verdicts.setdefault(row["verdict"], []).append(name)
    if helped := verdicts.get("more photos help"):
        yield Finding("growth", f"More photos would help: {_named(helped)}.")
    if saturated := verdicts.get("saturated"):
        yield Finding("growth", f"Saturated, more photos change little: {_named(saturated)}.")
