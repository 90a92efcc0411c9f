"""headstart backbones"""

from typing import Annotated

import typer


def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name, or a pattern with * and ?; default: a short list of good choices.", show_default=False),
    ] = None,
) -> None:
    """List pretrained networks: size, input, stages to cut or stop at, licence, and whether their weights are at hand.

    Examples:

      headstart backbones

      headstart backbones 'convnext*'
    """
    from headstart.backbone import IMAGENET_BRINGS, listing
    from headstart.backbone.catalog import EMBEDDED
    from headstart.cli.tables import print_table

    rows = [
        (row.name, f"{row.n_params / 1e6:.1f} M", f"{row.input_px} px", _shortened(row.stages), row.licence, row.weights_at_hand)
        for row in listing.rows(pattern)
    ]
    print_table(("name", "parameters", "input", "stages", "licence", "weights at hand"), rows)
    if any(name == EMBEDDED for name, *_ in rows):
        typer.echo(f"\n{EMBEDDED} is used where no backbone is named. {IMAGENET_BRINGS}", err=True)


def _shortened(stages: tuple[str, ...], most: int = 6) -> str:
    if len(stages) <= most:
        return " ".join(stages)
    return f"{' '.join(stages[:2])} ... {' '.join(stages[-3:])} ({len(stages)})"
