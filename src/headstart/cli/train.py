"""headstart train"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  headstart train photos/ --out runs/a

  headstart train photos/ --out runs/b --backbone resnet50

  headstart train labels.csv --out runs/c --set head.kind=dense --seed 1

  headstart train photos/ --out runs/d --weights resnet50.safetensors --stop layer3

A recipe file holds the same keys as --set, as TOML: seed, px, head.kind, phases and so on (docs/reference/config.md lists them).
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
    weights: Annotated[Path | None, typer.Option(help="File of pretrained weights: safetensors, or a torch state dict.")] = None,
    stop: Annotated[str | None, typer.Option(help="Last stage of the network to use.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with the run's configuration.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="One key of the configuration, as key=value; repeatable.", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds the split and everything random. Default: 0.")] = None,
    split: Annotated[Path | None, typer.Option(help="A split.csv to reuse.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="A file that lists photos to leave out.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
) -> None:
    """Train a classifier on labelled photos and test it on photos it never saw.

    Scans and checks the photos, splits them, runs the frozen network once over each, solves a head,
    and writes to --out: report.html, metrics.json, predictions.csv and the model.
    """
    from headstart import config as configs
    from headstart import runs

    config = configs.load(
        recipe,
        [] if overrides is None else overrides,
        data=data,
        backbone=backbone,
        weights=weights,
        stop=stop,
        seed=seed,
        split=split,
        exclude=exclude,
        device=device,
        precision=precision,
    )
    configs.check_files(config)
    runs.check(out, config)  # before PyTorch's seconds of import: a misspelled key should not wait

    from headstart.cli.show import show_run
    from headstart.progress import waiting

    with waiting("Loading PyTorch"):
        from headstart import pipeline

    run = pipeline.fit(config, out, command=shlex.join(["headstart", *sys.argv[1:]]))
    show_run(run)


train.__doc__ = f"{train.__doc__}\n{EXAMPLES}"
