"""headstart demo"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the run; the last demo in it is replaced.")] = Path("runs/demo"),
) -> None:
    """Run the whole job offline on a data set that is already here: scikit-learn's 1,797 handwritten digits.

    Uses the backbone inside the package. Takes under a minute on two cores.
    """
    from headstart import config as configs
    from headstart import pipeline, runs
    from headstart.cli.show import show_run
    from headstart.errors import DataError

    config = configs.load(None, data="digits", backbone="embedded")
    try:
        if runs.read_record(out)["status"] == runs.FINISHED and runs.read_record(out)["config"]["data"] == "digits":
            shutil.rmtree(out)  # a demo's own folder, and nothing else, is replaced
    except DataError:
        pass  # no earlier run there
    print("headstart demo: 1,797 photos of handwritten digits, ten classes, no download", file=sys.stderr)
    show_run(pipeline.fit(config, out, command="headstart demo"))
