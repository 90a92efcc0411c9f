"""headstart predict"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def predict(
    model: Annotated[
        str, typer.Argument(help="A run folder, a bundle, or a backbone's name, which predicts its own classes.", show_default=False)
    ],
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or globs.", show_default=False)],
    top: Annotated[int, typer.Option(help="Answers a photo.", min=1)] = 5,
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
    format: Annotated[Literal["table", "json", "csv", "parquet"], typer.Option(help="How the answers are written.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File for the answers. Default: stdout.")] = None,
) -> None:
    """Say what is in photos. A photo that cannot be read is a row with its reason; the others are answered.

    A photo unlike every class that the model knows is "none of these"; the nearest is named beside it. Where the photo may
    well be of several classes, they follow as "one of".

    Examples:

      headstart predict runs/a cat.jpg --top 3

      headstart predict runs/a 'new/*.jpg' --format csv --out answers.csv

      headstart predict mobilenetv2_100 cat.jpg --top 3
    """
    from headstart.bundle import predict as engine
    from headstart.bundle.own_classes import open_model
    from headstart.bundle.writers import write
    from headstart.progress import progress

    bundle = open_model(model, weights)
    files = engine.expand(photos)
    answers = engine.stream(bundle, files, top=top)
    if len(files) < 20:
        write(answers, format=format, out=out, top=top)
        return
    with progress("Predicting", len(files)) as advance:
        write(engine.counted(answers, advance), format=format, out=out, top=top)
