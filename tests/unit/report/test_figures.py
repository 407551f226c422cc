from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.report import figures, trends
from pipeline.report.figure import BLUE, ORANGE
from pipeline.report.night import LiftRow, NightPage, PastRun, SliceRow
from tests.pages import BARE, churn, evaluation, live, status

NIGHTS = [datetime(2017, 12, 1, 9, tzinfo=UTC) + timedelta(days=7 * at) for at in range(4)]


def page(winner: str | None = None, **changes: object) -> NightPage:
    decision = replace(BARE.decision, recipe=winner)
    return BARE.model_copy(update={"decision": decision, **changes})


EVALUATIONS = {
    "als": evaluation(0.1212, 0.115, 0.1274, coverage=0.31, gini=0.6, novelty=9.0),
    "popularity": evaluation(0.0866, 0.081, 0.0922, coverage=0.012, gini=0.9, novelty=4.0),
}
RECIPES = page("als", evaluations=EVALUATIONS, champion="popularity", failures={"broken": "no GPU"})
LIFTS = (LiftRow("als", 0.4, 0.35, 0.45, True), LiftRow("other", -0.4, -0.5, -0.3))
SLICES = (
    SliceRow("cold", 301, 0.09, 0.08, 0.1, 0.02, 0.18),
    SliceRow("hot", 301, 0.07, 0.08, -0.1, -0.18, -0.02),
    SliceRow("lapsed", 12, 0.2, 0.1, 0.5, -3.0, 4.0, "too few users"),
    SliceRow("new_items", 88, 0.0, 0.0, None, None, None, "no level"),
)
ACCOUNTS = (status("als", 90.0), status("mad", 0.001))
PATHS = {
    "als": [(at, 1.5 * n) for n, at in enumerate(NIGHTS)],
    "mad": [(NIGHTS[-1], -6.9)],
}
PAST = tuple(
    PastRun(at, "switch" if n == 1 else "refresh", "als", 28 if n == 0 else 7, 0.1, 0.09, 0.11,
            0.2, 0.1, 0.3)
    for n, at in enumerate(NIGHTS)
)  # fmt: skip
CHURN = [(at, churn(0.9, 100, {"data": 0.07, "stock": 0.03})) for at in NIGHTS]
LIVE = [(at, live(str(n // 2), "all", 9, 9, 0.2, 0.1, 0.05, 0.2)) for n, at in enumerate(NIGHTS)]
REASONS = {"kind_unknown": 40, "user_id_missing": 3}

DRAW: dict[str, Callable[[], bytes]] = {
    "recipes": lambda: figures.recipes_figure(RECIPES),
    "lifts": lambda: figures.lifts_figure(LIFTS, "popularity", 0.01, 0.02),
    "slices": lambda: figures.slices_figure(SLICES, "als", "popularity", 0.02),
    "reach": lambda: figures.reach_figure(RECIPES),
    "reasons": lambda: figures.reasons_figure(REASONS, 42),
    "e_processes": lambda: trends.e_processes_figure(ACCOUNTS, PATHS),
    "metric": lambda: trends.metric_figure(PAST, "ndcg_at_20"),
    "over_baseline": lambda: trends.lift_figure(PAST, "over_baseline", 0.02),
    "over_before": lambda: trends.lift_figure(PAST, "over_before", 0.02),
    "over_first": lambda: trends.first_figure(PAST),
    "churn": lambda: trends.churn_figure(CHURN, NIGHTS[-1]),
    "live": lambda: trends.live_figure(LIVE, "ndcg_at_20"),
}  # fmt: skip


def read(svg: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: bytes) -> list[str]:
    return [one.text or "" for one in read(svg).iter("{http://www.w3.org/2000/svg}text")]


def size(svg: bytes) -> tuple[float, float]:
    _, _, width, height = map(float, read(svg).attrib["viewBox"].split())
    return width, height


@pytest.mark.parametrize("name", DRAW)
def test_equal_rows_give_equal_bytes_on_a_card_with_a_description(name: str) -> None:
    drawn = DRAW[name]()
    assert drawn == DRAW[name]()
    root = read(drawn)
    assert size(drawn)[0] == pytest.approx(4.2 * 72)
    assert root.attrib["role"] == "img"
    title = root.attrib["aria-label"]
    assert title in " ".join(texts(drawn))
    ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
    assert all(one.startswith(f"{name}-") for one in ids)
    text = drawn.decode()
    used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text)
    assert {one or other for one, other in used} == set(ids)
    assert "matplotlib" not in text.lower()
    assert "<style" not in text and "<metadata" not in text
    assert len(drawn) < 60_000


def test_other_rows_give_another_figure() -> None:
    other = page("popularity", evaluations=EVALUATIONS, champion="popularity")
    assert figures.recipes_figure(RECIPES) != figures.recipes_figure(other)


def test_the_colour_of_a_lift_follows_from_its_verdict() -> None:
    def colours(row: LiftRow) -> tuple[bool, ...]:
        drawn = figures.lifts_figure((row,), "popularity", None, 0.02).decode().lower()
        return tuple(drawn.count(colour.lower()) > 0 for colour in (BLUE, ORANGE))

    better = LiftRow("als", 0.3, 0.25, 0.35)
    assert colours(better) == colours(replace(better, proved=True)) == (True, False)
    assert colours(LiftRow("als", -0.3, -0.35, -0.25)) == (False, True)
    assert colours(replace(better, lo=-0.01)) == (False, False)
    assert colours(replace(better, underpowered="too few users")) == (True, False)


def test_a_figure_grows_with_its_rows_up_to_a_limit() -> None:
    def height(n: int) -> float:
        recipes = {f"r{i}": evaluation(0.1, 0.1, 0.1) for i in range(n)}
        return size(figures.recipes_figure(page(evaluations=recipes)))[1]

    assert height(1) < height(4) < height(16) == height(40)


def test_a_forest_marks_thin_evidence_and_is_not_stretched_by_it() -> None:
    drawn = DRAW["slices"]()
    assert "hollow: too little evidence" in " ".join(texts(drawn))
    assert {"+10.0 %", "−10.0 %", "+50.0 %", "n/a"} <= set(texts(drawn))
    assert not [text for text in texts(drawn) if text.endswith("00 %")]  # no tick beyond the rest
    bold = figures.slices_figure(SLICES[2:], "als", "popularity", 0.02)
    assert "groups: 1 unclear" in read(bold).attrib["aria-label"]


def test_more_than_a_figure_holds_is_named() -> None:
    many = tuple(replace(SLICES[0], name=f"s{n}") for n in range(20))
    drawn = figures.slices_figure(many, "als", "popularity", 0.02)
    assert "the first 16 of 20" in " ".join(texts(drawn))
    accounts = tuple(status(f"r{n}", 90.0) for n in range(8))
    assert "2 more candidates" in " ".join(texts(trends.e_processes_figure(accounts, {})))


def test_accounts_stand_below_a_threshold_with_their_names_and_points() -> None:
    labels = texts(DRAW["e_processes"]())
    assert {"a switch needs 500", "als", "90", "mad", "under 0.1"} <= set(labels)


def lines(drawn: bytes) -> int:
    """Count the lines between runs."""
    return drawn.decode().count('style="fill: none; stroke: #0072b2; stroke-linecap: square"')


def test_lifts_over_another_version_each_are_not_joined() -> None:
    equal = tuple(replace(row, holdout_days=7) for row in PAST)
    assert lines(trends.lift_figure(equal, "over_before", 0.02)) == 0
    assert lines(trends.lift_figure(equal, "over_baseline", 0.02)) == 3
    assert lines(trends.first_figure(equal)) == 3
    assert "0 %: as good as that version" in " ".join(texts(DRAW["over_before"]()))


def test_nights_of_another_length_of_holdout_are_not_joined() -> None:
    equal = tuple(replace(row, holdout_days=7) for row in PAST)
    assert lines(trends.metric_figure(equal, "ndcg_at_20")) == 3
    assert lines(trends.metric_figure(PAST, "ndcg_at_20")) == 2
    assert "hollow: holdout of 28 days, not 7" in " ".join(texts(DRAW["metric"]()))


def test_days_below_an_axis_do_not_lie_on_each_other() -> None:
    at = (0, 7, 14, 26, 27, 28)
    past = tuple(replace(PAST[2], as_of=NIGHTS[0] + timedelta(days=day)) for day in at)
    labels = texts(trends.lift_figure(past, "over_before", 0.02))
    days = [text for text in labels if re.fullmatch(r"\d+ Dec", text)]
    assert sorted(days) == ["1 Dec", "15 Dec", "29 Dec"]


def test_churn_names_each_cause_beside_its_hatch() -> None:
    labels = texts(DRAW["churn"]())
    assert {"data", "stock", "10.0 %", "22 Dec"} <= set(labels)
    drawn = DRAW["churn"]().decode()
    assert drawn.count("<pattern") == 2
    unknown = trends.churn_figure([(NIGHTS[0], churn(0.9, 100))], NIGHTS[0])
    assert b"<pattern" not in unknown


def test_odd_names_are_drawn_as_they_are() -> None:
    name = r"$\nope{$<&>" + "x" * 80
    odd = page(name, evaluations={name: evaluation(0.1, 0.05, 0.15, coverage=0.1)})
    for drawn in (
        figures.recipes_figure(odd),
        figures.reach_figure(odd),
        figures.lifts_figure((LiftRow(name, 0.1, 0.0, 0.2),), name, None, 0.02),
        figures.slices_figure(SLICES, name, name, 0.02),
        trends.e_processes_figure((status(name, 90.0),), {name: PATHS["als"]}),
        trends.lift_figure((replace(PAST[0], recipe=name, kind="switch"),), "over_baseline", 0.02),
        trends.churn_figure([(NIGHTS[0], churn(0.9, 1, {name: 0.1}))], NIGHTS[0]),
    ):
        assert r"$\nope{$<&>" in " ".join(texts(drawn))
    snow = {"☃ 日本 \x07": evaluation(0.1, 0.05, 0.15)}
    smile = figures.recipes_figure(page(evaluations=snow))
    assert any("日本" in text for text in texts(smile))


def test_nothing_of_pyplot_is_touched() -> None:
    imported = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from pipeline.report.figures import recipes_figure\n"
            "from tests.pages import FULL\n"
            "loaded = 'matplotlib' in sys.modules\n"
            "recipes_figure(FULL)\n"
            "import matplotlib\n"
            "same = matplotlib.rcParams['svg.fonttype'] == 'path'\n"
            "print(loaded, 'matplotlib.pyplot' in sys.modules, same)",
        ],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.split() == ["False", "False", "True"]
