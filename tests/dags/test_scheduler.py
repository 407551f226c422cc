"""Days of a small shop under a real scheduler, whose retrains the policy requests.

A review without an answer, passes with few events, maintenance; then a pass requests a retrain,
whose review a user answers. The shop's last days are today's, so that a run without an `as_of` has
events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from pipeline import columns as c
from pipeline.base import as_of, format_instant, parse_instant
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.lists import lists, live_publication
from pipeline.steps.nightly import nightly
from pipeline.workspace.workspace import Workspace
from tests.dags.served import Served, serve
from tests.worlds import CONFIG, NIGHTS, catalogue, land, moved, purchases

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

GREY = f"""{CONFIG}
[schedule]
mode = "adaptive"

[gate]
catch_up_blocks = 0
human_review = true
alpha = 0.07
period_sd = 0.8
not_one_week = 1.0

[policy]
min_new_events = 300
"""
"""After two blocks als has an e-value near 46: enough for one candidate alone (14), and too little
for one that was added later (114). With so large an SD of weeks even a lift of 280 % is uncertain.
"""
DAYS_AGO = (25, 18, 11, 4, 0)
"""The baselines, the opening of the e-process of als, and its two blocks; then the newest event."""
NIGHTLY, FEEDBACK, MAINTENANCE = "nightly_retrain", "feedback_ingest", "maintenance"
REQUEST = "nightjar_retrain_requested"
SWITCH = "switch to the candidate"


@dataclass
class Shop:
    """A workspace whose baseline went live four weeks ago; als has evidence of one block."""

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
    now = datetime.now(UTC).replace(microsecond=0)
    nights = [now - timedelta(days=days) for days in DAYS_AGO]
    shop = Shop(Workspace.init(home, GREY), moved(purchases(), now - NIGHTS[2]), nights)
    catalogue(home)
    land(home, shop.events, nights[0])
    feedback(shop.ws, nights[0])
    first = nightly.nightly(shop.ws, as_of(nights[0]), recipes=[])
    assert (first.decision, first.recipe) == ("first", "popularity")
    for night in (1, 2):
        shop.land(night)
        feedback(shop.ws, nights[night])
        later = nightly.nightly(shop.ws, as_of(nights[night]), recipes=["als"])
        assert (later.decision, later.recipe) == ("refresh", "popularity")
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
    """A nightly run of Airflow, and the live lists before and after it."""

    question: Any
    run: Any
    states: dict[str, str | None]
    before: pl.DataFrame
    after: pl.DataFrame


@pytest.fixture(scope="module")
def unanswered(shop: Shop, airflow: Served) -> Night:
    """A nightly run whose review waits until its four hours are over."""
    shop.land(3)
    feedback(shop.ws, shop.nights[3])
    before = lists(shop.ws, None)
    run_id = airflow.trigger(NIGHTLY, as_of=format_instant(shop.nights[3]))
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
        line for line in shop.lines("publication") if parse_instant(line["as_of"]) <= shop.nights[3]
    ]
    assert {line["name"] for line in of_that_night} == {"popularity"}


@dataclass
class FewEvents:
    """Passes of a day with few events, and the live lists before and after them."""

    active: set[str]
    patches: list[dict[str, Any]]
    busy: dict[str, str | None]
    idle: dict[str, str | None]
    idle_processes: set[str]
    maintenance: Any
    requested: list[Any]
    before: pl.DataFrame
    after: pl.DataFrame


@pytest.fixture(scope="module")
def few_events(shop: Shop, airflow: Served, unanswered: Night) -> FewEvents:
    """A pass with the events of six users, a pass without events, then maintenance."""
    assert unanswered.run["state"] == "success"
    before, known = lists(shop.ws, None), len(shop.lines("patch"))
    text = shop.nights[3].strftime("%Y-%m-%dT%H:%M:%SZ")
    active = sorted(
        shop.events.filter(pl.col("timestamp") >= text)["user_id"].unique(maintain_order=True)[:6]
    )
    mine = shop.events.filter(pl.col("user_id").is_in(active))
    land(shop.ws.home, mine, shop.nights[3] + timedelta(days=1), shop.nights[3])
    for dag_id in (FEEDBACK, MAINTENANCE):
        airflow.unpause(dag_id)
    runs = []
    for _ in range(2):
        run_id = airflow.trigger(FEEDBACK)
        assert airflow.end(FEEDBACK, run_id)["state"] == "success"
        runs.append(airflow.states(FEEDBACK, run_id))
    return FewEvents(
        active=set(active),
        patches=shop.lines("patch")[known:],
        busy=runs[0],
        idle=runs[1],
        idle_processes=airflow.processes(FEEDBACK, run_id),
        maintenance=airflow.end(MAINTENANCE, airflow.trigger(MAINTENANCE)),
        requested=requested_runs(airflow),
        before=before,
        after=lists(shop.ws, None),
    )


def requested_runs(airflow: Served) -> list[Any]:
    """Return the nightly runs that an asset's event started.

    Airflow's list of all events is not read: it is a 500 until the runs that they made have begun.
    """
    runs = airflow.get(f"/dags/{NIGHTLY}/dagRuns", run_type="asset_triggered")["dag_runs"]
    return list(runs)


def test_a_pass_with_few_events_refreshes_their_users_and_requests_no_retrain(
    few_events: FewEvents, shop: Shop
) -> None:
    (patch,) = few_events.patches
    assert patch["base"] == shop.lines("publication")[-1]["publication_id"]
    rows = [pl.col(c.USER_ID).is_in(few_events.active), ~pl.col(c.USER_ID).is_in(few_events.active)]
    for others, before, after in zip(
        (False, True),
        map(few_events.before.filter, rows),
        map(few_events.after.filter, rows),
        strict=True,
    ):
        assert before.equals(after) is others
    assert few_events.busy["request_retrain"] == "skipped"
    assert few_events.idle.pop("ingest") == "success"
    assert set(few_events.idle.values()) == {"skipped"}
    # A task that another one skips gets no process.
    assert few_events.idle_processes == {"ingest"}
    assert few_events.requested == []
    assert few_events.maintenance["state"] == "success"


@pytest.fixture(scope="module")
def announced(shop: Shop, airflow: Served, few_events: FewEvents) -> Any:
    """The nightly run that the asset's event starts, after a pass ingested a file."""
    assert few_events.requested == []
    shop.land(4)
    # Its own pass may be due just now, and take the file before this one does.
    taken = airflow.end(FEEDBACK, airflow.trigger(FEEDBACK))
    assert taken["state"] == "success"

    return airflow.wait(
        lambda: next(iter(requested_runs(airflow)), None), lambda: "night that an event started"
    )


@pytest.fixture(scope="module")
def answered(shop: Shop, airflow: Served, announced: Any) -> Night:
    """The run that the asset started, after a user answered its review."""
    before = lists(shop.ws, None)
    run_id = announced["dag_run_id"]
    question = airflow.question(NIGHTLY, run_id)
    assert shop.lines("override") == []
    airflow.answer(NIGHTLY, run_id, SWITCH)
    run = airflow.end(NIGHTLY, run_id)
    states = airflow.states(NIGHTLY, run_id)
    return Night(question, run, states, before, lists(shop.ws, None))


def test_a_pass_with_many_events_requests_a_retrain_through_the_asset(
    airflow: Served, announced: Any, answered: Night, shop: Shop
) -> None:
    (event,) = airflow.events(NIGHTLY, announced["dag_run_id"])
    assert (event["name"], event["source_dag_id"]) == (REQUEST, FEEDBACK)
    assert [begun["run_id"] for begun in event["created_dagruns"]] == [announced["dag_run_id"]]
    assert answered.run["run_type"] == "asset_triggered"
    assert answered.run["logical_date"] is None
    newest = shop.lines("decision")[-1]
    assert newest["as_of"] == format_instant(parse_instant(answered.run["run_after"]))
    requested = read_policy(shop.ws.run(newest["run_id"]))
    assert requested is not None and requested.reason.startswith("retrain requested: ")


def test_a_users_answer_switches_and_the_lists_go_live(answered: Night, shop: Shop) -> None:
    assert answered.run["state"] == "success"
    assert set(answered.states.values()) == {"success"}
    assert answered.states["accept"] == "success"
    (override,) = shop.lines("override")
    assert (override["kind"], override["recipe"]) == ("switch", "als")
    assert (override["by"], override["reason"]) == ("admin", "answered in Airflow")
    published = shop.lines("publication")[-1]
    assert (published["name"], published["run_id"]) == ("als", override["run_id"])
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
    opener = build_opener(HTTPCookieProcessor())
    ports = (airflow.port, airflow.mlflow_port)
    for port, password in zip(ports, airflow.passwords, strict=True):
        address = f"http://127.0.0.1:{port}/?login={password}"
        assert address in airflow.output
        with opener.open(address, timeout=30) as page:
            assert page.status == 200
            assert password not in page.url
    listening = set().union(*map(_listening, airflow.family()))
    assert listening == {("127.0.0.1", airflow.port), ("127.0.0.1", airflow.mlflow_port)}


def test_an_interrupt_stops_everything(airflow: Served) -> None:
    family = airflow.family()
    assert len(family) > 5

    assert airflow.stop() == 0, airflow.output
    _, alive = psutil.wait_procs(family, timeout=3)
    assert alive == []
