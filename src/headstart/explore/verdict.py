"""The first screen of the exploration: what is there, what is wrong with it, what to do next, in plain words."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headstart.explore.exploration import Exploration
from headstart.explore.overview import FEW
from headstart.explore.words import UNEVEN
from headstart.report.words import command, count, name, visible


@dataclass(frozen=True)
class Check:
    """One thing that was looked for. n: how often it was found, None where it could not be looked for; `part` is its place on the page."""

    title: str
    n: int | None
    meaning: str
    part: str
    in_short: str
    "as part of a sentence"


def looked_for(found: Exploration) -> list[Check]:
    """What can be wrong with photos, in the order in which it is best put right."""
    misleading = sum(cluster.across_splits or cluster.across_classes for cluster in found.duplicates.clusters)
    n_small = len(found.overview.small)
    return [
        Check(
            "Files that cannot be used", sum(found.overview.omitted.values()), _why_omitted(found), "omitted", "files that cannot be used"
        ),
        Check("Duplicates that mislead", misleading, _why_duplicates(found), "duplicates", "duplicates"),
        Check("Suspect labels", _n_suspects(found), _why_suspects(found), "suspects", "suspect labels"),
        Check("Shortcuts", len(_warnings(found)), _why_shortcuts(found), "shortcuts", "shortcuts"),
        Check("Classes too small", n_small, f"of fewer than {FEW} photos" if n_small else _balance(found), "classes", "small classes"),
    ]


def lead(found: Exploration) -> str:
    """The verdict in one or two sentences."""
    wrong = [check.in_short for check in looked_for(found) if check.n]
    if not wrong:
        return "Nothing was found that should keep you from training."
    listed = wrong[0] if len(wrong) == 1 else f"{', '.join(wrong[:-1])} and {wrong[-1]}"
    thing = "One thing" if len(wrong) == 1 else f"{('Two', 'Three', 'Four', 'Five')[len(wrong) - 2]} things"
    return f"{thing} to look at before you train: {listed}. They are listed in the order in which they are best put right."


def next_steps(found: Exploration) -> list[Markup]:
    """What to do now, in order; the last says how to train."""
    steps = [*_files(found), *_twins(found), *_labels(found), *_clues(found), *_small(found)]
    return [*steps, Markup("Train, with the same photos for DATA: <code>{}</code>").format(command("headstart train DATA --out RUN"))]


def _files(found: Exploration) -> list[Markup]:
    n = sum(found.overview.omitted.values())
    if not n:
        return []
    reason = next(iter(found.overview.omitted))
    text = "Replace or delete <a href='#omitted'>{}</a>, most often: {}. Until then they are left out of training."
    return [Markup(text).format(count(n, "file that cannot be used", "files that cannot be used"), visible(reason))]


def _twins(found: Exploration) -> list[Markup]:
    torn, straddling = _misleading(found)
    steps = []
    if torn:
        text = "Decide on one label for <a href='#duplicates'>{}</a> with more than one label each."
        steps.append(Markup(text).format(count(torn, "group of duplicates", "groups of duplicates")))
    if straddling:
        text = "Move <a href='#duplicates'>{}</a> to one side of your split; as it is, a test score flatters."
        steps.append(Markup(text).format(count(straddling, "group of duplicates", "groups of duplicates")))
    return steps


def _labels(found: Exploration) -> list[Markup]:
    n = _n_suspects(found)
    if not n:
        return []
    text = (
        "Look at <a href='#suspects'>{}</a>. Take the rows of photos whose label is right out of <code>corrections.csv</code>, "
        "then train with <code>{}</code>; your files stay as they are."
    )
    listed = command(f"--corrections {shlex.quote(str(found.folder / 'corrections.csv'))}")
    return [Markup(text).format(count(n, "suspect label", "suspect labels"), listed)]


def _clues(found: Exploration) -> list[Markup]:
    warnings = _warnings(found)
    if not warnings:
        return []
    text = "Mind the <a href='#shortcuts'>{}</a>: photos of all classes should be taken, cut and saved in the same way."
    return [Markup(text).format("shortcut" if len(warnings) == 1 else f"{len(warnings)} shortcuts")]


def _small(found: Exploration) -> list[Markup]:
    small = sorted(found.overview.small, key=lambda each: found.overview.classes[each]["all"])
    if small:
        shown = Markup(", ").join(name(each) for each in small[:3])
        more = f" and {len(small) - 3:,} more" if len(small) > 3 else ""
        text = "Add photos of {}{}: with fewer than {} a class is hardly learned, and its score hardly measured."
        return [Markup(text).format(shown, more, FEW)]
    if found.overview.imbalance > UNEVEN:
        sizes = {each: counts["all"] for each, counts in found.overview.classes.items()}
        text = "Add photos of {}: the largest class has {:.0f} times as many."
        return [Markup(text).format(name(min(sizes, key=lambda each: sizes[each])), found.overview.imbalance)]
    return []


def _why_omitted(found: Exploration) -> str:
    reasons = list(found.overview.omitted)
    if not reasons:
        return "every file that was listed can be read"
    return f"most often: {visible(reasons[0])}" if len(reasons) > 1 else visible(reasons[0])


def _misleading(found: Exploration) -> tuple[int, int]:
    """Groups of duplicates with more than one label, and those in test and outside it."""
    clusters = found.duplicates.clusters
    return sum(cluster.across_classes for cluster in clusters), sum(cluster.across_test for cluster in clusters)


def _why_duplicates(found: Exploration) -> str:
    torn, straddling = _misleading(found)
    if straddling or torn:
        parts = ([f"{straddling:,} in test and outside"] if straddling else []) + ([f"{torn:,} across classes"] if torn else [])
        return "groups, " + " and ".join(parts)
    n_photos = sum(len(cluster.photos) for cluster in found.duplicates.clusters)
    return f"{n_photos:,} photos have a twin, of the same class and split" if n_photos else "no photo comes twice"


def _n_suspects(found: Exploration) -> int | None:
    return None if found.suspects is None else len(found.suspects.photos)


def _why_suspects(found: Exploration) -> str:
    if found.suspects is None:
        return "not checked: too few photos"
    return f"of {found.suspects.n_checked:,} that were checked"


def _warnings(found: Exploration) -> Sequence[str]:
    return [shortcut.warning for shortcut in found.shortcuts if shortcut.warning]


def _why_shortcuts(found: Exploration) -> str:
    if not found.shortcuts:
        return "not checked: too few photos"
    return "clues beside the picture that give the class away" if _warnings(found) else "nothing beside the picture gives the class away"


def _balance(found: Exploration) -> str:
    if len(found.overview.classes) < 2:
        return "there is only one class"
    if found.overview.imbalance < 1.05:
        return "all have about as many photos"
    return f"the largest has {found.overview.imbalance:.3g} times the photos of the smallest"
