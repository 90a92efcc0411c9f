"""headstart evaluate"""

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, a bundle, or a backbone's name.", show_default=False)],
    data: Annotated[
        str | None, typer.Argument(help="Labelled photos. Default: the run's own test photos, read again.", show_default=False)
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Test a trained model on labelled photos: accuracy, precision, recall, F1, each with its 95 % interval.

    Examples:

      headstart evaluate runs/a

      headstart evaluate runs/a new-photos/ --json
    """
    from headstart import pipeline
    from headstart.bundle.own_classes import open_model
    from headstart.cli.show import show_metrics

    metrics = pipeline.evaluate_again(Path(model)) if data is None else pipeline.evaluate(open_model(model, weights), data)
    if as_json:
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
    else:
        show_metrics(metrics)
