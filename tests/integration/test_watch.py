"""Attribution, drift, policy and retrain requests on a real workspace."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import polars as pl
import pytest

from pipeline.base import Interval, plain
from pipeline.report.attribution import attribution_table
from pipeline.steps.feedback.attribution import read_attribution, run_attribution, show_attribution
from pipeline.steps.feedback.drift import drift, read_drift
from pipeline.steps.feedback.feedback import feedback, is_idle
from pipeline.steps.feedback.policy import drift_if_needed, policy, read_policy
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.nightly.requested import start_requested
from pipeline.workspace.artifacts import SnapshotFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import DriftSummary
from pipeline.workspace.night import open_night
from pipeline.workspace.registry import registry
from pipeline.workspace.release_artifacts import AttributionFile, MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, START, copy_of, land, purchases

HOUR = timedelta(hours=1)


@pytest.fixture
def copy(one_night, tmp_path):
    """The workspace after its first night, for a test that changes it."""
    return Workspace.open(copy_of(one_night[0], tmp_path / "home"))


def with_settings(ws: Workspace, text: str) -> Workspace:
    toml = ws.home / "nightjar.toml"
    toml.write_text(f"{toml.read_text()}\n{text}\n")
    return Workspace.open(ws.home)


def fed(ws: Workspace):
    """Two more weeks land and are taken in."""
    land(ws.home, purchases(), NIGHTS[1], NIGHTS[0])
    return feedback(ws, NIGHTS[1])


def test_responses_are_joined_to_the_lists_that_were_live(copy, one_night):
    fed(copy)
    result = run_attribution(copy, NIGHTS[0], NIGHTS[1])
    printed = json.loads(json.dumps(plain(result), allow_nan=False))
    rows = {(row["by"], row["name"]): row for row in printed["rows"]}
    all_users = rows["all", "all"]
    events = purchases().filter(
        pl.col("timestamp").is_between(
            pl.lit(f"{NIGHTS[0]:%FT%TZ}"), pl.lit(f"{NIGHTS[1]:%FT%TZ}"), closed="left"
        )
    )
    assert (printed["events"], printed["users"]) == (events.height, events["user_id"].n_unique())
    assert all_users["users"] == printed["users"]
    assert 0 < printed["joined"] <= printed["events"] and printed["unshown"] == 0
    assert all_users["purchases"] == all_users["responses"] > 100
    assert all_users["clicks"] == 0 and all_users["ctr"] == 0.0
    assert (
        all_users["visitor_hit_rate_lo"]
        < all_users["visitor_hit_rate"]
        < all_users["visitor_hit_rate_hi"]
    )
    # The run keeps ten spare entries behind the twenty shown ones.
    for effect in result.shown_effects:
        assert effect.users == all_users["users"] and effect.entries >= 2 * effect.users
        assert -1 < effect.added_lo < effect.added < effect.added_hi < 1
    assert [effect.rate for effect in result.shown_effects] == ["response_rate", "visitor_hit_rate"]
    assert all_users["visitor_hit_rate"] == all_users["responses"] / all_users["exposures"]
    assert rows["version", "1"]["exposures"] == all_users["exposures"]
    assert ("recipe", one_night[1].recipe) in rows and ("position", "20") in rows
    # What a list puts first is taken more often than what it puts last.
    assert rows["position", "1"]["visitor_hit_rate"] > rows["position", "20"]["visitor_hit_rate"]
    text = attribution_table(result)
    assert (
        "by" in text.splitlines()[0] and "responded to a list that was live within 7 days" in text
    )


def test_before_the_first_publication_no_event_is_a_response(copy):
    result = run_attribution(copy, NIGHTS[0] - timedelta(days=9), NIGHTS[0])
    assert result.events == result.unshown > 0
    assert (result.joined, result.rows) == (0, ())
    empty = run_attribution(copy, NIGHTS[0] + 99 * HOUR, NIGHTS[0] + 100 * HOUR)
    assert (empty.events, empty.users, empty.rows) == (0, 0, ())


def test_an_end_before_its_start_is_refused(copy):
    with raises("interval.reversed"):
        run_attribution(copy, NIGHTS[1], NIGHTS[0])


def test_drift_is_computed_on_whole_days_at_the_hour_of_the_last_night(copy):
    fed(copy)
    late = drift(copy, NIGHTS[1] + 7 * HOUR)
    assert late.end == NIGHTS[1]
    names = {signal.name for signal in late.signals}
    assert {"data.volume", "taste.items", "taste.popularity", "quality.ndcg"} <= names
    assert late == drift(copy, NIGHTS[1] + 8 * HOUR)
    assert late.status == "stable", late.sentence
    quality = next(x for x in late.signals if x.name == "quality.ndcg")
    assert quality.status == "too_short" and "0 nightly runs" in quality.sentence


@pytest.fixture
def new(tmp_path):
    """A workspace without a run."""
    return Workspace.init(tmp_path / "home", CONFIG)


def test_the_first_night_is_requested_once_enough_users_can_be_evaluated(new):
    assert policy(new, NIGHTS[0]).action == "skip"  # the lake has no event
    few = START + timedelta(days=5)
    land(new.home, purchases(), few)
    early = feedback(new, few)
    assert early.action == "fold_in" and "0 users can be evaluated, 200 are needed" in early.reason
    enough = START + timedelta(days=16)
    land(new.home, purchases(), enough, few)
    assert feedback(new, enough).action == "retrain"
    started = start_requested(new, enough + HOUR)
    trigger = new.run(started.run_id).read(SnapshotFile).trigger
    assert (started.status, trigger.policy.cause) == ("new", "first")
    # The run in progress is waited for.
    assert policy(new, enough + 2 * HOUR).action == "fold_in"


def test_a_small_shop_gets_its_first_night_four_weeks_after_its_first_event(new):
    small = purchases().filter(pl.col("user_id").is_in([f"u{n}" for n in range(40)]))
    due = START + timedelta(days=28)
    land(new.home, small, due)
    assert feedback(new, due - HOUR).action == "fold_in"
    first = policy(new, due + 20 * HOUR)
    assert first.wanted and first.reason.endswith(" it does not wait for 200")
    # After a week without an event the run would have nothing to do.
    silent = policy(new, due + timedelta(days=8))
    assert silent.cause == "first" and not silent.wanted
    assert silent.reason.endswith("but the last 7 days have no event")


@pytest.mark.parametrize("mode", ["nightly", "adaptive"])
def test_a_pass_without_files_is_idle_unless_it_requests_a_retrain(copy, mode):
    text = f'[policy]\nmin_new_events = 1000\n[schedule]\nmode = "{mode}"'
    copy = with_settings(copy, text)
    assert is_idle(copy, NIGHTS[1])
    land(copy.home, purchases(), NIGHTS[1], NIGHTS[0])
    ingest_landed(copy, NIGHTS[1])
    # A pass that ended after its ingest left users without lists.
    assert not is_idle(copy, NIGHTS[1])
    assert copy.lake.read("publications")["base"].count() == 1
    assert is_idle(copy, NIGHTS[1]) is (mode == "nightly")


def test_drift_is_not_computed_where_it_could_change_nothing(copy):
    assert drift_if_needed(copy, NIGHTS[1]) is None  # nothing is new
    assert policy(copy, NIGHTS[1]).action == "skip"
    land(copy.home, purchases(), NIGHTS[0] + 19 * HOUR, NIGHTS[0])
    at = NIGHTS[0] + 19 * HOUR
    result = feedback(copy, at)
    assert drift_if_needed(copy, at) is None  # a night was just there
    assert result.action == "fold_in" and "20 hours must pass" in result.reason
    assert drift_if_needed(copy, at + HOUR) is not None


def test_a_flood_of_one_user_causes_no_retrain(copy):
    copy = with_settings(copy, "[policy]\nmin_new_events = 1000\nmin_new_share = 1.0")
    day = NIGHTS[0] + 30 * HOUR
    rows = {
        "event_id": [f"flood{n}" for n in range(20_000)],
        "user_id": ["u1"] * 20_000,
        "item_id": [f"i{n % 160}" for n in range(20_000)],
        "value": ["1"] * 20_000,
        "timestamp": [f"{day - (n + 1) * HOUR:%FT%TZ}" for n in range(20_000)],
    }
    flood = pl.DataFrame(rows).with_columns(
        pl.when(pl.col("timestamp") < "2024-01-02").then(pl.lit(f"{day - HOUR:%FT%TZ}"))
        .otherwise("timestamp").alias("timestamp")
    )  # fmt: skip
    land(copy.home, flood, day)
    result = feedback(copy, day)
    assert result.accepted == 20_000
    assert result.action == "fold_in"
    assert "20,000 new events, of which 100 count" in result.reason
    land(copy.home, purchases(), NIGHTS[1], NIGHTS[0])
    assert feedback(copy, NIGHTS[1]).action == "retrain"


def runs(ws: Workspace) -> list[str]:
    return [run.run_id for run in ws.runs.starting_with("")]


def test_a_request_finds_its_night_and_a_second_one_finds_nothing_left(copy):
    """The asset's event comes twice: one night begins, and records its trigger."""
    copy = with_settings(copy, "[policy]\nmin_new_events = 1000")
    assert fed(copy).action == "retrain"
    first = start_requested(copy, NIGHTS[1] + HOUR)
    assert first.status == "new"
    trigger = copy.run(first.run_id).read(SnapshotFile).trigger
    assert trigger.policy.reason.startswith("retrain requested: ")
    assert trigger.drift.status == "stable"
    before = runs(copy)
    # The doubled one is due moments later, as Airflow has it, or for the same instant, or earlier.
    again = start_requested(copy, NIGHTS[1] + HOUR + timedelta(seconds=2))
    assert again.status == "nothing_to_do"
    assert "20 hours must pass after the run of 2024-03-25T10:00:00Z" in again.sentence
    assert start_requested(copy, NIGHTS[1]).status == "superseded"
    assert "2024-03-25T10:00:00Z is in progress" in start_requested(copy, NIGHTS[1]).sentence
    assert start_requested(copy, NIGHTS[1] + HOUR).run_id == first.run_id  # its own retry goes on
    assert runs(copy) == before


def test_a_request_for_a_night_that_is_done_is_superseded(two_nights, tmp_path):
    copy = Workspace.open(copy_of(two_nights[0], tmp_path / "home"))
    before = runs(copy)
    for at in (NIGHTS[1], NIGHTS[1] - HOUR):
        outcome = start_requested(copy, at)
        assert outcome.status == "superseded" and "has decided" in outcome.sentence
    late = start_requested(copy, NIGHTS[1] + HOUR)
    assert late.status == "nothing_to_do" and late.sentence.startswith("no retrain")
    assert runs(copy) == before


def test_a_request_for_nothing_begins_nothing(copy):
    outcome = start_requested(copy, NIGHTS[1])
    assert outcome.status == "nothing_to_do"
    assert outcome.sentence.startswith("no retrain: 0 new events")
    assert outcome.run_id == ""


def test_a_request_that_got_lost_is_made_again_by_the_next_pass(copy):
    """Five minutes later, without new files, the retrain is requested again."""
    copy = with_settings(copy, "[policy]\nmin_new_events = 1000")
    assert fed(copy).action == "retrain"
    for minutes in (5, 10):
        result = feedback(copy, NIGHTS[1] + timedelta(minutes=minutes))
        assert (result.files, result.action) == (0, "retrain")


def test_after_a_night_without_a_request_no_retrain_is_due(two_nights):
    """Without any request, the scheduled night used all events."""
    assert policy(Workspace.open(two_nights[0]), NIGHTS[1] + 30 * HOUR).action == "skip"


def test_while_a_night_is_at_work_a_request_waits_for_it(copy):
    copy = with_settings(copy, "[policy]\nmin_new_events = 1000")
    fed(copy)
    held, free = threading.Event(), threading.Event()

    def work():
        with Workspace.open(copy.home).lake.lock("night"):
            held.set()
            free.wait(60)

    other = threading.Thread(target=work)
    other.start()
    try:
        assert held.wait(60)
        outcome = start_requested(copy, NIGHTS[1])
    finally:
        free.set()
        other.join()
    assert outcome.status == "nothing_to_do" and "another run is in progress" in outcome.sentence
    assert start_requested(copy, NIGHTS[1]).status == "new"


def test_two_requests_at_once_begin_one_night(copy):
    copy = with_settings(copy, "[policy]\nmin_new_events = 1000")
    fed(copy)
    before, outcomes = runs(copy), []

    def ask(seconds):
        ws = Workspace.open(copy.home)
        outcomes.append(start_requested(ws, NIGHTS[1] + timedelta(seconds=seconds)))

    both = [threading.Thread(target=ask, args=(seconds,)) for seconds in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(runs(copy)) == len(before) + 1
    assert sorted(one.status for one in outcomes)[0] == "new"
    assert {one.status for one in outcomes} <= {"new", "nothing_to_do", "superseded"}
    assert len(outcomes) == 2 and [one.status for one in outcomes].count("new") == 1


def test_a_night_keeps_the_attribution_and_records_it_at_the_version(two_nights):
    from mlflow import MlflowClient

    home, first, second = two_nights
    ws = Workspace.open(home)
    run = ws.run(second.run_id)
    attribution = read_attribution(run)
    assert attribution.span == Interval(*NIGHTS[:2])
    # Computed again after the second publication it is the same.
    assert run_attribution(ws, *NIGHTS[:2]) == attribution
    all_users = next(row for row in attribution.rows if row.by == "all")
    entry = LedgerHistory.of(ws.ledger).last_decision()
    assert entry.run_id == second.run_id
    assert entry.attribution.response_rate == all_users.response_rate > 0
    assert entry.attribution.joined == attribution.joined
    assert entry.drift == DriftSummary(status="stable", sentence=read_drift(run).sentence, since={})
    assert entry.trigger == read_policy(run)
    assert entry.trigger.action == "retrain"  # by its size: the night ran by hand
    page = (run.folder / "page.html").read_text()
    for part in ("<h2>Attribution of events to lists</h2>", "<h2>Drift</h2>"):
        assert part in page
    assert entry.trigger.reason[1:] in page  # it starts with a capital on the page
    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    shown = run.read(MlflowFile).run
    night = client.get_run(shown).data
    policy = night.tags["nightjar.policy"]
    assert policy.startswith("started without a request") and policy.endswith(entry.trigger.reason)
    assert night.tags["mlflow.note.content"] == f"{second.sentence}\n\n{policy}"
    assert night.metrics["drift/taste.items"] == pytest.approx(
        next(x.figure for x in read_drift(run).signals if x.name == "taste.items")
    )
    added = attribution.shown_effects[0]
    assert night.metrics["attribution/added_response_rate"] == pytest.approx(added.added)
    versions = client.search_model_versions("name = 'nightjar'")
    [one] = [x for x in versions if str(x.version) == first.model_version]
    assert one.run_id is not None
    [metric] = client.get_metric_history(one.run_id, "attribution/visitor_hit_rate")
    assert metric.value == pytest.approx(all_users.visitor_hit_rate)
    assert (metric.step, metric.timestamp) == (14, round(NIGHTS[1].timestamp() * 1000))
    # Recorded again, it is there once.
    show_attribution(open_night(ws, second.run_id), registry(ws))
    assert len(client.get_metric_history(one.run_id, "attribution/visitor_hit_rate")) == 1


def test_the_first_night_has_no_attribution_and_a_reference_that_is_enough(one_night):
    home, first = one_night
    run = Workspace.open(home).run(first.run_id)
    assert read_attribution(run) is None and run.has(AttributionFile)
    assert read_drift(run).status == "stable"
    assert read_policy(run).reason.startswith("retrain requested: the first run: 3")


@pytest.mark.parametrize(
    "command",
    [
        ["attribution", "--to", "2999-01-01T00:00:00Z"],
        ["drift", "--at", "2999-01-01T00:00:00Z"],
        ["fold-in", "--at", "2999-01-01T00:00:00Z"],
        ["policy", "--at", "2999-01-01T00:00:00Z"],
        ["backtest", "--from", "2024-01-01T00:00:00Z", "--to", "2999-01-01T00:00:00Z"],
        ["nightly", "--as-of", "2999-01-01T00:00:00Z"],
        ["snapshot", "--as-of", "2999-01-01T00:00:00Z"],
    ],
)
def test_an_instant_in_the_future_is_refused(command, one_night, capsys):
    from pipeline.cli.app import app

    with raises("instant.future"):
        app([*command, "--home", str(one_night[0])], standalone_mode=False)


@pytest.mark.parametrize(
    "command", [["drift", "--at"], ["policy", "--at"], ["attribution", "--to"]]
)
def test_an_instant_before_all_events_is_refused(command, one_night):
    from pipeline.cli.app import app

    with raises("instant.too_early"):
        home = str(one_night[0])
        app([*command, "0001-01-01T00:00:00Z", "--home", home], standalone_mode=False)


def test_the_commands_print_one_json_object(one_night, capsys):
    from pipeline.cli.app import app

    at = f"{NIGHTS[0]:%FT%TZ}"
    for command, key in (
        (["attribution", "--to", at], "rows"),
        (["drift", "--at", at], "signals"),
        (["policy", "--at", at], "action"),
    ):
        app([*command, "--home", str(one_night[0]), "--json"], standalone_mode=False)
        assert key in json.loads(capsys.readouterr().out)
        app([*command, "--home", str(one_night[0])], standalone_mode=False)
        assert capsys.readouterr().out.strip()
