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
    from headstart.errors import ConfigError, safe_text
    from headstart.files import atomic_file
    from headstart.progress import progress

    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    kind = kinds.get(out.suffix.lower())
    if kind is None:
        raise ConfigError(f"expected a picture's name for --out ({', '.join(kinds)}), found '{safe_text(str(out))}'")
    bundle = open_model(model, weights)
    with progress("Hiding parts", explaining.PASSES, "pictures") as advance:
        found = explaining.heat_map(bundle, image, class_, advance=advance)
    with atomic_file(out, "wb") as file:
        explaining.sheet(image, found).save(file, kind)
    answer = f"{safe_text(found.label)} {found.probability:.2f}"
    print(f"{answer}, {found.probability_hidden:.2f} with the whole photo hidden; the picture is {safe_text(str(out))}")
