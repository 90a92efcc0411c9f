"""Imports go one way, and what predicts never pulls in what trains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headstart"
ORDER = [
    "errors",
    "files",
    "progress",
    "values",
    "seeds",
    "data",
    "config",
    "backbone",
    "features",
    "evaluate",
    "train",
    "bundle",
    "serve",
    "report",
    "explore",
    "runs",
    "assess",
    "facts",
    "exporting",
    "pipeline",
    "probing",
    "comparing",
    "crossval",
    "studio",
    "cli",
]


def _imports(path: Path) -> set[str]:
    """Rooms of headstart that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "headstart" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("headstart.")}
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_file_imports_only_rooms_below_its_own(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    allowed = set(ORDER[: ORDER.index(room) + 1])
    if room == "runs":  # a Run opens its bundle; only for types and when asked
        allowed |= {"bundle"}
    assert _imports(path) <= allowed


def test_every_room_is_in_the_order() -> None:
    assert {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} == set(ORDER)


@pytest.mark.parametrize(
    "module",
    [
        "headstart",
        "headstart.cli.main",
        "headstart.bundle.predict",
        "headstart.features.runtime",
        "headstart.bundle.own_classes",
        "headstart.bundle.explain",
        "headstart.serve.run",
        "headstart.comparing",
        "headstart.assess",
        "headstart.exporting.export",
    ],
)
def test_predicting_imports_nothing_heavy(module: str) -> None:
    heavy = ["torch", "timm", "sklearn", "matplotlib", "openvino", "accelerate", "pyarrow", "jinja2", "scipy"]
    code = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_line_starts_without_what_one_photo_does_not_need() -> None:
    code = "import sys, headstart.cli.main; print(*[n for n in ('numpy', 'PIL', 'onnxruntime', 'headstart.runs') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
