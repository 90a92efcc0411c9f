"""headstart probe"""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headstart.probing import Comparison, Probed


def probe(
    data: Annotated[str, typer.Argument(help="Labelled photos, in any form that `headstart train` takes.", show_default=False)],
    more: Annotated[list[str] | None, typer.Argument(help="More backbones, as after --backbone.", metavar="NAME")] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Pretrained network, see `headstart backbones`; repeatable.", metavar="NAME")
    ] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="File of weights that names its network; repeatable.", metavar="FILE")] = None,
    seed: Annotated[int, typer.Option(help="Seeds the split and the folds.", min=0)] = 0,
    split: Annotated[Path | None, typer.Option(help="A split.csv to reuse.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="A file that lists photos to leave out.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A CSV with path,label: labels in place of the given ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Compare backbones on your photos: one pass of each, a head on each, accuracy with its interval, cost, and which is worth it.

    Test photos stay unseen: accuracy is out of fold, on the others. What was computed is kept for `headstart train`.

    Examples:

      headstart probe photos/ --backbone embedded resnet50 vit_small_patch16_224

      headstart probe photos/ --weights resnet50.safetensors --weights vit_tiny.safetensors --json
    """
    from headstart import config
    from headstart.data import sources

    sources.check(data)
    config.check_files(weights=weights, split=split, exclude=exclude, corrections=corrections)

    from headstart.progress import waiting

    with waiting("Loading PyTorch"):
        from headstart import probing

    names = [*([] if backbone is None else backbone), *([] if more is None else more)]
    given = [] if weights is None else weights
    found = probing.probe(data, names, weights=given, seed=seed, split=split, exclude=exclude, corrections=corrections)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _show(found, data)


def _show(found: "Comparison", data: str) -> None:
    """The table, what could not be tried, the advice, and the next command."""
    from headstart.cli.tables import print_table
    from headstart.errors import safe_text

    print(f"\n{found.n_photos} photos of {found.n_classes} classes; test photos stay unseen\n")
    numbers = ("accuracy", "95 % interval", "seconds", "photos/s", "GFLOP", "MB", "features")
    print_table(("backbone", *numbers, ""), [_row(one, found) for one in found.probed], right=numbers)
    for absent in found.absent:
        print(f"\nnot tried: {safe_text(absent.backbone)}: {absent.reason}" + ("" if absent.hint is None else f"\nhint: {absent.hint}"))
    print("\n" + "\n".join(found.advice))
    print(f"\nNext    {_command(['headstart', 'train', data, '--out', 'runs/a', *found.worth_it.options])}")


def _row(one: "Probed", found: "Comparison") -> tuple[str, ...]:
    low, high = one.accuracy_ci95
    rate = "stored" if one.photos_per_s is None else f"{one.photos_per_s:.0f}"
    said = ["best"] if one is found.best else ["as good, within noise" if one.within_noise else "less accurate"]
    said += ["worth it"] if one is found.worth_it else []
    size = (f"{one.gflop:.1f}" if one.gflop >= 0.1 else f"{one.gflop:.3f}", f"{one.megabytes:.1f}", str(one.features))
    return (one.backbone, f"{one.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{one.seconds:.1f}", rate, *size, ", ".join(said))


def _command(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))
