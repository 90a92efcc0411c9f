"""headstart evaluate"""

import json
import os
import sys
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
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Test a trained model on labelled photos: accuracy, precision, recall, F1, each with its 95 % interval.

    Examples:

      headstart evaluate runs/a

      headstart evaluate runs/a new-photos/ --json
    """
    from headstart import assess
    from headstart.bundle.own_classes import open_model
    from headstart.cli.show import show_metrics
    from headstart.errors import ConfigError

    folder = Path(model)
    if folder.name == "model" and os.path.lexists(folder.parent / "run.json"):  # the bundle inside a run is that run
        folder = folder.parent
    is_run = os.path.lexists(folder / "run.json")
    if data is None and not is_run:
        raise ConfigError(f"'{model}' is no run with test photos of its own", hint="name labelled photos: headstart evaluate MODEL DATA")
    run = folder if is_run else None
    found = assess.assess_again(folder) if data is None else assess.assess(open_model(model, weights), data, run=run)
    for notice in found.notices:
        print(f"note: {notice}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.metrics, indent=2, ensure_ascii=False))
    else:
        show_metrics(found.metrics, found.about)
