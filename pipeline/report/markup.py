"""HTML of a page: one file with its style, and the pieces that it is made of.

Guarantees: every text that comes in is escaped; the page asks nothing from any address (its own
policy forbids it); a sign never relies on colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from pipeline.report import wording
from pipeline.report.svg_card import SVG

_STYLE = """
:root{color-scheme:light;--ink:#1f2328;--soft:#59626c;--line:#d8dde3;--wash:#f5f7f9}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);line-height:1.5;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1000px;margin:0 auto;padding:28px 24px 48px}
header{border-left:6px solid var(--tone);padding:2px 0 4px 18px;margin-bottom:22px}
.eyebrow{color:var(--soft);font-size:14px;margin:0}
h1{font-size:26px;line-height:1.25;margin:4px 0 8px}
.sentence{font-size:18px;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;margin:38px 0 4px;padding-top:12px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:20px 0 4px}
.about{color:var(--soft);margin:0 0 10px;max-width:72ch}
.todo{background:var(--wash);border:1px solid var(--line);padding:12px 18px;margin:0 0 8px}
.todo h2{margin:0 0 4px;padding:0;border:0;font-size:16px}.todo ul{margin:0;padding-left:20px}
ul.notes{margin:6px 0 14px;padding-left:20px;overflow-wrap:anywhere}
.cards{display:flex;flex-wrap:wrap;gap:18px 32px;align-items:flex-start;margin:8px 0 14px}
figure{margin:0;flex:1 1 300px;max-width:460px;min-width:0}
.beside{flex:1 1 300px;min-width:0}
figure svg{display:block;width:100%;height:auto}
figure text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
sans-serif!important}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 20px 7px 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--soft);font-weight:600}
td.n,th.n{text-align:right}td.n{white-space:nowrap}td.w{white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
tr.lead td{font-weight:600}
.ok{color:#0b6b43}.bad{color:#a3260b;font-weight:600}.other{color:#7a4b00}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0 0 14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}
footer{margin-top:40px;padding-top:14px;border-top:1px solid var(--line);font-size:13px}
@media(max-width:600px){main{padding:16px 14px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:8px}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table,tbody{display:block}
tr{display:flex;flex-wrap:wrap;gap:2px 16px;padding:9px 0;border-bottom:1px solid var(--line)}
td,td.n{display:block;border:0;padding:0;text-align:left;overflow-wrap:anywhere}
td[data-h]::before{content:attr(data-h) " ";color:var(--soft);font-weight:400}
td.wholly{flex-basis:100%}td.name{flex-basis:100%;font-weight:600}}
@media print{details>*{display:block}}
"""
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
        f"<style>{_STYLE}:root{{--tone:{tone}}}</style></head>\n<body><main>\n"
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
