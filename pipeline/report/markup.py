"""HTML pages from the jinja2 templates of this package.

Guarantees:

* Every text is escaped, whatever it holds; only `prose` and `picture` return markup.
* The page is one file: its content security policy allows no script and no request.
* A status has a sign as well as a colour; colours follow the light or dark mode of the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.report import figure, wording
from pipeline.report.svg_card import SVG

_TEMPLATES: Final = Path(__file__).parent / "templates"
_COMMAND: Final = re.compile(r"`([^`]+)`")
# Colours of the figures as variables of the page, so that they follow its dark mode.
_COLOURS: Final = {
    figure.INK.lower(): "var(--ink)",
    figure.GREY.lower(): "var(--soft)",
    figure.LIGHT.lower(): "var(--line)",
    figure.BLUE.lower(): "var(--blue)",
    figure.ORANGE.lower(): "var(--orange)",
    "#ffffff": "var(--paper)",
}
_STYLE: Final = re.compile(r'(?:style|fill|stroke)="[^"]*"')
_COLOUR: Final = re.compile("|".join(_COLOURS))


class Cell(NamedTuple):
    """A table cell with its own CSS classes, of several columns, or with a link."""

    text: str
    css: str = ""
    span: int = 1
    address: str | None = None


Row: TypeAlias = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """A table of a page; a page leaves out one without rows.

    Attributes
    ----------
    head
        Headings. One may end in the class of its column: ``|n`` number, ``|w`` no line break,
        ``|name`` subject of the row, ``|wholly`` full width on a phone.
    lead
        First cell of the row that is highlighted.
    """

    head: Sequence[str]
    rows: Iterable[Row]
    lead: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Text and class of each heading."""
        # From the right, because a recipe's name may contain a bar.
        split = [title.rpartition("|") for title in self.head]
        return [(name, kind) if bar else (kind, "") for name, bar, kind in split]

    def cells(self, row: Row) -> Iterator[tuple[Cell, str]]:
        """Yield the cells of a row, each with the heading that a phone shows in it."""
        # Not strict: a cell that spans two columns makes its row shorter.
        for cell, (name, kind) in zip(row, self.columns, strict=False):
            if isinstance(cell, Cell):
                yield cell, ""
            else:
                yield Cell(cell, kind), "" if kind in ("name", "wholly") else name


def prose(text: str) -> Markup:
    """Escape a text; "5 %" stays on one line, and a command in backticks becomes code."""
    escaped = str(escape(text)).replace(" %", "\xa0%")
    return Markup(_COMMAND.sub(r"<code>\1</code>", escaped))  # noqa: S704


def picture(svg: bytes) -> Markup:
    """Return an SVG file for HTML, which has no namespaces."""
    inner = svg.decode().strip().replace(f' xmlns="{SVG}"', "", 1)
    return Markup(_STYLE.sub(lambda style: _in_page_colours(style[0]), inner))  # noqa: S704


def _in_page_colours(style: str) -> str:
    return _COLOUR.sub(lambda colour: _COLOURS[colour[0]], style)


def verdict(name: str) -> Cell:
    """Return the cell of an outcome, with a sign and a colour."""
    if name in ("pass", "passed"):
        return Cell("✓ passed", "w ok")
    if name in ("fail", "failed"):
        return Cell("✗ failed", "w bad")
    return Cell(f"○ {wording.plain(name)}", "w other")


def render(template: str, **content: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template
        File in `pipeline/report/templates`.
    content
        Variables of the template.
    """
    return _environment().get_template(template).render(**content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "picture": picture, "sentence": wording.sentence}
    environment.filters |= {"plain": wording.plain, "share": wording.share}
    # The style sheet is a file of this package, and holds no text from data.
    style = (_TEMPLATES / "page.css").read_text("utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704
    return environment
