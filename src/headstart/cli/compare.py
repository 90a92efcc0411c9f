"""headstart compare"""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headstart.comparing import ComparedRun, RunComparison
    from headstart.evaluate.comparison import Compared, Difference


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more run folders; the others are compared with the first.", metavar="RUN...")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Compare finished runs on the test photos they have in common: better, worse or cannot tell, and how many photos would tell.

    Photos are found by their content. What one run tested on and another trained on is left out.

    Examples:

      headstart compare runs/a runs/b

      headstart compare runs/a runs/b runs/c --json
    """
    from headstart import comparing

    found = comparing.compare(runs)
    for notice in found.notices:
        print(f"note: {notice}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)


def _show(found: "RunComparison") -> None:
    """The runs side by side, how each differs from the first, and what that says."""
    from headstart.cli.tables import print_table

    print(f"\n{found.n} test photos\n")
    numbers = ("accuracy", "95 % interval", "mean F1", "log loss")
    print_table(("run", "backbone", *numbers), [_row(one) for one in found.runs], right=numbers)
    for one, pair in zip(found.runs[1:], found.against_first, strict=True):
        print(f"\n{one.run} against {found.runs[0].run}")
        _show_pair(pair)
    print("\n" + "\n".join(found.words))


def _row(one: "ComparedRun") -> tuple[str, ...]:
    low, high = one.accuracy_ci95
    return one.run, one.backbone, f"{one.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{one.f1_macro:.3f}", f"{one.log_loss:.3f}"


def _show_pair(pair: "Compared") -> None:
    from headstart.cli.tables import print_table

    alone = f"right alone: {pair.only_second}, the first alone: {pair.only_first}, p = {pair.p:.2g}"
    rows = [_difference("accuracy", pair.accuracy, alone), _difference("mean F1", pair.f1_macro), _difference("log loss", pair.log_loss)]
    rows += [
        _difference(change.label, change.difference, f"recognised {change.first:.3f}, now {change.second:.3f} of {change.n} photos")
        for change in pair.per_class
    ]
    print_table(("", "difference", "95 % interval", ""), rows, right=("difference", "95 % interval"))


def _difference(name: str, of: "Difference", about: str = "") -> tuple[str, ...]:
    low, high = of.ci95
    return f"  {name}", f"{of.value:+.3f}", f"{low:+.3f} to {high:+.3f}", about
