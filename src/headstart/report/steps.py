"""What to do next: the few steps that bring most, in the order in which they should be taken."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from headstart.report import words
from headstart.report.checks import Duplicates, Growth, Shortcut, Suspects
from headstart.report.folder import RunFolder, number, pair, section
from headstart.report.tuning import Story

MOST_STEPS = 5  # the last of them says how to use the classifier

_BADLY_CALIBRATED = 0.03  # the smallest gap worth a word: "90 % sure" that is right 87 times in 100
_FEW_PHOTOS = 0.5  # of what the middle class has
_MOST_NAMES = 3


@dataclass(frozen=True)
class Findings:
    """What other sections of the page found, each None or empty where there is nothing."""

    duplicates: Duplicates | None = None
    suspects: Suspects | None = None
    shortcuts: tuple[Shortcut, ...] = ()
    growth: Growth | None = None
    tuning: Story | None = None


def next_steps(folder: RunFolder, findings: Findings) -> list[Markup]:
    """What to do now, at most five steps. First what makes the score doubtful, then what improves it, last how to use the classifier."""
    doubts = [*_is_it_any_good(folder), *_straddling(findings.duplicates), *_shortcuts(findings.shortcuts)]
    gains = [*_suspects(folder, findings.suspects), *_another_backbone(folder), *_try_next(findings.tuning)]
    gains += [*_more_photos(folder, findings.growth), *_mind_probabilities(folder), *_omitted(folder)]
    line = f"headstart predict {shlex.quote(_shown_path(folder.path))} photo.jpg --top 3"
    use = Markup("Try it on new photos: <code>{}</code>").format(words.command(line))
    return [*[*doubts, *gains][: MOST_STEPS - 1], use]


def _shown_path(path: Path) -> str:
    """As it can be typed where the report was made: relative where that is shorter."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) and whole != here else str(whole)


def _is_it_any_good(folder: RunFolder) -> list[Markup]:
    interval, baseline = pair(folder.test.get("accuracy_ci95")), number(folder.test.get("baseline_majority"))
    if interval is None or baseline is None or interval[0] > baseline:
        return []
    text = (
        "<strong>Do not use it yet.</strong> Always giving the most frequent class would be right for {}&nbsp;% too. "
        "Check that labels and photos belong together."
    )
    return [Markup(text).format(words.percent(baseline))]


def _straddling(found: Duplicates | None) -> list[Markup]:
    if found is None or not found.n_across_test:
        return []
    if found.is_split_given:
        split, instead = "given split", "train without a given split: headstart's own keeps them together."
    else:
        split, instead = "split", "give photos that belong together one <code>group</code> in a CSV."
    text = (
        "<strong>Do not quote this score yet.</strong> <a href='#duplicates'>{}</a> on both sides of the {}. Take them off one side, or {}"
    )
    lie = words.count(found.n_across_test, "group of duplicates lies", "groups of duplicates lie")
    return [Markup(text).format(lie, split, Markup(instead))]


def _shortcuts(found: tuple[Shortcut, ...]) -> list[Markup]:
    warned = [each for each in found if each.warning]
    if not warned:
        return []
    best = warned[0]
    more = "" if len(warned) == 1 else f" {words.count(len(warned) - 1, 'other clue', 'other clues')} may give classes away too."
    text = (
        "<a href='#shortcuts'>Rule out a shortcut</a>: {} alone give the class away for {}&nbsp;% of photos, so the classifier may go by "
        "that and fail elsewhere.{} Test it on photos taken another way."
    )
    return [Markup(text).format(words.name(best.words), best.score.text, more)]


def _suspects(folder: RunFolder, found: Suspects | None) -> list[Markup]:
    """Suspect labels; where none were looked for, the mistakes, among which wrong labels show too."""
    if found is not None and found.n:
        text = (
            "<a href='#suspects'>Look at {}</a>, then train again with <code class='option'>--exclude</code> or "
            "<code class='option'>--corrections</code>."
        )
        return [Markup(text).format(words.count(found.n, "label that may be wrong", "labels that may be wrong"))]
    confused = words.confusions(folder.test)
    if not confused or folder.predictions is None:
        return []
    worst = confused[0]
    if found is not None:
        text = (
            "<a href='#mistakes'>Look at the most confident mistakes</a>, above all between {} and {}: what do these photos have in common?"
        )
    else:
        text = "<a href='#mistakes'>Look at the most confident mistakes</a>: wrong labels show there first, above all between {} and {}."
    return [Markup(text).format(words.name(worst.label), words.name(worst.predicted))]


def _another_backbone(folder: RunFolder) -> list[Markup]:
    if folder.of("backbone", "origin") != "embedded" and folder.of("backbone", "name") != "embedded":
        return []
    text = (
        "This run used the small backbone that comes with headstart. ImageNet weights, which have learned from 1.3 million photos, "
        "tell more things apart: add <code class='option'>--backbone resnet50</code>."
    )
    return [Markup(text)]


def _try_next(told: Story | None) -> list[Markup]:
    """What fine-tuning leaves to try; a trial that paid has no need of a step so far up."""
    if told is None or not told.option or not told.advice.startswith("To try"):
        return []
    text = "<a href='#tuning'>{}</a>. {} <code class='option'>{}</code>."
    return [Markup(text).format(told.title, told.advice, told.option)]


def _more_photos(folder: RunFolder, growth: Growth | None) -> list[Markup]:
    """The classes that the learning curve says gain most; without a curve, the weakest class that has few photos."""
    if growth is None:
        return _few_photos(folder)
    gaining = [row for row in growth.rows if row.verdict == "more photos help"][:_MOST_NAMES]
    if not gaining:
        return []
    names = Markup(", ").join(words.name(row.name) for row in gaining)
    text = "<a href='#growth'>Add photos of</a> {}: there the learning curve still climbs."
    return [Markup(text).format(names)]


def _few_photos(folder: RunFolder) -> list[Markup]:
    """The weakest class, where it also has clearly fewer photos to learn from than the others."""
    train = folder.split.get("train", {})
    rows = {label: number(section(section(folder.test, "per_class"), label).get("f1")) for label in train}
    scored = {label: f1 for label, f1 in rows.items() if f1 is not None}
    if len(scored) < 3:
        return []
    middle = float(np.median(list(train.values())))
    short = [label for label in scored if train[label] < _FEW_PHOTOS * middle and scored[label] < float(np.median(list(scored.values())))]
    if not short:
        return []
    label = min(short, key=lambda each: scored[each])
    text = "Add photos of {}: it has {} to learn from, the class in the middle has {:.0f}."
    return [Markup(text).format(words.name(label), train[label], middle)]


def _mind_probabilities(folder: RunFolder) -> list[Markup]:
    interval = pair(section(folder.test, "ci95").get("ece"))
    if interval is None or interval[0] < _BADLY_CALIBRATED:
        return []
    return [
        Markup("Take its probabilities as a ranking only: they are {} points off (<a href='#probabilities'>how</a>).").format(
            words.between(interval)
        )
    ]


def _omitted(folder: RunFolder) -> list[Markup]:
    if not folder.omitted:
        return []
    return [Markup("See <a href='#omitted'>{}</a> that could not be used.").format(words.count(len(folder.omitted), "photo", "photos"))]
