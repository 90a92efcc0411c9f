"""Documents say what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

import headstart
from headstart import errors

ROOT = Path(__file__).parents[1]
PAGES = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if path.name != "LOG.md"]


def _generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "reference" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["config.md", "cli.md", "embedded.md"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    page = _generator().PAGES[name]()
    assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == page, "run `make docs`"


def test_the_public_names_are_pinned() -> None:
    assert headstart.__all__ == sorted(headstart.__all__)
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = headstart.nonsense


def test_every_error_is_drawn_in_the_tree() -> None:
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.HeadstartError)]
    assert all(name in errors.__doc__ for name in kinds)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_tree_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = [path for path in (ROOT / "src" / "headstart").iterdir() if not path.name.startswith("_") and path.name != "py.typed"]
    rooms = sorted(f"{path.name}/" if path.is_dir() else path.name for path in paths)
    # A line of the tree: indented, the room's name (small files share a line), then its meaning.
    assert [room for room in rooms if not re.search(rf"(?m)^ +(?:\w+\.py  )*{re.escape(room)}(?:\s|$)", readme)] == []
