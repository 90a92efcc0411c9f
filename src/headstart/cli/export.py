"""headstart export"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[
        str, typer.Argument(help="A run folder, a bundle, or a backbone's name, which predicts its own classes.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the export, new or empty.", show_default=False)],
    format: Annotated[Literal["onnx", "openvino", "torch"], typer.Option(help="The form to write.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits, calibrated on training photos.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Labelled photos to calibrate and test on. Default: the run's own.", show_default=False)
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With a backbone's name: its file of weights.", show_default=False)] = None,
    max_drop: Annotated[
        float, typer.Option(help="int8 is refused where the 95 % interval of lost accuracy lies above so many points.", min=0, max=100)
    ] = 0.5,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="What readers may compute in. auto: bf16 too, where it passes; bf16: refused unless it does."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Write a trained model as ONNX, OpenVINO IR or a torch program, and a certificate that it still answers the same.

    The test photos go through both, from their files. What does not answer as the original does is not kept (exit status 1).
    Beside it lies an example that needs no headstart, example.py; beside ONNX also example.mjs and example.html.

    Examples:

      headstart export runs/a --format onnx --out flowers-onnx

      headstart export runs/a --format openvino --int8 --out flowers-int8

      headstart export mobilenetv2_100 --data photos.csv --int8 --out mobilenet-int8
    """
    from headstart.config import check_files
    from headstart.errors import safe_text
    from headstart.exporting.export import export as run

    check_files(weights=weights)
    done = run(model, out=out, format=format, int8=int8, data=data, weights=weights, max_drop=max_drop, precision=precision)
    found = done.certificate
    for notice in found.notices:
        print(f"note: {notice}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    print("\n".join([*found.lines(), "", found.verdict(), ""]))
    print(f"Export       {safe_text(str(done.folder))}")
    print(f"Certificate  {safe_text(str(done.folder / 'CERTIFICATE.md'))}")
    if format != "torch":
        print(f"Next         headstart predict {safe_text(str(done.folder))} PHOTO --top 3")
