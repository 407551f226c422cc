"""The history of live quality, as a table and as a figure."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.base import Interval
from pipeline.report.live import LiveRun, live_chart, live_table
from tests.pages import scored

FIRST = datetime(2026, 5, 1, 9, tzinfo=UTC)


def score(version, ndcg, *, base=None, sure=True):
    return scored(
        version,
        "all",
        1234,
        4000,
        0.25,
        ndcg,
        ndcg - 0.01 if sure else None,
        ndcg + 0.01 if sure else None,
        ndcg if base is None else base,
    )


def night(day, *rows, unlisted=0):
    at = FIRST + timedelta(days=day)
    span = Interval(at - timedelta(days=1), at)
    return LiveRun(
        as_of=at, run_id="r", k=20, task="discovery", span=span, events=9, unlisted=unlisted,
        repeated=0, rows=rows,
    )  # fmt: skip


def nights(n=3):
    cold = scored("1", "cold", 12, 40, 0.5, 0.9)  # groups are not in the history
    made = [night(at, score(str(at + 1), 0.1 + at / 100), cold) for at in range(n)]
    patched = (score("9", 0.2, base=0.15), score("10", 0.21, sure=False))
    return (*made, night(n, unlisted=5), night(n + 1, *patched))


def test_the_table_has_a_line_a_night_and_version():
    lines = live_table(nights()).splitlines()
    assert "NDCG@20" in lines[0] and "hit rate@20" in lines[0]
    rows = [line.split() for line in lines[2:]]
    assert [line[0] for line in rows[:4]] == [f"2026-05-0{n}" for n in (1, 2, 3, 4)]
    assert rows[0][1:5] == ["1", "1,234", "4,000", "0.2500"]
    assert "0.0900 to 0.1100" in lines[2]
    assert rows[3][1] == "–" and rows[3][-1] == "5"
    assert rows[4][-2] == "0.1500"
    assert rows[5][0] == "10" and "to" not in rows[5]
    assert live_table(()).startswith("no nightly run has scored")


def test_the_figure_is_the_same_bytes_for_the_same_rows():
    once, again = live_chart(nights(), "png"), live_chart(nights(), "png")
    assert once == again and once.startswith(b"\x89PNG")
    assert live_chart(nights(2), "png") != once


def test_the_drawing_has_a_description():
    drawn = live_chart(nights(), "svg").decode()
    assert drawn == live_chart(nights(), "svg").decode()
    for label in ("version 1", "version 10", "1 May", "without patches", "NDCG@20"):
        assert label in drawn, label


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_there_may_be_nothing_to_draw(kind):
    assert live_chart((), kind)
    assert live_chart(nights(60), kind)


def test_a_version_that_too_few_users_met_is_named_without_figures():
    shown = (*nights(1), night(1, scored("7", "all", 3, 9)))
    line = live_table(shown).splitlines()[-1].split()
    assert line == ["2026-05-02", "7", "3", "9", "–", "–", "–", "–", "0"]
    assert b"version 7" not in live_chart(shown, "svg")
