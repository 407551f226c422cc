"""One night as one HTML page: the sentence first, then the evidence; no script, no other file.

Promises: every text is escaped; the page asks nothing from any address (its own policy forbids it);
what stopped the night stands above what passed; a sign never relies on colour alone; equal rows
give equal bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from pipeline.base import format_instant
from pipeline.report import figures, words
from pipeline.report.night import CheckRow, CostRow, NightPage, RecipeRow, RuleRow

PAGE = "night.html"
RECIPES = "recipes.png"
LIFTS = "lifts.png"
SLICES = "slices.png"
_CHECK = "check."

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
_TONE = {"first": "#0072B2", "switch": "#0072B2", "refresh": "#0b6b43", "block": "#a3260b"}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def night_figures(night: NightPage) -> dict[str, bytes]:
    """Draw the figures that the night has rows for: file name → PNG."""
    drawn: dict[str, bytes] = {}
    if any(row.mean is not None for row in night.recipes):
        drawn[RECIPES] = figures.recipes_figure(night.recipes, night.metric, night.winner)
    if night.lifts and night.against:
        drawn[LIFTS] = figures.lifts_figure(night.lifts, night.against, night.needed_lift)
    if night.slices and night.challenger and night.against:
        drawn[SLICES] = figures.slices_figure(
            night.slices, night.metric, night.challenger, night.against
        )
    return drawn


def night_page(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the page; `pictures` are those of `night_figures`, laid into it."""
    advice = night.advice or words.advice(night.kind, night.rules)
    day = f"{night.as_of:%A}, {night.as_of.day} {night.as_of:%B %Y}"
    headline = words.HEADLINE.get(night.kind, words.plain(night.kind))
    parts = [
        f"<header><p class=eyebrow>Nightjar · night of {escape(day)} · as-of "
        f"{escape(format_instant(night.as_of))}</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{escape(night.sentence)}</p></header>",
        _advice(advice),
        _recipes(night, pictures),
        _rules(night),
        _slices(night, pictures),
        _data(night),
        f"<footer>{_facts((('run', night.run_id), *night.origin))}</footer>",
    ]
    tone = _TONE.get(night.kind, "#59626c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Nightjar {escape(format_instant(night.as_of))}: {escape(headline)}</title>"
        f"<style>{_STYLE}:root{{--tone:{tone}}}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _advice(advice: Sequence[str]) -> str:
    if not advice:
        return ""
    told = "".join(f"<li>{escape(line)}</li>" for line in advice)
    return f"<section class=todo><h2>What you can do</h2><ul>{told}</ul></section>"


def _recipes(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    label = words.metric_label(night.metric)
    rows = sorted(night.recipes, key=lambda row: (row.mean is None, -(row.mean or 0), row.name))
    body = [
        (
            "lead" if row.name == night.winner else "",
            (
                _cell(row.name + (" (live now)" if row.name == night.winner else "")),
                _cell(row.role),
                *_recipe_cells(row),
            ),
        )
        for row in rows
    ]
    head = ("Recipe", "Role", f"{label}|n", "95 % interval|n", "Coverage|n")
    about = (
        "Each recipe learnt from the days before the holdout and was judged by the holdout. "
        f"{label} is 1 if everything a person went for stood at the top of their list; coverage is "
        "the share of the catalogue that is recommended to anybody."
    )
    title = words.recipes_title(night.recipes, night.metric)
    lifts = ""
    if night.against:
        lifts = _picture(pictures, LIFTS, words.lifts_title(night.lifts, night.against))
    return (
        f"<section><h2>Recipes</h2><p class=about>{escape(about)}</p>"
        f"{_picture(pictures, RECIPES, title)}{_table(head, body)}{lifts}{_costs(night.costs)}"
        "</section>"
    )


def _costs(costs: Sequence[CostRow]) -> str:
    if not costs:
        return ""
    head = (
        "What training took", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events a second|n", "On",
    )  # fmt: skip
    body = [("", _cost_cells(row)) for row in sorted(costs, key=lambda row: -row.seconds)]
    return _table(head, body)


def _cost_cells(row: CostRow) -> tuple[str, ...]:
    return (
        _cell(row.name),
        _cell(f"{row.seconds:,.2f}", "n"),
        _cell(f"{row.cpu_seconds:,.2f}", "n"),
        _cell(f"{row.peak_mb:,.1f}", "n"),
        _cell(words.number(row.parameters), "n"),
        _cell(f"{row.events_per_second:,.0f}", "n"),
        _cell(row.trained_on),
    )


def _recipe_cells(row: RecipeRow) -> tuple[str, ...]:
    if row.mean is None:
        return (f"<td colspan=3>{escape(row.failure or 'not judged')}</td>",)
    interval = "–" if row.lo is None or row.hi is None else f"{row.lo:.4f} to {row.hi:.4f}"
    covered = "–" if row.coverage is None else f"{100 * row.coverage:.1f} %"
    return (_cell(f"{row.mean:.4f}", "n"), _cell(interval, "n"), _cell(covered, "n"))


def _rules(night: NightPage) -> str:
    # Checks of the data have a section of their own; one that stops the night stands here too.
    rows = [row for row in night.rules if not (row.name.startswith(_CHECK) and _passed(row))]
    if not rows:
        return ""
    rows.sort(key=lambda row: not words.stops(night.kind, row))
    head = ("Verdict", "Rule", "About", "Figure|n", "Bound|n", "In words")
    about = "Every rule, with what was measured and what is allowed" + (
        "; what stopped the night stands first." if night.kind == "block" else "."
    )
    told = _table(head, [("", _rule_cells(night.kind, row)) for row in rows])
    return f"<section><h2>What the gate asked</h2><p class=about>{about}</p>{told}</section>"


def _passed(row: RuleRow) -> bool:
    return row.verdict == words.PASSED


def _rule_cells(kind: str, row: RuleRow) -> tuple[str, ...]:
    refused = row.verdict == words.FAILED and not words.stops(kind, row)
    return (
        _verdict("not met" if refused else row.verdict),
        _cell(words.plain(row.name)),
        _cell(row.subject, "w"),
        _cell(words.number(row.figure), "n"),
        _cell(words.number(row.bound), "n"),
        _cell(row.sentence),
    )


def _slices(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    if not (night.slices and night.challenger and night.against):
        return ""
    body = [
        (
            "",
            (
                _cell(words.plain(row.name)),
                _cell(words.number(row.users), "n"),
                _cell(f"{row.candidate[0]:.4f}", "n"),
                _cell(f"{row.champion[0]:.4f}", "n"),
                _cell(
                    words.change(row.candidate[0] / row.champion[0] - 1)
                    if row.champion[0] > 0
                    else "n/a",
                    "n",
                ),
            ),
        )
        for row in night.slices
    ]
    head = ("Group", "People|n", f"{night.challenger}|n", f"{night.against}|n", "Difference|n")
    title = words.slices_title(night.slices, night.challenger, night.against)
    return (
        "<section><h2>Groups of people</h2><p class=about>A mean can hide a group that loses. "
        "Small groups are shown, not judged.</p>"
        f"{_picture(pictures, SLICES, title)}{_table(head, body)}</section>"
    )


def _data(night: NightPage) -> str:
    tables = [
        (
            "",
            (
                _cell(row.name),
                _cell(words.number(row.version), "n"),
                _cell(words.number(row.rows), "n"),
            ),
        )
        for row in night.tables
    ]
    told = _table(("Table", "Lake version|n", "Rows read|n"), tables) if tables else ""
    return f"<section><h2>Data</h2>{_facts(night.facts)}{told}{_checks(night.checks)}</section>"


def _checks(checks: Sequence[CheckRow]) -> str:
    head = ("Result", "Check", "Figure|n", "Bound|n", "In words")
    passed = [row for row in checks if row.status == words.PASSED]
    others = [row for row in checks if row.status != words.PASSED]
    parts = []
    if others:
        parts.append(f"<h2>Checks to look at</h2>{_table(head, map(_check_cells, others))}")
    if passed:
        parts.append(
            f"<details><summary>{len(passed)} of {len(checks)} checks of the data passed</summary>"
            f"{_table(head, map(_check_cells, passed))}</details>"
        )
    return "".join(parts)


def _check_cells(row: CheckRow) -> tuple[str, tuple[str, ...]]:
    return "", (
        _verdict(row.status),
        _cell(words.plain(row.name)),
        _cell(words.number(row.figure), "n"),
        _cell(words.number(row.bound), "n"),
        _cell(row.sentence),
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<dl>{told}</dl>" if told else ""


def _picture(pictures: Mapping[str, bytes], name: str, alt: str) -> str:
    if name not in pictures:
        return ""
    data = base64.b64encode(pictures[name]).decode("ascii")
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def _verdict(verdict: str) -> str:
    if verdict == words.PASSED:
        return '<td class="w ok">✓ passed</td>'
    if verdict == words.FAILED:
        return '<td class="w bad">✗ failed</td>'
    return f'<td class="w other">○ {escape(words.plain(verdict))}</td>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
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
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=wide>{table}</div>"
