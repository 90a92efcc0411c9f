"""headstart evaluate"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, a bundle, or a backbone's name.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Argument(
            help="Labelled photos; of data with splits, its test photos. Default: the run's own test photos.", show_default=False
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate a run: every photo is held out once, in so many parts.", min=2, max=100, show_default=False),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's file of weights: with a backbone's name, or with --folds where it moved.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Test a trained model on labelled photos: accuracy, precision, recall, F1, areas under curves, each with its 95 % interval.

    Examples:

      headstart evaluate runs/a

      headstart evaluate runs/a new-photos/ --json

      headstart evaluate runs/a --folds 5
    """
    from headstart.errors import ConfigError

    folder = Path(model)
    if folder.name == "model" and os.path.lexists(folder.parent / "run.json"):  # the bundle inside a run is that run
        folder = folder.parent
    is_run = os.path.lexists(folder / "run.json")
    if folds is not None:
        if data is not None or not is_run:
            hint = "headstart evaluate RUN --folds 5, or headstart evaluate MODEL DATA"
            raise ConfigError("--folds holds out a run's own photos in turn: it needs a run folder and takes no other data", hint=hint)
        _cross_validate(folder, folds, weights, as_json)
        return
    if data is None and not is_run:
        raise ConfigError(f"'{model}' is no run with test photos of its own", hint="name labelled photos: headstart evaluate MODEL DATA")
    from headstart import assess
    from headstart.bundle.own_classes import open_model
    from headstart.cli.show import show_metrics

    run = folder if is_run else None
    found = assess.assess_again(folder) if data is None else assess.assess(open_model(model, weights), data, run=run)
    _tell(found.notices)
    if as_json:
        print(json.dumps(found.metrics, indent=2, ensure_ascii=False))
    else:
        show_metrics(found.metrics, found.about)


def _cross_validate(folder: Path, folds: int, weights: Path | None, as_json: bool) -> None:
    from headstart.config import check_files
    from headstart.progress import waiting
    from headstart.runs import Run

    Run(folder)  # before PyTorch's seconds of import
    check_files(weights=weights)
    with waiting("Loading PyTorch"):
        from headstart.crossval import cross_validate
    found = cross_validate(folder, folds=folds, weights=weights)
    _tell(found.notices)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    from headstart.cli.show import show_metrics

    each = " ".join(f"{fold.accuracy:.3f}" for fold in found.folds)
    show_metrics(found.metrics, f"{found.metrics['n']} photos, each held out once", "Cross-validated accuracy")
    print(f"Fold by fold: {each}; {found.seconds:.1f} s")
    print("This judges the procedure on photos like these, former test photos included; the model in the run has its own test score.")


def _tell(notices: Iterable[str]) -> None:
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)
