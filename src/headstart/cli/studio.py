"""headstart studio"""

from pathlib import Path
from typing import Annotated

import typer


def studio(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of class folders, or an empty one. Default: projects in the folder `headstart studio` of your home."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port on this machine; 0: any. Default: the first free one from 8700.", min=0, max=65535)
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Pretrained network, see `headstart backbones`. Default: the embedded one.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File of pretrained weights.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link, and open no browser.")] = False,
) -> None:
    """Train and use a classifier in the browser: drop photos, look, train, fix labels, try, take it along. Nothing leaves this machine.

    The link that it prints works once. Ctrl-C ends it; what was running then goes on when it is started again with the same FOLDER.

    Examples:

      headstart studio

      headstart studio photos/

      headstart studio photos/ --weights vit_tiny.safetensors --no-browser
    """
    from headstart.config import check_files
    from headstart.studio.app import bind, serve
    from headstart.studio.context import Studio
    from headstart.studio.shelf import Shelf, projects_folder

    check_files(weights=None if weights is None else str(weights))
    shelf = Shelf(projects_folder(), None) if folder is None else Shelf(None, folder)
    network = {"backbone": backbone, "weights": None if weights is None else str(weights.absolute())}
    asked = {name: value for name, value in network.items() if value is not None}

    def opened(link: str) -> None:
        print(f"headstart studio: {link}\nThe link works once. Ctrl-C ends the studio.", flush=True)
        if not no_browser:
            import webbrowser

            webbrowser.open(link)

    serve(Studio(shelf, network=asked), bind(port), opened)
