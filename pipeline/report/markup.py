"""HTML of a page: one file with its style, and the pieces that it is made of.

Guarantees: every text that comes in is escaped; the page asks nothing from any address (its own
policy forbids it); a sign never relies on colour alone.
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
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Markup(str):
    """HTML of a cell, escaped already."""

    __slots__ = ()


def html_of(text: str) -> str:
    """Escape a text; a percent sign stays beside its number, and a command in backticks is code."""
    return _COMMAND.sub(r"<code>\1</code>", escape(text).replace(" %", "\xa0%"))


def document(title: str, tone: str, parts: Iterable[str]) -> str:
    """Write a whole page of some parts; `tone` is the colour that it begins with."""
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
    """Write names and values; nothing where there are none."""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{html_of(value)}</dd>" for name, value in named)
    return f"<dl>{pairs}</dl>" if pairs else ""


def cards(pictures: Mapping[str, bytes], *names: str, beside: str = "") -> str:
    """Lay those SVG files that were drawn into the page, side by side where there is room."""
    parts = [f"<figure>{_inner(pictures[name])}</figure>" for name in names if name in pictures]
    parts += [f"<div class=beside>{beside}</div>"] if beside else []
    return f"<div class=cards>{''.join(parts)}</div>" if parts else ""


def section(title: str, about: str, *parts: str) -> str:
    """Write a part of the page; nothing where it has no content."""
    if not any(parts):
        return ""
    intro = f"<p class=about>{html_of(about)}</p>" if about else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{''.join(parts)}</section>"


def lines(texts: Iterable[str]) -> str:
    """Write a list; nothing where it is empty."""
    items = "".join(f"<li>{html_of(text)}</li>" for text in texts)
    return f"<ul class=notes>{items}</ul>" if items else ""


def folded(summary: str, inside: str) -> str:
    """Write what opens at a click; nothing where it is empty."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>" if inside else ""


def verdict(name: str) -> Markup:
    """Write a verdict into a cell, with a sign that does not rely on its colour."""
    if name in ("pass", "passed"):
        return mark("✓ passed", "w ok")
    if name in ("fail", "failed"):
        return mark("✗ failed", "w bad")
    return mark(f"○ {wording.plain(name)}", "w other")


def mark(text: str, kind: str) -> Markup:
    """Write a cell of a class of its own, such as ``w bad``."""
    return Markup(f'<td class="{kind}">{escape(text)}</td>')


def table(head: Sequence[str], rows: Iterable[Sequence[str]], lead: str | None = None) -> str:
    """Write a table, nothing without rows.

    A heading may end in the class of its column: ``|n`` for numbers, ``|w`` for what shall not
    wrap, ``|name`` for what a row is about, ``|wholly`` for a text that takes a phone's whole
    width. A row that begins with `lead` stands out. On a phone, where each row is a small card, a
    cell shows its heading unless that is empty or the column a ``name``.
    """
    columns = [_column(title) for title in head]
    titles = "".join(
        f'<th scope="col"{" class=n" if kind == "n" else ""}>{escape(name)}</th>'
        for name, kind in columns
    )
    body = "".join(
        f"<tr{' class=lead' if row[0] == lead else ''}>"
        f"{''.join(_cell(text, *column) for text, column in zip(row, columns, strict=False))}</tr>"
        for row in rows
    )
    if not body:
        return ""
    whole = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=wide>{whole}</div>"


def _column(title: str) -> tuple[str, str]:
    """Split a heading from its class."""
    name, bar, kind = title.rpartition("|")
    return (name, kind) if bar else (title, "")


def _cell(text: str, name: str, kind: str) -> str:
    """Write a cell, with its heading for where there is no head of the table."""
    if isinstance(text, Markup):
        return text
    heading = f' data-h="{escape(name)}"' if name and kind not in ("name", "wholly") else ""
    css = f' class="{kind}"' if kind else ""
    return f"<td{heading}{css}>{html_of(text)}</td>"


def _inner(svg: bytes) -> str:
    """Return an SVG file as HTML takes it, which needs no namespace."""
    return svg.decode().strip().replace(f' xmlns="{SVG}"', "", 1)
