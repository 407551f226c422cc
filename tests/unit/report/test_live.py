"""The history of live quality, as a table and as a figure."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.report.live import LiveNight, LiveScore, live_chart, live_table

FIRST = datetime(2026, 5, 1, 9, tzinfo=UTC)


def score(version, ndcg, *, base=None, sure=True):
    return LiveScore(
        model_version=version,
        users=1234,
        user_days=1500,
        events=4000,
        hit_rate=0.25,
        ndcg=ndcg,
        ndcg_lo=ndcg - 0.01 if sure else None,
        ndcg_hi=ndcg + 0.01 if sure else None,
        base_only_hit_rate=0.25,
        base_only_ndcg=ndcg if base is None else base,
    )


def nights(n=3):
    made = [
        LiveNight(FIRST + timedelta(days=at), 20, 0, (score(str(at + 1), 0.1 + at / 100),))
        for at in range(n)
    ]
    patched = (score("9", 0.2, base=0.15), score("10", 0.21, sure=False))
    return (
        *made,
        LiveNight(FIRST + timedelta(days=n), 20, 5, ()),
        LiveNight(FIRST + timedelta(days=n + 1), 20, 0, patched),
    )


def test_the_table_has_a_line_a_night_and_version():
    lines = live_table(nights()).splitlines()
    assert "NDCG@20" in lines[0] and "hit rate@20" in lines[0]
    told = [line.split() for line in lines[2:]]
    assert [line[0] for line in told[:4]] == [f"2026-05-0{n}" for n in (1, 2, 3, 4)]
    assert told[0][1:5] == ["1", "1,234", "4,000", "0.2500"]
    assert "0.0900 to 0.1100" in lines[2]
    assert told[3][1] == "–" and told[3][-1] == "5"
    assert told[4][-2] == "0.1500"
    assert told[5][0] == "10" and "to" not in told[5]
    assert live_table(()).startswith("no night has scored")


def test_the_figure_is_the_same_bytes_for_the_same_rows():
    once, again = live_chart(nights(), "png"), live_chart(nights(), "png")
    assert once == again and once.startswith(b"\x89PNG")
    assert live_chart(nights(2), "png") != once


def test_the_drawing_says_what_it_shows():
    drawn = live_chart(nights(), "svg").decode()
    assert drawn == live_chart(nights(), "svg").decode()
    for told in ("version 1", "version 10", "2026-05-01", "without the day", "NDCG@20"):
        assert told in drawn, told


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_there_may_be_nothing_to_draw(kind):
    assert live_chart((), kind)
    assert live_chart(nights(60), kind)


def test_a_version_that_too_few_people_met_is_named_without_figures():
    few = LiveScore("7", 3, 3, 9, None, None, None, None, None, None)
    told = (*nights(1), LiveNight(FIRST + timedelta(days=1), 20, 0, (few,)))
    line = live_table(told).splitlines()[-1].split()
    assert line == ["2026-05-02", "7", "3", "9", "–", "–", "–", "–", "0"]
    assert b"version 7" not in live_chart(told, "svg")
