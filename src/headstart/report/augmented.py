"""One training photo as the network sees it: the same photo through the run's own augmentation, view after view."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from headstart.data import pixels
from headstart.data.augment import augment
from headstart.data.pixels import Pixels, Preprocessing
from headstart.errors import ConfigError, DataError
from headstart.report import words
from headstart.report.folder import RunFolder, whole
from headstart.report.phases import PhaseFacts, phases_of
from headstart.report.pictures import view_picture

N_VIEWS = 8
_MOST_POLICIES = 3  # with more, the page is about little else
_MOST_TRIES = 5  # photos opened in search of one that is still there


@dataclass(frozen=True)
class View:
    """One picture and what it is."""

    label: str
    alt: str
    picture: str


@dataclass(frozen=True)
class Views:
    """What the network sees of one photo in phases that augment alike."""

    title: str
    about: str
    views: list[View]


@dataclass(frozen=True)
class Augmented:
    """The section: one group for each way in which training views are made, or the reason why there is none."""

    path: str
    groups: list[Views]
    absent: str


def augmented(folder: RunFolder) -> Augmented | None:
    """The views of a training photo under each augmentation of the run; None where no phase augments.

    The photo is the one of the smallest sha256 that is still there, so that the same run always shows the same.
    """
    by_kind: dict[tuple[str, int | None, bool, int], list[PhaseFacts]] = {}
    for phase in phases_of(folder) if folder.history else ():  # else it was planned and never run
        if phase.augments:
            by_kind.setdefault((phase.augment, phase.px, phase.fresh, phase.views), []).append(phase)
    if not by_kind:
        return None
    if folder.preprocessing is None:
        return Augmented("", [], "The run folder holds no model that says how photos are prepared, so their views cannot be shown.")
    found = next(_photos(folder), None)
    if found is None:
        return Augmented("", [], "The training photos are no longer where they were, or were changed, so their views cannot be shown.")
    path, sha256, content = found
    groups = []
    try:
        for alike in list(by_kind.values())[:_MOST_POLICIES]:
            groups.append(_views(folder, alike, content, sha256, folder.preprocessing))
    except ConfigError as error:  # a run of another version
        return Augmented("", [], f"The views cannot be made by this version of headstart: {error.message}.")
    return Augmented(path, groups, "")


def _photos(folder: RunFolder) -> Iterator[tuple[str, str, Pixels]]:
    """Training photos that can still be read and are what they were: path, sha256, pixels."""
    if folder.photos_root is None or folder.preprocessing is None:
        return
    for sha256, path in sorted(folder.train_photos)[:_MOST_TRIES]:
        try:
            source = (folder.photos_root / path).read_bytes()
            if hashlib.sha256(source).hexdigest() == sha256:
                yield path, sha256, pixels.decode(source, shorter_px=_largest(folder))
        except (DataError, OSError, ValueError):  # ValueError: a path with a null byte
            continue


def _largest(folder: RunFolder) -> int:
    """What the largest of the phases resizes a photo's shorter side to, in pixels."""
    sizes = [phase.px for phase in phases_of(folder) if phase.px is not None]
    return max(_at(folder.preprocessing, px).resize_px for px in [None, *sizes]) if folder.preprocessing else 0


def _at(preprocessing: Preprocessing, px: int | None) -> Preprocessing:
    return preprocessing if px is None else preprocessing.with_px(px)


def _views(folder: RunFolder, alike: list[PhaseFacts], image: Pixels, sha256: str, preprocessing: Preprocessing) -> Views:
    phase = alike[0]
    px = phase.px if phase.px is not None else whole(folder.of("config", "px")) or None
    recipe = _at(preprocessing, px)
    # Of stored views the first is the centre view, which stands before them as the photo that predictions see.
    indices = range(1, 1 + N_VIEWS) if phase.fresh else range(1, min(1 + N_VIEWS, phase.views))
    centre = augment(image, sha256, "none", 0, recipe)
    shown = [View("centre view", "The photo's centre view, as in validation and prediction", view_picture(centre))]
    for i in indices:
        alt = f"The same photo, view {i}, under {words.visible(phase.augment)}"
        shown.append(View(f"view {i}", alt, view_picture(augment(image, sha256, phase.augment, i, recipe))))
    return Views(_title(folder, alike), _about(phase, recipe.input_px), shown)


def _title(folder: RunFolder, alike: list[PhaseFacts]) -> str:
    if len(phases_of(folder)) == 1:
        return alike[0].augment
    numbers = [str(phase.number) for phase in alike]
    listed = f"s {', '.join(numbers[:-1])} and {numbers[-1]}" if len(numbers) > 1 else f" {numbers[0]}"
    return f"Phase{listed}: {alike[0].augment}"


def _about(phase: PhaseFacts, px: int) -> str:
    """How views come about and what is done to them afterwards."""
    if phase.fresh:
        made = f"A new view of each photo is drawn for every epoch, at {px} x {px} px."
    else:
        made = f"An epoch takes one of {phase.views} fixed views of each photo at {px} x {px} px, the centre view among them."
    mixed = [f"{name} (alpha {alpha:g})" for name, alpha in (("mixup", phase.mixup), ("cutmix", phase.cutmix)) if alpha]
    return made + (f" Then {' and '.join(mixed)} blends pairs of them." if mixed else "")
