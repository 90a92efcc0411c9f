"""headstart explore"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def explore(
    data: Annotated[str, typer.Argument(help="Labelled photos, in any form that `headstart train` takes.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report and its lists. Default: the first free of explored/NAME, ...")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Pretrained network whose features are used, see `headstart backbones`. Default: the embedded one.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of pretrained weights.")] = None,
    seed: Annotated[int, typer.Option(help="Seeds the split, the folds and which photos are shown.", min=0)] = 0,
    split: Annotated[Path | None, typer.Option(help="A split.csv to reuse.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="A file that lists photos to leave out.")] = None,
    corrections: Annotated[Path | None, typer.Option(help="A CSV with path,label: labels in place of the given ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print explore.json instead of a summary.")] = False,
) -> None:
    """Look at photos and check them before training: what is there, duplicates, suspect labels, shortcuts, what more photos would bring.

    Writes report.html, explore.json and lists (duplicates.csv, suspects.csv, corrections.csv, omitted.csv) to --out. Photos are
    never touched. Suspects are guesses: delete the lines of photos whose label is right before you hand the list on, and in
    suspects.csv those of test photos (column split): a model's word on what is tested would make the score.

    Examples:

      headstart explore photos/

      headstart explore photos/ --out explored/photos --backbone resnet50

      headstart train photos/ --out runs/a --exclude explored/photos/suspects.csv

      headstart train photos/ --out runs/a --corrections explored/photos/corrections.csv
    """
    from headstart import config, runs
    from headstart.data import sources
    from headstart.explore.exploration import check_folder

    # Before PyTorch's seconds of import: a misspelled name should not wait.
    sources.check(data)
    config.check_files(weights=weights, split=split, exclude=exclude, corrections=corrections)
    name = Path(data).name.split(".")[0]
    folder = runs.next_folder(name if name else "photos", Path("explored")) if out is None else out
    check_folder(folder)

    from headstart.progress import waiting

    with waiting("Loading PyTorch"):
        from headstart.explore import explore as exploring

    found = exploring.explore(
        data, out=folder, backbone=backbone, weights=weights, seed=seed, split=split, exclude=exclude, corrections=corrections
    )
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        given = (
            ("--backbone", backbone),
            ("--weights", weights),
            ("--stop", found.stop),
            ("--seed", seed or None),
            ("--split", split),
            ("--exclude", exclude),
            ("--corrections", corrections),
        )
        options = [word for option, value in given if value is not None for word in (option, str(value))]
        after = shlex.join(["headstart", "train", data, "--out", "runs/a", *options])
        _show(found.to_json(), found.folder, after)


def _show(facts: Mapping[str, Any], folder: Path, after: str) -> None:
    """Counts, pixels, then what was found in sentences, those to act on marked, and where the rest is."""
    from headstart.cli.show import MOST_CLASSES
    from headstart.cli.tables import print_table
    from headstart.errors import safe_text
    from headstart.explore.words import count, findings

    counts = facts["data"]
    splits = ", ".join(f"{n:,} {split}" for split, n in counts["splits"].items())
    print(f"\n{count(counts['n'], 'photo')} of {count(len(counts['classes']), 'class', 'classes')}: {splits}\n")
    rows = list(counts["classes"].items())
    columns = ("photos", *counts["splits"])
    print_table(
        ("class", *columns),
        [(name, *(f"{row[key]:,}" for key in ("all", *counts["splits"]))) for name, row in rows[:MOST_CLASSES]],
        right=columns,
    )
    if len(rows) > MOST_CLASSES:
        print(f"... and {len(rows) - MOST_CLASSES} more classes")
    print()
    print_table(("files", ""), _about_files(counts))
    print()
    _show_pixels(facts["looks"])
    print()
    for finding in findings(facts):
        print(f"{'!' if finding.warning else ' '} {finding.text}")
    for notice in facts["notices"]:
        print(f"  note: {safe_text(notice)}")
    print(f"\nReport  {folder / 'report.html'}\nLists   {folder / '*.csv'}\nNext    {after}")


def _about_files(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sizes, formats, modes: one row each."""
    from headstart.files import human_bytes

    def frequent(found: Mapping[str, int]) -> str:
        return ", ".join(f"{name if name else 'unknown'} {n:,}" for name, n in found.items())

    def spread(found: Mapping[str, float], digits: int = 0) -> str:
        least, median, most = (f"{found[key]:.{digits}f}" for key in ("least", "median", "most"))
        return most if least == most else f"{least} to {most}, median {median}"

    return [
        ("width, px", spread(counts["width"])),
        ("height, px", spread(counts["height"])),
        ("width / height", spread(counts["aspect"], 2)),
        ("formats", frequent(counts["formats"])),
        ("modes", frequent(counts["modes"])),
        ("bytes", human_bytes(counts["bytes"])),
    ]


def _show_pixels(looks: Mapping[str, Any]) -> None:
    """Mean and standard deviation of each channel and of all, as they are and on the scale 0 to 1."""
    from headstart.cli.tables import print_table

    numbers = ("mean", "std", "mean, 0 to 1", "std, 0 to 1")
    columns = [[*looks[key], looks[f"{key}_all"]] for key in ("mean", "std")]
    names = [*looks["channels"], "all"]
    rows = [
        (name, f"{mean:.2f}", f"{std:.2f}", f"{mean / 255:.4f}", f"{std / 255:.4f}")
        for name, mean, std in zip(names, *columns, strict=True)
    ]
    print_table(("channel", *numbers), rows, right=numbers)
