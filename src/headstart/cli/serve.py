"""headstart serve"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="Run folders, bundles, or a backbone's name. Several are served side by side; the first answers where none is named.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at. Beyond this machine: 0.0.0.0, with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let other machines in without HEADSTART_TOKEN.")] = False,
    max_mib: Annotated[int, typer.Option("--max-mib", help="Size of a request's body, MiB.", min=1, max=512)] = 32,
    max_megapixels: Annotated[int, typer.Option(help="Size of a photo, million pixels.", min=1, max=178)] = 64,
    max_photos: Annotated[int, typer.Option(help="Photos in a request.", min=1, max=10_000)] = 16,
    queue: Annotated[int, typer.Option(help="Photos accepted and not answered yet; beyond it: 429.", min=1, max=100_000)] = 64,
    wait_ms: Annotated[float, typer.Option(help="How long a batch waits for photos being decoded.", min=0, max=1000)] = 5,
    timeout: Annotated[float, typer.Option(help="Seconds for a body to arrive, and for its answer.", min=1, max=3600)] = 30,
    provider: Annotated[Literal["auto", "onnxruntime", "openvino"], typer.Option(help="What runs the network.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="What it computes in.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.")] = None,
) -> None:
    """Answer photos over HTTP, and show a page to try them at.

    Other programs POST photos to /v1/predict; people open the address; /docs describes the rest. With
    HEADSTART_TOKEN set, requests need it; beyond this machine it is required. A model whose files change
    is loaded again, without a request lost; SIGHUP does so at once. SIGTERM and Ctrl-C end the server
    when all that it accepted is answered.

    Examples:

      headstart serve runs/a

      HEADSTART_TOKEN=... headstart serve flowers=runs/a birds=runs/b --host 0.0.0.0

      curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:8000/v1/predict?top=3'
    """
    import os

    from headstart.bundle.own_classes import open_model
    from headstart.errors import safe_text
    from headstart.serve import run
    from headstart.serve.access import is_loopback
    from headstart.serve.app import Server
    from headstart.serve.models import Models, load, names_of
    from headstart.serve.settings import Settings

    token = os.environ.get("HEADSTART_TOKEN") or None
    run.check_host(host, token, no_token)
    settings = Settings(
        token=token,
        only_local=is_loopback(host) and not no_token,
        max_bytes=max_mib * 2**20,
        max_pixels=max_megapixels * 10**6,
        max_photos=max_photos,
        queue=queue,
        wait_s=wait_ms / 1000,
        timeout_s=timeout,
    )
    loaded = [load(name, open_model(model, weights), provider, precision) for name, model in names_of(models)]
    server = Server(Models(loaded, provider, precision), settings)
    listening = run.listen(host, port)
    said = ", ".join(f"{safe_text(one.name)} ({len(one.bundle.labels)} classes)" for one in loaded)
    run.run(server, listening, lambda: print(f"Serving {said} at {run.address_of(listening)}", flush=True))
