from __future__ import annotations

from typing import Any

from pipeline.report.table import history_table

DAY = "2017-12-15T09:00:00Z"
WORDS = "blend loses 33.4 % against the scorer of 2017-12-01 (1,262 users); " * 4


def night(run_id: str, kind: str, **more: Any) -> dict[str, Any]:
    words = f"{kind}: {WORDS}the live lists stay"
    return {"type": "decision", "as_of": DAY, "run_id": run_id, "kind": kind, "sentence": words}


def publication(run_id: str) -> dict[str, Any]:
    return {
        "type": "publication",
        "as_of": DAY,
        "run_id": run_id,
        "generation": 1,
        "name": "blend",
        "model_version": "1",
        "publication_id": f"p-{run_id}",
    }


def test_a_night_that_put_nothing_before_people_names_its_run() -> None:
    kept, went = "20171215T090000Z-a1483cd1", "20171201T090000Z-d60258d6"
    told = history_table([night(went, "first"), publication(went), night(kept, "block")])
    lines = told.splitlines()
    assert [line for line in lines if line.split()[0] == "run"] == [f"{'':35}run {kept}"]
    assert lines[-1] == f"{'':35}run {kept}"
    assert f"p-{went}" in told


def test_the_history_is_read_on_a_hundred_columns() -> None:
    words = night("r", "keep")["sentence"]
    lines = history_table([night("r", "keep")]).splitlines()
    assert max(map(len, lines)) <= 100
    assert {line[:35].strip() for line in lines[1:]} == {""}
    assert lines[0].startswith(f"{DAY}  decision     keep: blend")
    assert " ".join(line[35:] for line in lines[:-1]) == words


def test_no_figure_is_parted_from_its_percent() -> None:
    for at in range(80):
        entry = night("r", "keep") | {"sentence": f"{'x' * at} loses 33.4 % against the scorer"}
        told = history_table([entry])
        assert "33.4 %" in told


def test_without_a_night_it_says_so() -> None:
    assert history_table(iter([])) == "nothing has been decided yet"
