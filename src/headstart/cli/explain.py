"""headstart explain"""

from pathlib import Path
from typing import Annotated

import typer


def explain(
    model: Annotated[
        str, typer.Argument(help="A run folder, a bundle, or a backbone's name, which predicts its own classes.", show_default=False)
    ],
    image: Annotated[Path, typer.Argument(help="A photo.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File for the picture: .png, .jpg or .webp.", show_default=False)],
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="The class to look for. Default: the model's answer.", show_default=False)
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
) -> None:
    """Show where in a photo the answer came from: the photo, and beside it the places without which the model would be less sure.

    Examples:

      headstart explain runs/a cat.jpg --out why.png

      headstart explain runs/a cat.jpg --class dog --out dog.png
    """
    from headstart.bundle import explain as explaining
    from headstart.bundle.own_classes import open_model
    from headstart.cli import pictures
    from headstart.errors import safe_text
    from headstart.progress import progress

    pictures.check_name(out, "--out")
    bundle = open_model(model, weights)
    with progress("Hiding parts", explaining.PASSES, "pictures") as advance:
        found = explaining.heat_map(bundle, image, class_, advance=advance)
    pictures.save(explaining.sheet(image, found), out)
    answer = f"{safe_text(found.label)} {found.probability:.2f}"
    print(f"{answer}, {found.probability_hidden:.2f} with the whole photo hidden; the picture is {safe_text(str(out))}")
