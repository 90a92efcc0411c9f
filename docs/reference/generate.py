"""Write the reference pages that are made from the code: config.md and cli.md. `make docs` runs it; a test compares.

The pages say what the code says: field help texts and `--help`, at a fixed width and without colour.
"""

import dataclasses
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

from headstart.backbone import EMBEDDED_FILE
from headstart.config import Config, Head, Phase, recipe_file, recipe_names
from headstart.data.policy import OPERATIONS, Argument

HERE = Path(__file__).parent
COMMANDS = (
    "",
    "demo",
    "explore",
    "train",
    "probe",
    "evaluate",
    "compare",
    "explain",
    "export",
    "predict",
    "serve",
    "studio",
    "backbones",
    "store",
)


def config_page() -> str:
    """Every key of a recipe file and of `--set`, with type, default, range and meaning."""
    lines = [
        "# Configuration",
        "",
        "Keys of a recipe (TOML) and of `--set key=value`. Made from `src/headstart/config.py` by `make docs`.",
        "The resolved configuration of a run is in its `run.json` and at the end of its report.",
    ]
    for kind, title, prefix in ((Config, "The run", ""), (Head, "`[head]`", "head."), (Phase, "`[[phases]]`", "phases.N.")):
        lines += ["", f"## {title}", "", (kind.__doc__ or "").strip(), "", "| key | type | default | meaning |", "|---|---|---|---|"]
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in ("head", "phases"):
                continue
            lines.append(
                f"| `{prefix}{field.name}` | {_type(hints[field.name])} | {_default(field.default)} "
                f"| {field.metadata['help']}{_range(field.metadata)} |"
            )
    return "\n".join([*lines, *_operations(), *_recipes()]) + "\n"


def _operations() -> list[str]:
    """What `phases.N.augment` is made of."""
    rows = [f"| `{name}` | {'; '.join(map(_argument, one.arguments))} | {one.help} |" for name, one in OPERATIONS.items()]
    said = (
        "A comma-separated list of these, each with as many of its numbers as you like to give: `flip, rotate 10, zoom`. They apply in the "
        "order of this table, whatever the order of the text. [Augmentation](../concepts/augmentation.md)"
    )
    return ["", "## `augment`", "", said, "", "| operation | numbers | what it does |", "|---|---|---|", *rows]


def _argument(number: Argument) -> str:
    return f"{number.meaning}, `{number.default:g}` ({number.least:g} to {number.most:g})"


def _recipes() -> list[str]:
    """What `--recipe` knows by name; the first sentence of each header."""
    rows = []
    for name in recipe_names():
        header = recipe_file(name).read_text(encoding="utf-8").split("\n# command:")[0]
        about = header.replace("\n# ", " ").removeprefix(f"# {name}: ")
        rows.append(f"| `{name}` | {about.split('. ')[0].rstrip('.')} |")
    said = "`--recipe NAME` takes one of these, or a file of your own. [What each does](../guides/recipes.md)"
    return ["", "## Recipes", "", said, "", "| name | what it is |", "|---|---|", *rows]


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {typing.get_args(hint)[0].__name__}"
    if typing.get_origin(hint) is dict:
        return f"table of {typing.get_args(hint)[1].__name__}"
    return " or ".join(_type(kind) for kind in typing.get_args(hint) if kind is not type(None)) or hint.__name__


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    return f"`{list(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else value}`"


def _range(metadata: typing.Mapping[str, Any]) -> str:
    least, most = metadata["least"], metadata["most"]
    if least is None:
        return ""
    return f" (at least {least})" if most is None else f" ({least} to {most})"


def cli_page() -> str:
    """`--help` of every command."""
    parts = [
        "# Commands\n\nResults go to stdout, progress and logs to stderr.\n"
        "Exit status: 0 done, 1 a clear error, 2 wrong usage, 130 interrupted."
    ]
    parts.append("Made from `--help` by `make docs`.")
    environment = {**os.environ, "COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "TERMINAL_WIDTH": "110"}
    for command in COMMANDS:
        words = [str(Path(sys.executable).with_name("headstart")), *command.split(), "--help"]
        text = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, encoding="utf-8").stdout
        clean = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"## headstart {command}".rstrip() + f"\n\n```text\n{clean}\n```")
    return "\n\n".join(parts) + "\n"


def embedded_page() -> str:
    """The model card that travels in the package."""
    return EMBEDDED_FILE.with_name("MODEL_CARD.md").read_text(encoding="utf-8")


PAGES = {"config.md": config_page, "cli.md": cli_page, "embedded.md": embedded_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(HERE / name)
