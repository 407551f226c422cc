"""The loop on a small shop: what a user relies on, from files to lists."""

import json
import os
import re
from datetime import timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval, format_instant, plain, silent
from pipeline.errors import RegistryError
from pipeline.evaluation.prequential import PrequentialFigures
from pipeline.report.night import NightPage
from pipeline.steps.diagnostics import churn as churned
from pipeline.steps.diagnostics.churn import churn_metrics, measure
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.diagnostics.live_quality import live_history, live_summary, score
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly import cold_check as cold_check_module
from pipeline.steps.nightly.cold_check import cold_check
from pipeline.steps.nightly.gate import gate
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.refit import refit
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.reporting.comparison_rows import lift_rows
from pipeline.steps.reporting.night_page import build_page
from pipeline.steps.reporting.page_files import page_files
from pipeline.workspace.artifacts import (
    ChurnFile,
    CleanFile,
    DecisionFile,
    FollowedParityFile,
    LiveFile,
    MlflowFile,
    ParityFile,
    SeedNoise,
    SplitFile,
    ValidationFile,
)
from pipeline.workspace.night import open_night
from pipeline.workspace.registry import registry
from pipeline.workspace.run_files import read_split
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, copy_of, land, purchases


def outcome(ws):
    """Everything that must not depend on whether the process was killed on the way."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    shown = lists(ws, None).select(c.USER_ID, c.POSITION, c.ITEM_ID, c.SLOT)
    entries = [
        entry.model_dump(mode="json", exclude={"previous", "sha256", "decision"})
        for entry in history(ws)
    ]
    events = ws.lake.read("events").drop(c.USER_ID, c.BATCH_ID).sort(c.EVENT_ID)
    return publications.drop(c.SUMS), shown, entries, events


def page_of(run):
    """The content of a run's page, as it lies beside it."""
    return NightPage.parse(page_files(run)["page.json"].read_bytes(), "page.json")


@pytest.fixture
def shop(two_nights):
    return two_nights


@pytest.fixture
def copy(shop, tmp_path):
    return Workspace.open(copy_of(shop[0], tmp_path / "home"))


def test_the_first_night_promotes_what_learns_and_refuses_what_is_mad(shop):
    _, first, _ = shop
    assert (first.status, first.decision, first.recipe) == ("done", "first", "als")
    assert first.exit_code == 0
    assert first.model_version == "1"
    ndcg = first.metrics["ndcg_at_20"]
    assert ndcg.candidate > 1.2 * ndcg.baseline > 0
    assert "mad" in first.sentence


def test_the_page_calls_proved_what_the_gate_took_for_proved(shop):
    home, first, _ = shop
    night = open_night(Workspace.open(home), first.run_id)
    rows = {row.name: row for row in lift_rows(night, "decayed_popularity", ())}
    rules = [
        rule
        for rule in night.run.read(DecisionFile).root.rules
        if rule.subject == "als" and rule.name == "first.lift.decayed_popularity"
    ]
    assert [rule.figure for rule in rules] == [rows["als"].lift]
    assert {name for name, row in rows.items() if row.proved} == {"als"}


def test_the_second_night_refreshes_on_newer_data(shop):
    _, first, second = shop
    assert (second.decision, second.recipe, second.model_version) == ("refresh", "als", "2")
    assert second.publication_id != first.publication_id


def test_lists_are_complete_honest_and_in_raw_ids(shop):
    ws = Workspace.open(shop[0])
    rows = lists(ws, None)
    people = rows.filter(pl.col(c.USER_ID) != c.ANYONE)
    assert people[c.USER_ID].n_unique() == 320
    assert people.group_by(c.USER_ID).len()["len"].unique().to_list() == [20]
    assert people[c.USER_ID].str.starts_with("u").all()
    sold_out = {f"i{n}" for n in range(9, 160, 10)}
    assert not set(rows[c.ITEM_ID]) & sold_out
    bought = purchases().filter(pl.col("timestamp") < format_instant(NIGHTS[1]))
    had = set(bought.select("user_id", "item_id").rows())
    assert not had & set(people.select(c.USER_ID, c.ITEM_ID).rows())


def test_a_stranger_gets_the_fallback_and_is_told_so(shop):
    rows = lists(Workspace.open(shop[0]), ["u1", "never-seen"])
    slots = dict(rows.select(c.USER_ID, c.SLOT).unique().rows())
    assert slots == {"u1": "model", "never-seen": "fallback"}


def test_a_second_start_of_a_night_is_already_done(copy):
    before = outcome(copy)
    again = nightly(copy, NIGHTS[1])
    assert again.status == "already_done"
    assert again.exit_code == 0
    for was, now in zip(before, outcome(copy), strict=True):
        assert (was.equals(now)) if isinstance(was, pl.DataFrame) else was == now


def test_more_data_do_not_change_a_night_that_was_pinned(copy):
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(copy, NIGHTS[2])
    assert nightly(copy, NIGHTS[1]).status == "already_done"


def test_a_replay_moves_nothing(copy):
    before = outcome(copy)
    replayed = nightly(copy, NIGHTS[0], recipes=["als"])
    assert replayed.status == "replay"
    assert replayed.decision == "first"
    publications, shown, told, _ = outcome(copy)
    assert publications.equals(before[0])
    assert shown.equals(before[1])
    assert told == before[2]
    aliases = registry(copy).aliases()
    assert aliases["champion"] == 2


def test_a_night_that_must_not_publish_publishes_nothing(copy):
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(copy, NIGHTS[2])
    before = outcome(copy)
    quiet = nightly(copy, NIGHTS[2], publish=False)
    assert quiet.decision == "refresh"
    assert outcome(copy)[0].equals(before[0])
    assert outcome(copy)[1].equals(before[1])


def test_the_ledger_tells_both_nights(shop):
    entries = history(Workspace.open(shop[0]))
    assert [(e.type, getattr(e, "kind", None)) for e in entries] == [
        ("decision", "first"),
        ("publication", None),
        ("patch", None),  # what was done since was folded in before the second night
        ("decision", "refresh"),
        ("publication", None),
    ]
    text = json.dumps(plain(entries))
    vault = Workspace.open(shop[0]).vault.lookup(["u1", "u2"])
    assert not any(pseudonym in text for pseudonym in vault.values())


def test_aliases_follow_what_is_live(shop):
    assert registry(Workspace.open(shop[0])).aliases() == {"champion": 2, "previous": 1}


def test_cleaning_is_done_and_counted(workspace, tmp_path):
    home = tmp_path / "cleaned"
    policies = (
        '[clean.items.price]\nmissing = "median"\noutliers = "clip"\nmaximum = 100.0\n'
        '[clean.users.segment]\nmissing = "constant"\nconstant = "unknown"\n'
    )
    ws = workspace(home, CONFIG + policies)
    land(home, purchases(), NIGHTS[0])
    items = home / "landing" / "items" / "items.csv"
    items.write_text("item_id,price\ni1,10\ni2,\ni3,5000\n")
    users = home / "landing" / "users" / "users.csv"
    users.write_text("user_id,segment\nu1,student\nu2,\n")
    for path in (items, users):
        os.utime(path, (NIGHTS[0].timestamp() - 9, NIGHTS[0].timestamp() - 9))
    assert not feedback(ws, NIGHTS[0]).failed
    ended = nightly(ws, NIGHTS[0])
    run = ws.run(ended.run_id)
    prices = run.frame("features", "items").sort(c.ITEM_ID)[c.PRICE].to_list()
    assert prices == [10.0, 55.0, 100.0]
    cleaning = run.read(CleanFile)
    assert cleaning.items.columns[0].filled == cleaning.items.columns[0].above == 1
    assert cleaning.users.columns[0].filled == 1
    logged = mlflow_metrics(ws, run.read(MlflowFile).run)
    assert logged["clean.items.price.filled"] == 1.0
    assert logged["clean.events.rows_in"] > 5000


def mlflow_metrics(ws, run_id):
    from mlflow import MlflowClient

    return MlflowClient(ws.tracking_uri, ws.tracking_uri).get_run(run_id).data.metrics


COST = ("fit_seconds", "fit_cpu_seconds", "peak_mb", "parameters", "examples_per_second")


def test_what_training_took_is_in_json_mlflow_and_on_the_page(shop):
    home, first, _ = shop
    ws = Workspace.open(home)
    told = plain(first)["cost"]
    assert set(told) == {"popularity", "decayed_popularity", "als", "mad"}  # nobody may repeat
    assert [name for name in told if "refit" in told[name]] == ["als"]
    run, als = ws.run(first.run_id), told["als"]
    window = len(run.arrays("features", "train")["item"])
    assert als["examples_per_second"] == pytest.approx(window / als["fit_seconds"])
    assert als["parameters"] > 8 * (300 + 150) > told["mad"]["parameters"]
    assert als["trained_on"] == als["refit"]["trained_on"] == "cpu"
    runs = mlflow_children(ws, first.run_id)
    for name, cost in told.items():
        shown = runs[name].data.metrics
        assert {key: shown[key] for key in COST} == {key: cost[key] for key in COST}
        assert runs[name].data.tags["nightjar.trained_on"] == cost["trained_on"]
    refit = {key: runs["als"].data.metrics[f"refit.{key}"] for key in COST}
    assert refit == {key: als["refit"][key] for key in COST}
    tags = version_tags(ws, first.model_version)
    assert int(tags["nightjar.parameters"]) == als["refit"]["parameters"]
    assert tags["nightjar.trained_on"] == "cpu"
    page = (run.folder / "page.html").read_text()
    assert "What training took" in page and f"{als['parameters']:,}" in page
    assert "cost: 4 recipes in " in first.text() and "; refit: " in first.text()


def test_a_second_look_tells_the_same_cost(copy, shop):
    assert nightly(copy, NIGHTS[1]).cost == shop[2].cost != {}


def test_a_recipe_that_memory_cannot_hold_is_left_out(copy):
    toml = copy.home / "nightjar.toml"
    wide = '[recipes.wide]\nfamily = "als"\nfactors = 1024\ntune = ["alpha"]\n'
    toml.write_text(toml.read_text() + wide + "[train]\nmemory_gb = 0.004\n")
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    ws = Workspace.open(copy.home)
    feedback(ws, NIGHTS[2])
    told = []
    ended = nightly(ws, NIGHTS[2], progress=told.append)
    assert not [text for text in told if text.startswith("train wide")]  # nor are its alphas tried
    assert [text for text in told if text.startswith("train als")]
    assert ended.decision == "refresh"
    assert set(ended.failures) == {"wide"}
    assert ended.failures["wide"].startswith("wide: training needs about ")
    assert "the limit is 4.1 MB (train.memory_gb)" in ended.failures["wide"]
    assert "wide" not in ended.cost


def test_a_champion_that_memory_cannot_hold_stops_the_night(copy, monkeypatch):
    monkeypatch.setenv("NIGHTJAR__TRAIN__MEMORY_GB", "0.0001")
    ws = Workspace.open(copy.home)
    land(ws.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(ws, NIGHTS[2])
    with raises("memory.recipe_too_large"):
        nightly(ws, NIGHTS[2])


def mlflow_artifacts(ws, run_id):
    from mlflow import MlflowClient

    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    parent = ws.run(run_id).read(MlflowFile).run
    return {file.path.rpartition("/")[2] for file in client.list_artifacts(parent)}


def mlflow_children(ws, run_id):
    from mlflow import MlflowClient

    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    experiment = client.get_experiment_by_name("nightjar").experiment_id
    found = client.search_runs([experiment], f"tags.`nightjar.run_id` = '{run_id}'")
    return {run.data.tags["nightjar.recipe"]: run for run in found}


def version_tags(ws, version):
    from mlflow import MlflowClient

    return (
        MlflowClient(ws.tracking_uri, ws.tracking_uri).get_model_version("nightjar", version).tags
    )


def test_a_night_that_lacked_a_file_is_another_night_with_it(workspace, tmp_path):
    ws = workspace(tmp_path / "late", CONFIG)
    events = purchases()
    land(ws.home, events, NIGHTS[0] - timedelta(days=1))
    feedback(ws, NIGHTS[0])
    with raises("validate.failed"):
        nightly(ws, NIGHTS[0])
    with raises("validate.failed"):
        nightly(ws, NIGHTS[0])
    assert len(ws.runs.starting_with("")) == 1
    land(ws.home, events, NIGHTS[0], NIGHTS[0] - timedelta(days=1))
    feedback(ws, NIGHTS[0])
    assert decide(ws, NIGHTS[0])[1].kind == "first"


def test_an_instant_is_exact_to_the_microsecond(copy):
    started = snapshot(copy, NIGHTS[1].replace(microsecond=500_000))
    assert started.status == "new"
    assert started.run_id != nightly(copy, NIGHTS[1]).run_id


def test_where_mlflow_is_makes_no_other_night(copy, monkeypatch):
    monkeypatch.setenv("NIGHTJAR__REGISTRY__TRACKING_URI", "http://127.0.0.1:1")
    elsewhere = Workspace.open(copy.home)
    assert elsewhere.tracking_uri == "http://127.0.0.1:1"
    assert nightly(elsewhere, NIGHTS[1]).status == "already_done"


def test_a_device_makes_no_other_recipe(copy):
    toml = copy.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('family = "als"', 'family = "als"\ndevice = "cpu"'))
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    ws = Workspace.open(copy.home)
    feedback(ws, NIGHTS[2])
    started = snapshot(ws, NIGHTS[2])
    assert set(started.recipes) == {
        "popularity",
        "decayed_popularity",
        "personal_frequency",
        "als",
        "mad",
    }


def test_the_task_is_inferred_once(copy):
    """What `auto` found for the champion stays, and another task's figures are no measure."""
    toml = copy.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('task = "discovery"', 'task = "auto"'))
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    ws = Workspace.open(copy.home)
    feedback(ws, NIGHTS[2])
    run_id, decided = decide(ws, NIGHTS[2])
    assert ws.run(run_id).read(SplitFile).task == "discovery"
    assert decided.kind == "refresh"


def test_new_events_are_those_no_night_has_seen(copy):
    told = feedback(copy, NIGHTS[1])
    assert told.reason.startswith("no retrain: 0 new events")
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    told = feedback(copy, NIGHTS[2])
    assert f"{told.events:,} new events" in told.reason
    assert told.events > 1000


def test_nothing_to_do_after_a_silent_week(copy):
    late = NIGHTS[1].replace(month=6)
    ended = nightly(copy, late)
    assert ended.status == "nothing_to_do"
    assert ended.exit_code == 0
    assert "2024-03-" in ended.sentence


def test_an_as_of_before_all_data(copy):
    with raises("split.no_event"):
        nightly(copy, NIGHTS[0].replace(year=2020))


def test_a_recipe_that_is_not_configured(copy):
    with raises("recipe.unknown"):
        nightly(copy, NIGHTS[2], recipes=["alz"])


def test_mlflow_away_loses_nothing(copy, monkeypatch):
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(copy, NIGHTS[2])
    away = copy.home / "mlflow"
    away.rename(copy.home / "elsewhere")
    away.write_text("in the way")
    with pytest.raises(RegistryError):
        nightly(copy, NIGHTS[2])
    assert history(copy)[-1].type == "decision"  # and not published
    away.unlink()
    (copy.home / "elsewhere").rename(away)
    ended = nightly(copy, NIGHTS[2])
    assert (ended.status, ended.decision, ended.model_version) == ("done", "refresh", "3")
    assert registry(copy).aliases() == {"champion": 3, "previous": 2}


def test_a_night_has_one_page_which_knows_what_changes_for_people(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    last = page_files(ws.run(second.run_id))
    assert {path.parent.name for name, path in last.items() if ".svg" in name} == {"cold_check"}
    for ended in (first, second):
        folder = ws.run(ended.run_id).folder
        assert [path.parent for path in folder.rglob("page.html")] == [folder]
        assert page_files(ws.run(ended.run_id))["page.html"] == folder / "page.html"
    assert {"page.html", "page.json", "churn.svg", "live.svg", "metric.svg"} <= set(last)
    told = page_of(ws.run(second.run_id))
    assert [(row.as_of, row.kind) for row in told.past] == [
        (NIGHTS[0], "first"),
        (NIGHTS[1], second.decision),
    ]
    assert all(row.mean and row.lift > 0 for row in told.past)
    churn = ws.run(second.run_id).read(ChurnFile)
    assert told.churn == ((NIGHTS[1], churn),)
    assert {as_of for as_of, _ in told.live} == {NIGHTS[1]}
    assert "mad" in {row.recipe for row in told.decision.e_processes}
    assert {row.name for row in told.slices} >= {"cold", "warm", "hot"}
    assert {"als", "popularity"} <= set(told.costs)
    html = last["page.html"].read_text()
    assert html.count("<svg ") == sum(name.endswith(".svg") for name in last)
    assert "What changed for people who did nothing" in html
    names = mlflow_artifacts(ws, second.run_id)
    assert set(last) <= names
    # The first one changed nothing for anybody: its page is drawn from the gate's rows.
    only = page_files(ws.run(first.run_id))
    assert {path.parent.name for name, path in only.items() if ".svg" in name} == {"gate"}


def test_a_page_that_is_gone_or_old_is_drawn_as_it_was(copy, shop):
    run = copy.run(shop[2].run_id)
    names = ("page.html", "page.json")
    was = {name: (run.folder / name).read_bytes() for name in names}
    assert was["page.json"] == run.bytes("cold_check", "page.json")
    assert was["page.json"] != run.bytes("gate", "page.json")
    (run.folder / "page.html").unlink()
    (run.folder / "page.json").write_text("old")
    gate(copy, run.run_id)  # as a retry does it
    assert {name: (run.folder / name).read_bytes() for name in names} == was
    assert not list(run.folder.glob(".page*"))


def test_before_lists_are_made_the_page_shows_no_other_nights_churn_as_its_own(copy):
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(copy, NIGHTS[2])
    run_id, found = decide(copy, NIGHTS[2])
    assert found.kind == "refresh"
    run = copy.run(run_id)
    at_the_gate = (run.folder / "page.html").read_text()
    titles = [text for text in labels(at_the_gate) if "idle people" in text]
    assert len(titles) == 1 and titles[0].startswith(f"When lists changed on {NIGHTS[1].day} ")
    refit(copy, run_id)
    cold_check(copy, run_id)
    page = (run.folder / "page.html").read_text()
    told = [text for text in labels(page) if "idle people" in text]
    assert len(told) == 1 and re.match(r"\d+ % of what idle people see", told[0])
    assert [path.parent for path in run.folder.rglob("page.html")] == [run.folder]


def test_a_promotion_that_the_cold_check_stops_is_told_as_blocked(copy, monkeypatch):
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(copy, NIGHTS[2])
    run_id, found = decide(copy, NIGHTS[2])
    assert found.kind == "refresh"
    refit(copy, run_id)
    monkeypatch.setattr(
        cold_check_module, "MIN_OVERLAP", 1.1
    )  # no list can be so like the live one
    monkeypatch.setattr(cold_check_module, "_MIN_IDLE_USERS", 1)
    for _ in range(2):  # asked again, it says the same
        with raises("cold_check.failed"):
            cold_check(copy, run_id)
        page = (copy.run(run_id).folder / "page.html").read_text()
        assert "the cold check did not" in page and "Blocked" in page
        assert "goes live" not in page


def labels(html):
    return re.findall(r'aria-label="([^"]*)"', html)


def test_what_was_checked_of_the_data_stands_among_the_rules_with_its_figures(shop):
    run = Workspace.open(shop[0]).run(shop[2].run_id)
    checks = run.read(ValidationFile).checks
    known = {f"check.{x.name}": (x.figure, x.bound) for x in checks}
    rules = run.read(DecisionFile).root.rules
    told = {x.name: (x.figure, x.bound) for x in rules if x.name in known}
    assert told == known
    assert sum(None not in pair for pair in told.values()) > 3
    rows = page_of(run).decision.rules
    assert {x.name: (x.figure, x.bound) for x in rows if x.name in known} == known


def test_a_page_of_an_earlier_night_says_what_it_said(copy, shop):
    night = open_night(copy, shop[1].run_id)
    page = build_page(night, night.run.read(DecisionFile).root)
    assert page.plain() == json.loads(night.run.bytes("gate", "page.json"))


def test_the_second_night_scores_what_the_first_one_put_before_people(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    night = open_night(ws, second.run_id)
    file = night.run.read(LiveFile)
    assert file.span == Interval(*NIGHTS[:2])
    rows = ws.lake.read("recommendations", where=pl.col(c.PUBLICATION_ID) == first.publication_id)
    shown = {user: set(part[c.ITEM_ID]) for (user,), part in rows.group_by(c.USER_ID)}
    raw = ws.vault.lookup([f"u{n}" for n in range(320)])
    events = list(purchases().select("user_id", "item_id", "timestamp").iter_rows())
    since, until = (format_instant(one) for one in NIGHTS[:2])
    had = {row[:2] for row in events if row[2] < since}
    asked = [row for row in events if since <= row[2] < until and row[:2] not in had]
    hits = [item in shown.get(raw.get(user), shown[c.ANYONE]) for user, item, _ in asked]
    all_users = next(row for row in file.rows if row.slice == "all")
    assert (all_users.model_version, all_users.events) == ("1", len(asked))
    assert all_users.hit_rate == pytest.approx(sum(hits) / len(hits))
    assert all_users.hit_rate > 0.05
    assert all_users.base_only_ndcg == all_users.ndcg > 0
    repeated = sum(since <= row[2] < until for row in events) - len(asked)
    assert (file.unlisted, file.repeated) == (0, repeated)
    summary = live_summary(night)[0]
    assert (summary.slice, summary.ndcg) == ("all", all_users.ndcg)
    logged = mlflow_metrics(ws, night.run.read(MlflowFile).run)
    assert logged["live.ndcg_at_20"] == pytest.approx(all_users.ndcg)
    # Asked again, after the second publication went live, it says the same.
    again = score(night, read_split(night.run), silent)
    assert tuple(map(PrequentialFigures.of, again.rows)) == file.rows


def test_the_first_night_has_nothing_to_score_and_a_replay_is_no_history(copy, shop):
    assert copy.run(shop[1].run_id).find(LiveFile) is None
    before = live_history(copy)
    assert [entry.run_id for entry in before.entries] == [shop[2].run_id]
    assert before.text().splitlines()[2].startswith(f"{NIGHTS[1]:%Y-%m-%d}  1  ")
    replayed = nightly(copy, NIGHTS[1], recipes=["als"])
    assert replayed.status == "replay"
    assert copy.run(replayed.run_id).read(LiveFile).events == before.entries[0].events
    assert live_history(copy) == before


def test_a_refresh_says_how_much_it_changed_for_people_who_did_nothing_and_why(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    assert ws.run(first.run_id).find(ChurnFile) is None
    run = ws.run(second.run_id)
    churn = run.read(ChurnFile)
    assert churn.publication_id == first.publication_id
    busy = purchases().filter(
        pl.col("timestamp").is_between(
            *(pl.lit(format_instant(one)) for one in NIGHTS[:2]), closed="left"
        )
    )
    people = set(ws.vault.lookup([f"u{n}" for n in range(320)]).values())
    people -= set(ws.vault.lookup(busy["user_id"].unique().to_list()).values())
    assert churn.users == len(people) > 0
    live, after = (
        ws.lake.read("recommendations", where=pl.col(c.PUBLICATION_ID) == one.publication_id)
        for one in (first, second)
    )
    was, now = (
        set(
            frame.filter(pl.col(c.USER_ID).is_in(people), pl.col(c.POSITION) <= 10)
            .select(c.USER_ID, c.ITEM_ID)
            .rows()
        )
        for frame in (live, after)
    )
    assert churn.at[10].overlap == pytest.approx(len(was & now) / len(was))
    lost = churn.at[10].lost
    assert set(lost) == {"stock", "data"}
    assert sum(lost.values()) == pytest.approx(1 - churn.at[10].overlap)
    assert churn.seed_noise.reason is None and 0 <= churn.seed_noise.rate < 1
    logged = mlflow_metrics(ws, run.read(MlflowFile).run)
    for name in ("overlap_at_10", "stock", "data", "seed_noise"):
        assert f"churn.{name}" in logged
    assert logged["churn.overlap_at_10"] == churn.at[10].overlap


def test_what_sold_out_since_is_the_cause_that_a_replay_tells(copy):
    shown = lists(copy, None)[c.ITEM_ID].value_counts(sort=True)[c.ITEM_ID].to_list()[:9]
    path = copy.home / "landing" / "items" / "sold-out.csv"
    gone = {"item_id": shown, "title": shown, "available": ["false"] * 9}
    pl.DataFrame(gone).write_csv(path)
    os.utime(path, (NIGHTS[1].timestamp(), NIGHTS[1].timestamp()))
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    assert not feedback(copy, NIGHTS[2]).failed
    ended = nightly(copy, NIGHTS[2])
    assert ended.decision == "refresh"
    assert copy.run(ended.run_id).read(ChurnFile).at[10].lost["stock"] > 0.01
    # What the lists of the second night's refit, and those folded in until then, were worth since.
    since = copy.run(ended.run_id).read(FollowedParityFile)
    published = [entry.run_id for entry in history(copy) if entry.type == "publication"]
    assert (since.run_id, since.k) == (published[1], 20)
    rows = [since.folded, since.retrained]
    assert [row.users for row in rows] == [rows[0].users] * 2
    assert all(row.users > 100 and 0.02 < row.ndcg < 1 for row in rows)
    assert rows[0].ndcg != rows[1].ndcg
    named = parity_metrics(copy.run(ended.run_id))
    assert named["foldin.ndcg_at_20"] == rows[0].ndcg
    assert named["foldin.retrained.ndcg_at_20"] == rows[1].ndcg
    parity = page_of(copy.run(ended.run_id)).parity
    assert [(as_of, followed) for as_of, _, followed in parity] == [
        (NIGHTS[1], since),
        (NIGHTS[2], None),
    ]


def test_a_promotion_says_how_near_fold_in_had_come_to_it(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    assert ws.run(first.run_id).find(ParityFile) is None  # nothing was live before
    run = ws.run(second.run_id)
    parity = run.read(ParityFile)
    assert parity.users > 200 and parity.reason is None
    assert 0.4 < parity.overlap < 0.999
    lists = {name: run.frame("cold_check", name) for name in ("folded", "retrained")}
    assert [frame[c.USER_ID].n_unique() for frame in lists.values()] == [parity.users] * 2
    logged = mlflow_metrics(ws, run.read(MlflowFile).run)
    assert logged["foldin.overlap_at_10"] == parity.overlap
    files = page_files(run)
    assert page_of(run).parity == ((NIGHTS[1], parity, None),)
    assert "What folding in between nights is worth" in files["page.html"].read_text()


def test_dice_that_were_not_thrown_are_said_in_words(shop, monkeypatch):
    ws = Workspace.open(shop[0])
    night = open_night(ws, shop[2].run_id)
    stored = night.run.read(ChurnFile)
    with monkeypatch.context() as patched:
        patched.setattr(churned, "_SEED", 0)  # what a recipe without randomness does
        noise = SeedNoise(rate=0.0, reason="no dice")
        assert measure(night, silent) == stored.model_copy(update={"seed_noise": noise})
    monkeypatch.setattr(churned, "QUICK_SECONDS", 0.0)
    noise = measure(night, silent).seed_noise
    assert noise.rate is None and noise.reason.startswith("not measured: the refit took 0 s")
    assert "churn.seed_noise" in churn_metrics(night.run)
