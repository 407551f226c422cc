"""Days of a small shop under a real scheduler: a night that asks in vain, calm passes and upkeep,
then what lands asks for a night, and somebody answers it.

The shop's last days are today's, so that a night that nobody dated has something to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from pipeline import columns as c
from pipeline.base import format_instant, parse_instant
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.lists import lists, live_publication
from pipeline.steps.nightly import nightly
from pipeline.workspace.workspace import Workspace
from tests.dags.served import Served, serve
from tests.worlds import CONFIG, NIGHTS, catalogue, land, moved, purchases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GREY = f"""{CONFIG}
[gate]
human_review = true
alpha = 1e-25
candidates = {10**60}

[policy]
min_new_events = 1000
"""
"""Four times as good is enough for one candidate alone, and for so many not even in two blocks."""
NIGHTLY, FEEDBACK, UPKEEP = "nightly_retrain", "feedback_ingest", "maintenance"
REQUEST = "nightjar_retrain_requested"
SWITCH = "switch to the candidate"


@dataclass
class Shop:
    """A workspace whose baseline went live four weeks ago."""

    ws: Workspace
    events: pl.DataFrame
    nights: list[datetime]

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.ws.ledger.entries() if line["type"] == kind]

    def land(self, night: int) -> Path:
        return land(self.ws.home, self.events, self.nights[night], self.nights[night - 1])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = tmp_path_factory.mktemp("served") / "a home"
    later = datetime.now(UTC).replace(microsecond=0) - NIGHTS[2]
    nights = [night + later for night in NIGHTS]
    shop = Shop(Workspace.init(home, GREY), moved(purchases(), later), nights)
    catalogue(home)
    land(home, shop.events, nights[0])
    feedback(shop.ws, nights[0])
    first = nightly.nightly(shop.ws, nights[0], recipes=["mad"])
    assert (first.decision, first.recipe) == ("first", "popularity")
    return shop


@pytest.fixture(scope="module")
def airflow(shop: Shop) -> Iterator[Served]:
    sweeps = {"AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2"}
    with serve(shop.ws.home, sweeps) as served:
        parsed = {NIGHTLY, FEEDBACK}
        served.wait(
            lambda: parsed <= {dag["dag_id"] for dag in served.get("/dags")["dags"]} or None,
            lambda: "DAGs",
        )
        served.unpause(NIGHTLY)
        yield served


@dataclass
class Night:
    """A night that Airflow ran, and the live lists before and after it."""

    question: Any
    run: Any
    states: dict[str, str | None]
    before: pl.DataFrame
    after: pl.DataFrame


@pytest.fixture(scope="module")
def unanswered(shop: Shop, airflow: Served) -> Night:
    """A night whose question waits until its four hours are over."""
    shop.land(1)
    feedback(shop.ws, shop.nights[1])
    before = lists(shop.ws, None)
    run_id = airflow.trigger(NIGHTLY, as_of=format_instant(shop.nights[1]))
    question = airflow.question(NIGHTLY, run_id)
    with airflow.database() as database:
        (until,) = database.execute(
            "SELECT trigger_timeout FROM task_instance WHERE task_id = 'review' AND run_id = ?",
            (run_id,),
        ).fetchone()
        left = datetime.fromisoformat(until).replace(tzinfo=UTC) - datetime.now(UTC)
        assert timedelta(hours=3.9) < left < timedelta(hours=4)
        over = datetime.now(UTC) - timedelta(seconds=1)
        database.execute(
            "UPDATE task_instance SET trigger_timeout = ? WHERE task_id = 'review' AND run_id = ?",
            (over.strftime("%Y-%m-%d %H:%M:%S.%f"), run_id),
        )
    run = airflow.end(NIGHTLY, run_id)
    return Night(question, run, airflow.states(NIGHTLY, run_id), before, lists(shop.ws, None))


def test_no_answer_in_time_keeps_the_champion(unanswered: Night, shop: Shop) -> None:
    assert unanswered.question["options"] == ["keep the champion", SWITCH]
    assert unanswered.question["defaults"] == ["keep the champion"]
    assert "als is inconclusive" in unanswered.question["body"]
    assert unanswered.run["state"] == "success"
    assert unanswered.states["review"] == "success"
    assert unanswered.states["accept"] == "skipped"
    of_that_night = [
        line for line in shop.lines("publication") if parse_instant(line["as_of"]) <= shop.nights[1]
    ]
    assert {line["name"] for line in of_that_night} == {"popularity"}


@dataclass
class Calm:
    """Passes of a day on which little happens, and the live lists before and after them."""

    did: set[str]
    patches: list[dict[str, Any]]
    busy: dict[str, str | None]
    idle: dict[str, str | None]
    upkeep: Any
    asked: list[Any]
    before: pl.DataFrame
    after: pl.DataFrame


@pytest.fixture(scope="module")
def calm(shop: Shop, airflow: Served, unanswered: Night) -> Calm:
    """Six people do something, and a pass takes it in; nobody does, and another; then upkeep."""
    assert unanswered.run["state"] == "success"
    before, known = lists(shop.ws, None), len(shop.lines("patch"))
    text = shop.nights[1].strftime("%Y-%m-%dT%H:%M:%SZ")
    did = sorted(
        shop.events.filter(pl.col("timestamp") >= text)["user_id"].unique(maintain_order=True)[:6]
    )
    mine = shop.events.filter(pl.col("user_id").is_in(did))
    land(shop.ws.home, mine, shop.nights[1] + timedelta(days=1), shop.nights[1])
    for dag_id in (FEEDBACK, UPKEEP):
        airflow.unpause(dag_id)
    runs = []
    for _ in range(2):
        run_id = airflow.trigger(FEEDBACK)
        assert airflow.end(FEEDBACK, run_id)["state"] == "success"
        runs.append(airflow.states(FEEDBACK, run_id))
    return Calm(
        did=set(did),
        patches=shop.lines("patch")[known:],
        busy=runs[0],
        idle=runs[1],
        upkeep=airflow.end(UPKEEP, airflow.trigger(UPKEEP)),
        asked=asked_for(airflow),
        before=before,
        after=lists(shop.ws, None),
    )


def asked_for(airflow: Served) -> list[Any]:
    """Return the nights that an asset's event started.

    Airflow's list of all events is not read: it is a 500 until the runs that they made have begun.
    """
    runs = airflow.get(f"/dags/{NIGHTLY}/dagRuns", run_type="asset_triggered")["dag_runs"]
    return list(runs)


def test_a_calm_pass_moves_the_lists_of_who_did_something_and_asks_for_no_night(
    calm: Calm, shop: Shop
) -> None:
    (patch,) = calm.patches
    assert patch["base"] == shop.lines("publication")[-1]["publication_id"]
    rows = [pl.col(c.USER_ID).is_in(calm.did), ~pl.col(c.USER_ID).is_in(calm.did)]
    for others, before, after in zip(
        (False, True), map(calm.before.filter, rows), map(calm.after.filter, rows), strict=True
    ):
        assert before.equals(after) is others
    assert calm.busy["request_retrain"] == "skipped"
    assert calm.idle["announce_events"] == "skipped"
    assert calm.asked == []
    assert calm.upkeep["state"] == "success"


@pytest.fixture(scope="module")
def announced(shop: Shop, airflow: Served, calm: Calm) -> Any:
    """A file lands, a pass takes it in: the night that the asset's event starts."""
    assert calm.asked == []
    shop.land(2)
    # Its own pass may be due just now, and take the file before this one does.
    taken = airflow.end(FEEDBACK, airflow.trigger(FEEDBACK))
    assert taken["state"] == "success"

    return airflow.wait(
        lambda: next(iter(asked_for(airflow)), None), lambda: "night that an event started"
    )


@pytest.fixture(scope="module")
def answered(shop: Shop, airflow: Served, announced: Any) -> Night:
    """The night that the asset started, whose question somebody answers."""
    before = lists(shop.ws, None)
    run_id = announced["dag_run_id"]
    question = airflow.question(NIGHTLY, run_id)
    assert shop.lines("override") == []
    airflow.answer(NIGHTLY, run_id, SWITCH)
    run = airflow.end(NIGHTLY, run_id)
    states = airflow.states(NIGHTLY, run_id)
    return Night(question, run, states, before, lists(shop.ws, None))


def test_what_lands_asks_for_a_night_through_the_asset(
    airflow: Served, announced: Any, answered: Night, shop: Shop
) -> None:
    (event,) = airflow.events(NIGHTLY, announced["dag_run_id"])
    assert (event["name"], event["source_dag_id"]) == (REQUEST, FEEDBACK)
    assert [begun["run_id"] for begun in event["created_dagruns"]] == [announced["dag_run_id"]]
    assert answered.run["run_type"] == "asset_triggered"
    assert answered.run["logical_date"] is None
    newest = shop.lines("decision")[-1]
    assert newest["as_of"] == format_instant(parse_instant(answered.run["run_after"]))
    asked = read_policy(shop.ws.run(newest["run_id"]))
    assert asked is not None and asked.reason.startswith("retrain requested: ")


def test_a_persons_yes_switches_and_the_lists_go_live(answered: Night, shop: Shop) -> None:
    assert answered.run["state"] == "success"
    assert set(answered.states.values()) == {"success"}
    assert answered.states["accept"] == "success"
    (word,) = shop.lines("override")
    assert (word["kind"], word["recipe"]) == ("switch", "als")
    # Nobody signs in to the Airflow of `make ui`.
    assert (word["by"], word["reason"]) == ("Anonymous", "answered in Airflow")
    published = shop.lines("publication")[-1]
    assert (published["name"], published["run_id"]) == ("als", word["run_id"])
    assert live_publication(shop.ws)["publication_id"] == published["publication_id"]


def test_the_lists_have_changed(answered: Night) -> None:
    assert answered.after.height > 1000
    with pytest.raises(AssertionError):
        assert_frame_equal(answered.after, answered.before)


def _listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Return the addresses that a process listens on.

    Airflow lets only root look into the supervisors of its tasks (`PR_SET_DUMPABLE`): empty.
    """
    try:
        connections = process.net_connections("tcp")
    except psutil.AccessDenied:
        return set()
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }


def test_both_pages_open_on_loopback_alone(airflow: Served) -> None:
    for port in (airflow.port, airflow.mlflow_port):
        assert f"http://127.0.0.1:{port}" in airflow.output
        with urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert page.status == 200
    listening = set().union(*map(_listening, airflow.family()))
    assert listening == {("127.0.0.1", airflow.port), ("127.0.0.1", airflow.mlflow_port)}


def test_an_interrupt_stops_everything(airflow: Served) -> None:
    family = airflow.family()
    assert len(family) > 5

    assert airflow.stop() == 0, airflow.output
    _, alive = psutil.wait_procs(family, timeout=3)
    assert alive == []
