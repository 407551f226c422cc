from __future__ import annotations

from datetime import timedelta

from pipeline.base import Interval
from pipeline.report.headline import Headline
from pipeline.report.table import (
    DemoSummary,
    NightRecipe,
    NightSummary,
    history_table,
    nights_table,
)
from tests.entries import NIGHT, decision, publication

WORDS = "blend loses 33.4 % against the scorer of 2017-12-01 (1,262 users); " * 4
AS_OF = "2024-05-31T09:00:00Z"


def test_a_run_that_put_nothing_live_is_named() -> None:
    kept, went = "20171215T090000Z-a1483cd1", "20171201T090000Z-d60258d6"
    entries = [
        decision(1, "first", went, WORDS),
        publication(1, run_id=went),
        decision(1, "block", kept, WORDS),
    ]
    table = history_table(entries)
    lines = table.splitlines()
    assert [line for line in lines if line.split()[0] == "run"] == [f"{'':35}run {kept}"]
    assert lines[-1] == f"{'':35}run {kept}"
    assert f"p-{went}" in table


def test_the_history_is_read_on_a_hundred_columns() -> None:
    words = f"keep: {WORDS}the live lists stay"
    lines = history_table([decision(1, "keep", "r", words)]).splitlines()
    assert max(map(len, lines)) <= 100
    assert {line[:35].strip() for line in lines[1:]} == {""}
    assert lines[0].startswith(f"{AS_OF}  decision     keep: blend")
    assert " ".join(line[35:] for line in lines[:-1]) == words


def test_no_figure_is_parted_from_its_percent() -> None:
    for at in range(80):
        entry = decision(1, sentence=f"{'x' * at} loses 33.4 % against the scorer")
        assert "33.4 %" in history_table([entry])


def test_without_an_entry_the_page_states_it() -> None:
    assert history_table([]) == "the ledger has no entries yet"


def test_the_demo_shows_a_line_for_each_recipe() -> None:
    recipes = (
        NightRecipe("blend", 0.0316, 0.028, 0.0354, 0.35),
        NightRecipe("popularity", 0.02, 0.019, 0.021, None),
    )
    night = NightSummary(
        as_of=NIGHT,
        run_id="r",
        decision="switch",
        recipe="blend",
        days=Interval(NIGHT - timedelta(days=28), NIGHT),
        against="popularity",
        headline=Headline("good", "New lists are live: 35 % better."),
        sentence="switch: so",
        reasons=("better",),
        users=1262,
        recipes=recipes,
        gpu_causes=("device.hidden: unset it",),
    )
    lines = nights_table(DemoSummary("NDCG@20", (night,), {"browser": "make ui"})).splitlines()
    assert lines[2].split() == [
        *(
            "2024-06-01",
            "switch",
            "28",
            "from",
            "05-04",
            "blend",
            "0.0316",
            "0.0280",
            "to",
            "0.0354",
            "+35.0",
            "%",
            "popularity",
        )
    ]
    assert lines[3].split() == ["popularity", "0.0200", "0.0190", "to", "0.0210"]
    assert lines[5:] == [
        "2024-06-01  New lists are live: 35 % better. Nothing to do.",
        "            - better",
        "            - GPU not used: device.hidden: unset it",
        "",
        "browser   make ui",
    ]
