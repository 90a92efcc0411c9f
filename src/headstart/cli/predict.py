"""headstart predict"""

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from headstart.bundle.listing import Paths

FEW = 20  # photos, below which there is no bar to look at


def predict(
    model: Annotated[
        str, typer.Argument(help="A run folder, a bundle, or a backbone's name, which predicts its own classes.", show_default=False)
    ],
    photos: Annotated[list[str] | None, typer.Argument(help="Photos, folders of photos, or globs.", show_default=False)] = None,
    listed: Annotated[
        str | None,
        typer.Option("--list", metavar="FILE", help="A file that lists photos, one path a line; - is stdin.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="Answers a photo.", min=1)] = 5,
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
    format: Annotated[
        Literal["table", "json", "csv", "parquet"] | None,
        typer.Option(help="How the answers are written. Default: as the name of --out says, else table.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the answers; a killed job goes on with the same command. Default: stdout.")
    ] = None,
    shard: Annotated[
        int | None, typer.Option(metavar="N", help="Answers a file: --out is then a folder of such files.", min=1, show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture of the first 48 photos with their answers.", show_default=False)
    ] = None,
    provider: Annotated[
        Literal["auto", "onnxruntime", "openvino"],
        typer.Option(help="What runs the network. auto: ONNX Runtime for fewer than 64 photos, else OpenVINO where it is installed."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="What it computes in. auto: bf16 where OpenVINO runs and the processor has it.")
    ] = "auto",
) -> None:
    """Say what is in photos. A photo that cannot be read is a row with its reason; the others are answered.

    A photo unlike every class that the model knows is "none of these"; the nearest is named beside it. Where the photo may
    well be of several classes, they follow as "one of".

    Examples:

      headstart predict runs/a cat.jpg --top 3

      headstart predict runs/a new/ --out answers.parquet

      headstart predict runs/a 'new/*.jpg' --plot answers.png

      find . -name '*.jpg' | headstart predict runs/a --list - --out answers/ --format csv --shard 100000

      headstart predict mobilenetv2_100 cat.jpg --top 3
    """
    from headstart.bundle import predict as engine
    from headstart.bundle.own_classes import open_model
    from headstart.cli import pictures

    if not photos and listed is None:
        raise typer.BadParameter("name photos, or a file that lists them: --list FILE", param_hint="'PHOTOS'")
    if plot is not None:
        pictures.check_name(plot, "--plot")
    written = _format(format, out, shard)
    bundle = open_model(model, weights)
    files = _files(photos if photos is not None else [], listed, plot)
    session = engine.open_engine(bundle, *engine.settle(bundle, len(files), provider, precision))
    how: dict[str, Any] = {"top": top, "provider": session.provider, "precision": session.precision}
    if plot is not None:
        from headstart.bundle.grid import MOST_PHOTOS, grid

        first = list(engine.stream(bundle, itertools.islice(files, MOST_PHOTOS), **how))
        pictures.save(grid(first, n_photos=len(files)), plot)
    if out is not None and written != "table":
        from headstart.bundle.job import predict_to

        predict_to(bundle, files, out, format=written, shard=shard, **how)
        return
    from headstart.bundle.writers import write
    from headstart.progress import progress

    answers = engine.stream(bundle, files, **how)
    if len(files) < FEW:
        write(answers, format=written, out=out, top=top)
        return
    with progress("Predicting", len(files)) as advance:
        write(engine.counted(answers, advance), format=written, out=out, top=top)


def _format(format: str | None, out: Path | None, shard: int | None) -> str:
    """The format asked for, else the one that the name of `out` ends in, else a table."""
    from headstart.errors import ConfigError

    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    found = format if format is not None else ending if ending in ("csv", "json", "parquet") else "table"
    if shard is not None and (out is None or found == "table"):
        raise ConfigError("--shard needs a folder and a format", hint="add --out FOLDER and --format csv, json or parquet")
    return found


def _files(names: list[str], listed: str | None, plot: Path | None) -> "Paths":
    """The photos that are named, then those in the list; without the picture that an earlier start of the command drew among them."""
    from headstart.bundle.listing import Paths, find, read_list
    from headstart.errors import ConfigError, DataError, safe_text

    drawn = None if plot is None else os.path.abspath(plot)
    if any(os.path.abspath(name) == drawn for name in names):
        raise ConfigError(f"--plot would replace a photo: {safe_text(str(plot))}", hint="choose another name for the picture")
    found = (path for path in find(names) if drawn is None or os.path.abspath(path) != drawn)
    if listed is None:
        return Paths(found)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if listed == "-" else open(listed, "rb") as file:
            files = Paths(itertools.chain(found, read_list(file)))
    except OSError as error:
        raise DataError(f"cannot read the list {safe_text(listed)}: {error.strerror}", hint="check the name given as --list") from error
    if not len(files):
        raise DataError(f"no photos in the list {'on stdin' if listed == '-' else safe_text(listed)}")
    return files
