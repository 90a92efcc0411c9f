"""headstart train"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  headstart train photos/ --out runs/a

  headstart train photos/ --out runs/b --backbone resnet50 --budget 10m

  headstart train photos/ --out runs/c --recipe classic --backbone resnet50 --log tensorboard

  headstart train labels.csv --out runs/d --recipe my.toml --set seed=1 --set phases.0.rate=1e-4

  headstart train photos/ --out runs/e --weights resnet50.safetensors --stop layer3

Recipes: photos (the default), quick (no fine-tuning), best (half an hour), and tutorials made to work: classic,
two-phase-inception, cifar10-resnet50. A file of your own holds the same keys as --set, as TOML (docs/reference/config.md lists them).
Interrupted? The same command continues.
"""


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of class folders, train/val/test folders of them, a .csv with path,label, a .zip or .tar of these, "
            "or a data set's name (digits, cifar10).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the run: absent or empty, or an unfinished run to continue.", show_default=False)
    ],
    backbone: Annotated[str | None, typer.Option(help="Pretrained network, see `headstart backbones`. Default: the embedded one.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of pretrained weights: safetensors, a torch state dict, or the .h5 of Keras.")
    ] = None,
    stop: Annotated[str | None, typer.Option(help="Last stage of the network to use.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name, or a TOML file. Default: photos.", metavar="NAME|FILE", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="One key of the configuration, as key=value; repeatable.", metavar="KEY=VALUE")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Most expected time of planned fine-tuning, such as 90s, 10m or 2h. Default: 5m.", metavar="TIME")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds the split and everything random. Default: 0.")] = None,
    split: Annotated[Path | None, typer.Option(help="A split.csv to reuse.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="A file that lists photos to leave out.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A CSV with path,label: labels in place of the given ones.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    log: Annotated[str, typer.Option(help="Where epochs are logged, beside history.csv: none, tensorboard or mlflow.")] = "none",
) -> None:
    """Train a classifier on labelled photos and test it on photos it never saw.

    Scans and checks the photos, splits them, runs the frozen network once over each and solves a head; fine-tunes the top
    stages where that is likely to pay; writes to --out: report.html, metrics.json, predictions.csv and the model.
    """
    from headstart import config as configs
    from headstart import runs
    from headstart.data import sources
    from headstart.train import logs

    config = configs.load(
        recipe,
        [] if overrides is None else overrides,
        data=data,
        backbone=backbone,
        weights=weights,
        stop=stop,
        budget=budget,
        seed=seed,
        split=split,
        exclude=exclude,
        corrections=corrections,
        device=device,
        precision=precision,
    )
    # Before PyTorch's seconds of import: a misspelled name should not wait.
    sources.check(data)
    configs.check_files(weights=config.weights, split=config.split, exclude=config.exclude, corrections=config.corrections)
    logs.check(log)
    runs.check(out, config)

    from headstart.cli.show import show_run
    from headstart.progress import waiting

    with waiting("Loading PyTorch"):
        from headstart import pipeline

    run = pipeline.fit(config, out, command=shlex.join(["headstart", *sys.argv[1:]]), log=log)
    if os.environ.get("RANK", "0") == "0":  # of the processes that `accelerate launch` started, the first one speaks
        show_run(run)


train.__doc__ = f"{train.__doc__}\n{EXAMPLES}"
