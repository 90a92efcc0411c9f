"""Which photos an export is calibrated on and which test it: never the same, and of a run its own."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart import assess
from headstart.bundle.format import Bundle
from headstart.data.scan import scan
from headstart.data.table import Table
from headstart.errors import ConfigError, DataError, safe_text
from headstart.runs import Run

N_CALIBRATE = 300
"""photos that fix the ranges of an int8 network, at most: as many as NNCF takes by default"""

_SHARE_TO_CALIBRATE = 3  # of data without splits, one in so many; the others test
WORDS = "give labelled photos of the model's classes with --data"
"""what to do where photos are missing"""


@dataclass(frozen=True)
class Chosen:
    """Files to calibrate on, in a drawn order; labelled photos to test on, or None: there are none; what must be known of these."""

    calibrate: Sequence[Path]
    test: Table | None
    about: str
    notices: tuple[str, ...] = ()


def choose(bundle: Bundle, run: Path | None, data: str | None, *, int8: bool, seed: int = 0) -> Chosen:
    """The photos for an export: those of `data`, else those of the model's own run.

    Of data with a test split, test photos test and the others calibrate; of data without splits a drawn third calibrates.

    Args: run: the model's run folder, where it has one. int8: whether photos to calibrate on are needed.
    Raises:
        ConfigError: int8 without photos.
        DataError: classes that the model does not know, photos that are gone or changed, or none left to calibrate or test on.
    """
    if data is not None:
        chosen = _of_data(bundle, data, int8, seed)
        return chosen if chosen.test is None else dataclasses.replace(chosen, notices=assess.seen_in_training(bundle, run, chosen.test))
    if run is not None:
        return _of_run(run, int8, seed)
    if int8:
        raise ConfigError("int8 needs photos to be calibrated and tested on, and this model comes without its run", hint=WORDS)
    return Chosen((), None, "no photos")


def run_of(model: str | os.PathLike[str]) -> Path | None:
    """The run folder that `model` names, itself or by the bundle inside it."""
    folder = Path(model)
    if folder.name == "model" and os.path.lexists(folder.parent / "run.json"):
        folder = folder.parent
    return folder if os.path.lexists(folder / "run.json") else None


def _of_run(folder: Path, int8: bool, seed: int) -> Chosen:
    run = Run(folder)
    try:
        test = assess.photos_as_split(run, "test")
        train = assess.photos_as_split(run, "train") if int8 else None
    except DataError as error:
        raise DataError(error.message, hint=f"put them back, or {WORDS}") from error
    calibrate = () if train is None else _drawn(train, N_CALIBRATE, seed)
    return Chosen(calibrate, test, f"the run's {len(test)} test photos")


def _of_data(bundle: Bundle, data: str, int8: bool, seed: int) -> Chosen:
    table = scan(data, least_classes=1)
    name = safe_text(table.name)
    if any(photo.split == "test" for photo in table.photos):
        test = table.of("test")
        rest = table.subset([i for i, photo in enumerate(table.photos) if photo.split != "test"])
        about = f"the {len(test)} test photos of {name}"
    elif int8:
        order = np.random.default_rng(seed).permutation(len(table)).tolist()
        n = min(N_CALIBRATE, len(table) // _SHARE_TO_CALIBRATE)
        rest, test = table.subset(sorted(order[:n])), table.subset(sorted(order[n:]))
        about = f"the {len(test)} photos of {name} that did not calibrate it"
    else:
        return Chosen((), assess.in_the_models_words(table, bundle), f"{len(table)} photos of {name}")
    test = assess.in_the_models_words(test, bundle)
    if not int8:
        return Chosen((), test, about)
    contents = {photo.sha256 for photo in rest.photos}
    test = test.subset([i for i, photo in enumerate(test.photos) if photo.sha256 not in contents])  # copies
    if not len(rest) or not len(test):
        raise DataError(
            f"int8 needs photos to calibrate on and others to test on; of {name} {len(rest)} and {len(test)} are left", hint=WORDS
        )
    return Chosen(_drawn(rest, N_CALIBRATE, seed), test, about)


def _drawn(table: Table, n: int, seed: int) -> list[Path]:
    return [table.file(int(i)) for i in np.random.default_rng(seed).permutation(len(table))[:n]]
