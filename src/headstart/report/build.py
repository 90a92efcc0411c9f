"""`write_report`: a run folder becomes one HTML file that explains itself.

The page makes no request to any host: pictures are data URIs, charts inline SVG, styles inline, and there is no script in it.
"""

import shlex
from pathlib import Path
from typing import Any

from headstart.bundle.explain import PASSES
from headstart.files import atomic_file
from headstart.report import checks, scores, sections, sets, training, words
from headstart.report.augmented import augmented
from headstart.report.folder import RunFolder, number, pair, read_run, section
from headstart.report.phases import phase_rows
from headstart.report.steps import Findings, next_steps
from headstart.report.templates import environment, style
from headstart.report.tuning import story

_MOST_CONFUSIONS = 6  # on the first screen
_MOST_CONFUSIONS_LISTED = 25  # in place of a matrix of very many classes
_CONTENTS = (  # anchor, what must be there for it, title
    ("classes", "rows_shown", "Class by class"),
    ("matrix", "labels", "Confusions"),
    ("mistakes", "mistakes", "Mistakes"),
    ("probabilities", "probabilities", "Probabilities"),
    ("sets", "sets", "Sets of labels"),
    ("unknown", "unknown", "None of these"),
    ("scores", "scores", "Every score"),
    ("suspects", "suspects", "Labels that may be wrong"),
    ("duplicates", "duplicates", "Duplicates"),
    ("shortcuts", "shortcuts", "Shortcuts"),
    ("growth", "growth", "More photos"),
    ("tuning", "tuning", "Fine-tuning"),
    ("again", "title", "To repeat this run"),
)
_DONE = ("tested", "finished")  # the report is written once everything is tested, and the run marked finished after it


def write_report(run_dir: Path, photos_root: Path | None = None) -> Path:
    """Write `report.html` into a run folder.

    Args:
        run_dir: the run folder. What is missing in it is named on the page.
        photos_root: folder that the paths of predictions.csv start from; None takes run.json's `data.root`. Photos that are no longer
            there are shown as their path alone.

    Returns: the path of the report.

    Raises:
        DataError: `run_dir` is no run folder.
        HeadstartError: the file cannot be written.
    """
    folder = read_run(run_dir, photos_root)
    page = environment().get_template("page.html").render(_context(folder))
    target = run_dir / "report.html"
    with atomic_file(target) as file:
        file.write(page)
    return target


def _context(folder: RunFolder) -> dict[str, Any]:
    """Everything the page shows, by the names that page.html uses."""
    confusions = words.confusions(folder.test)
    status = folder.of("status")
    told = story(folder.run)
    looked = _photos(folder)
    findings = Findings(
        duplicates=looked["duplicates"],
        suspects=looked["suspects"],
        shortcuts=tuple(looked["shortcuts"]),
        growth=looked["growth"],
        tuning=told,
    )
    page = {
        "css": style(),
        "title": _title(folder),
        "data_name": str(folder.of("data", "name") or ""),
        "unfinished": None if status in (None, *_DONE) else str(status),
        **_first_screen(folder),
        "confusions": confusions[:_MOST_CONFUSIONS],
        "next_steps": next_steps(folder, findings),
        "facts": sections.facts(folder),
        **_classes(folder, confusions),
        "mistakes": sections.mistakes(folder),
        "passes": PASSES,
        "scores": scores.all_scores(folder.test),
        "ranking": scores.ranking(folder),
        "probabilities": sections.probabilities(folder),
        "unknown": sets.unknown(folder),
        "sets": sets.sets(folder),
        **looked,
        "most_rows": sets.MOST_ROWS_SHOWN,
        "tuning": told,
        "phase_rows": phase_rows(folder),
        "curves": training.over_epochs(folder),
        "strengths": training.over_strengths(folder),
        "augmented": augmented(folder),
        "omitted": folder.omitted[: sections.MOST_OMITTED],
        "n_omitted": len(folder.omitted),
        "notices": [*_notices(folder), *folder.problems],
        **_record(folder),
    }
    return page | {"contents": [(anchor, title) for anchor, key, title in _CONTENTS if page[key]]}


def _classes(folder: RunFolder, confusions: list[words.Confusion]) -> dict[str, Any]:
    """The scores of each class, and which were taken for which."""
    rows = sections.class_rows(folder)
    labels, _ = words.matrix(folder.test)
    return {
        "rows_shown": rows[: sections.MOST_ROWS_SHOWN],
        "rows_folded": rows[sections.MOST_ROWS_SHOWN :],
        "knows_training": bool(folder.split.get("train")),
        "labels": labels,
        "cells": sections.matrix_cells(folder.test),
        "most_rate_classes": sections.MOST_RATE_CLASSES,
        "heat_map": sections.matrix_picture(folder.test),
        "confusions_listed": confusions[:_MOST_CONFUSIONS_LISTED],
        "n_confusions": len(confusions),
    }


def _photos(folder: RunFolder) -> dict[str, Any]:
    """What checks.json says of the photos themselves."""
    return {
        "suspects": checks.suspects(folder),
        "duplicates": checks.duplicates(folder),
        "naive": checks.naive(folder),
        "shortcuts": checks.shortcuts(folder),
        "growth": checks.growth(folder),
        "data": _to_explore(folder),
    }


def _to_explore(folder: RunFolder) -> str:
    """What `headstart explore` takes to look at the photos as this run did: with its network, labels and split."""
    # As it was asked for: the configuration that came of it names networks and folders anew.
    asked = section(folder.run, "asked") or section(folder.run, "config")
    data = asked.get("data")
    options = [(name, asked.get(name)) for name in ("backbone", "weights", "seed", "split", "exclude", "corrections")]
    given = [word for name, value in options if isinstance(value, str | int) and value for word in (f"--{name}", str(value))]
    return shlex.join([data if isinstance(data, str) and data else "DATA", *given])


def _title(folder: RunFolder) -> str:
    name = folder.of("name")
    # A run is often named after its data; then its folder tells two of them apart.
    return name if isinstance(name, str) and name not in ("", folder.of("data", "name")) else folder.path.absolute().name


def _first_screen(folder: RunFolder) -> dict[str, Any]:
    test = folder.test
    accuracy, interval = number(test.get("accuracy")), pair(test.get("accuracy_ci95"))
    decimals = words.decimals_for(interval)
    return {
        "headline": words.headline(test),
        "accuracy": accuracy,
        "accuracy_text": words.percent(accuracy, decimals),
        "interval": interval,
        "interval_text": words.between(interval),
        "baseline": number(test.get("baseline_majority")),
        "tiles": sections.tiles(test, checks.naive(folder)),
        "n_mistakes": sections.n_mistakes(folder),
    }


def _notices(folder: RunFolder) -> list[str]:
    found = folder.of("notices")
    return [str(notice) for notice in found] if isinstance(found, list) else []


def _record(folder: RunFolder) -> dict[str, Any]:
    """What the run was: configuration, versions, times and the command that repeats it."""
    command, phases = folder.of("command"), folder.of("config", "phases")
    config = sections.flat(section(folder.run, "config"))
    return {
        "command": " ".join(map(str, command)) if isinstance(command, list) else command if isinstance(command, str) else None,
        "config": [line for line in config if not line[0].startswith("phases[")],
        "config_phases": [_of_phase(config, i) for i in range(len(phases))] if isinstance(phases, list) else [],
        "versions": [(key, value) for key in ("headstart", "seed", "commit") for value in [folder.of(key)] if isinstance(value, str | int)]
        + sections.flat(section(folder.run, "versions")),
        "weights_sha256": folder.of("backbone", "weights_sha256"),
        "seconds": [(key, value) for key, text in sections.flat(section(folder.run, "seconds")) if (value := number(text)) is not None],
    }


def _of_phase(config: list[tuple[str, str]], i: int) -> list[tuple[str, str]]:
    """The lines of the flat configuration that belong to phase `i`, without its name before each."""
    start = f"phases[{i}]."
    return [(key.removeprefix(start), value) for key, value in config if key.startswith(start)]
