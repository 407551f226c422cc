"""How a page is written: one HTML file with its style, and the pieces that it is made of.

Promises: every text that comes in is escaped; the page asks nothing from any address (its own
policy forbids it); a sign never relies on colour alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from pipeline.report import words

_STYLE = """
:root{color-scheme:light;--ink:#1f2328;--soft:#59626c;--line:#d8dde3;--wash:#f5f7f9}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);line-height:1.5;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto;padding:28px 24px 48px}
header{border-left:6px solid var(--tone);padding:2px 0 4px 18px;margin-bottom:22px}
.eyebrow{color:var(--soft);font-size:14px;margin:0}
h1{font-size:26px;line-height:1.25;margin:4px 0 8px}
.sentence{font-size:18px;margin:0}
h2{font-size:18px;margin:34px 0 6px}
.about{color:var(--soft);margin:0 0 12px;max-width:72ch}
.todo{background:var(--wash);border:1px solid var(--line);padding:12px 18px;margin:0 0 8px}
.todo h2{margin:0 0 4px;font-size:16px}.todo ul{margin:0;padding-left:20px}
figure{margin:16px 0 12px}figure img{width:100%;max-width:800px;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 20px 7px 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}td.w{white-space:nowrap}
tr.lead td{font-weight:600}
.ok{color:#0b6b43}.bad{color:#a3260b;font-weight:600}.other{color:#7a4b00}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0 0 14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}
footer{margin-top:40px;padding-top:14px;border-top:1px solid var(--line);font-size:13px}
@media(max-width:560px){main{padding:16px 14px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:8px}}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in named)
    return f"<dl>{told}</dl>" if told else ""


def picture(pictures: Mapping[str, bytes], name: str, alt: str) -> str:
    """Lay a PNG of `pictures` into the page; nothing where it was not drawn."""
    if name not in pictures:
        return ""
    data = base64.b64encode(pictures[name]).decode("ascii")
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def verdict(name: str) -> str:
    """Write a verdict into a cell, with a sign that does not rely on its colour."""
    if name == words.PASSED:
        return '<td class="w ok">✓ passed</td>'
    if name == words.FAILED:
        return '<td class="w bad">✗ failed</td>'
    return f'<td class="w other">○ {escape(words.plain(name))}</td>'


def cell(text: str, kind: str = "") -> str:
    """Write a cell; `kind` is ``n`` for a number, ``w`` for what shall not wrap."""
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Write a table; a heading that ends in ``|n`` stands over numbers; rows are (class, cells)."""
    titles = "".join(
        f'<th scope="col" class="n">{escape(name.removesuffix("|n"))}</th>'
        if name.endswith("|n")
        else f'<th scope="col">{escape(name)}</th>'
        for name in head
    )
    body = "".join(
        f'<tr class="{kind}">{"".join(cells)}</tr>' if kind else f"<tr>{''.join(cells)}</tr>"
        for kind, cells in rows
    )
    whole = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=wide>{whole}</div>"
