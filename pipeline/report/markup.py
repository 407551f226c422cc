"""HTML building blocks: document, sections, tables, lists.

Guarantees:

* Every text is escaped.
* The page is one file: its content security policy allows no script and no request.
* A status has a sign as well as a colour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

from pipeline.report import wording
from pipeline.report.svg_card import SVG

_STYLE = resources.files("pipeline.report").joinpath("page.css").read_text("utf-8")
_COMMAND = re.compile(r"`([^`]+)`")
# Names from the data reach the page. If one were not escaped, it still could not run or load.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Markup(str):
    """HTML of a table cell; a `str` without this type is text."""

    __slots__ = ()


def html_of(text: str) -> str:
    """Escape a text; "5 %" stays on one line, and a command in backticks becomes code."""
    return _COMMAND.sub(r"<code>\1</code>", escape(text).replace(" %", "\xa0%"))


def document(title: str, tone: str, parts: Iterable[str]) -> str:
    """Return a page.

    Parameters
    ----------
    title
        Title of the browser window.
    tone
        CSS colour of the bar beside the headline.
    parts
        HTML; empty parts are left out.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>\n{_STYLE}:root{{--tone:{tone}}}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def facts(named: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values; empty without any."""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{html_of(value)}</dd>" for name, value in named)
    return f"<dl>{pairs}</dl>" if pairs else ""


def cards(pictures: Mapping[str, bytes], *names: str, beside: str = "") -> str:
    """Return figures side by side; empty without any.

    Parameters
    ----------
    pictures
        SVG files by name.
    names
        Figures to embed; those that were not drawn are left out.
    beside
        HTML beside the figures.
    """
    parts = [f"<figure>{_inner(pictures[name])}</figure>" for name in names if name in pictures]
    parts += [f"<div class=beside>{beside}</div>"] if beside else []
    return f"<div class=cards>{''.join(parts)}</div>" if parts else ""


def section(title: str, about: str, *parts: str) -> str:
    """Return a section; empty if all parts are empty.

    Parameters
    ----------
    title, about
        Heading, and text below it or "".
    parts
        HTML.
    """
    if not any(parts):
        return ""
    intro = f"<p class=about>{html_of(about)}</p>" if about else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{''.join(parts)}</section>"


def lines(texts: Iterable[str]) -> str:
    """Return a list of texts; empty without any."""
    items = "".join(f"<li>{html_of(text)}</li>" for text in texts)
    return f"<ul class=notes>{items}</ul>" if items else ""


def folded(summary: str, inside: str) -> str:
    """Return content that opens on a click; empty if the content is.

    Parameters
    ----------
    summary
        Text that is always visible.
    inside
        HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>" if inside else ""


def verdict(name: str) -> Markup:
    """Return the cell of an outcome, with a sign and a colour."""
    if name in ("pass", "passed"):
        return mark("✓ passed", "w ok")
    if name in ("fail", "failed"):
        return mark("✗ failed", "w bad")
    return mark(f"○ {wording.plain(name)}", "w other")


def mark(text: str, kind: str) -> Markup:
    """Return a cell with its own class.

    Parameters
    ----------
    kind
        CSS classes, such as ``w bad``.
    """
    return Markup(f'<td class="{kind}">{escape(text)}</td>')


def table(head: Sequence[str], rows: Iterable[Sequence[str]], lead: str | None = None) -> str:
    """Return a table; empty without rows.

    Parameters
    ----------
    head
        Headings. One may end in the class of its column: ``|n`` number, ``|w`` no line break,
        ``|name`` subject of the row, ``|wholly`` full width on a phone.
    rows
        Cells of each row, text or `Markup`.
    lead
        First cell of the row that is highlighted.
    """
    columns = [_column(title) for title in head]
    titles = "".join(
        f'<th scope="col"{" class=n" if kind == "n" else ""}>{escape(name)}</th>'
        for name, kind in columns
    )
    body = "".join(
        f"<tr{' class=lead' if row[0] == lead else ''}>"
        # Not strict: a cell that spans two columns makes its row shorter.
        f"{''.join(_cell(text, *column) for text, column in zip(row, columns, strict=False))}</tr>"
        for row in rows
    )
    if not body:
        return ""
    whole = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=wide>{whole}</div>"


def _column(title: str) -> tuple[str, str]:
    """Split a heading into text and class."""
    # From the right, because a recipe's name may contain a bar.
    name, bar, kind = title.rpartition("|")
    return (name, kind) if bar else (title, "")


def _cell(text: str, name: str, kind: str) -> str:
    """Return a cell; on a phone, which shows no table head, it contains its heading."""
    if isinstance(text, Markup):
        return text
    heading = f' data-h="{escape(name)}"' if name and kind not in ("name", "wholly") else ""
    css = f' class="{kind}"' if kind else ""
    return f"<td{heading}{css}>{html_of(text)}</td>"


def _inner(svg: bytes) -> str:
    """Return an SVG file for HTML, which has no namespaces."""
    return svg.decode().strip().replace(f' xmlns="{SVG}"', "", 1)
