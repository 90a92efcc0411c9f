"""How pages are made of templates: the same settings and words for every page."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from headstart.report import words

_HERE = Path(__file__).parent


def environment(folder: Path = _HERE) -> jinja2.Environment:
    """Templates of `folder`, and those of the report that pages share. All text is escaped; a name that is missing is an error."""
    loader = jinja2.FileSystemLoader([folder, _HERE])
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {each: getattr(words, each) for each in ("name", "path", "visible", "command", "percent", "between")}
    return made


def style(*sheets: Path) -> Markup:
    """The rules of page.css, then those of `sheets`."""
    return Markup("\n".join(sheet.read_text(encoding="utf-8") for sheet in (_HERE / "page.css", *sheets)))
