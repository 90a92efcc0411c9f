"""headstart demo"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

COMMAND = "headstart demo"


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the run; the last demo in it is replaced.")] = Path("runs/demo"),
) -> None:
    """Run the whole job offline on a data set that is already here: scikit-learn's 1,797 handwritten digits.

    Uses the backbone inside the package. Takes about a minute on two cores.
    """
    from headstart import config as configs
    from headstart import runs
    from headstart.cli.show import show_run
    from headstart.errors import DataError
    from headstart.progress import waiting

    config = configs.load("quick", data="digits", backbone="embedded")
    with contextlib.suppress(DataError):  # no earlier run there
        if runs.read_record(out).get("command") == COMMAND:
            shutil.rmtree(out)  # a demo's own folder, and nothing else, is replaced
    runs.check(out, config)
    print("headstart demo: 1,797 photos of handwritten digits, ten classes, no download", file=sys.stderr)
    with waiting("Loading PyTorch"):
        from headstart import pipeline
    show_run(pipeline.fit(config, out, command=COMMAND))
