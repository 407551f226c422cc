"""The cold check of a night: churn, fold-in parity, and promotions that it stops."""

import re
import weakref

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import format_instant, silent
from pipeline.models.contract import Recipe
from pipeline.serving import churn as churn_module
from pipeline.serving.churn import LEAST_OVERLAP
from pipeline.steps.diagnostics import churn as churned
from pipeline.steps.diagnostics import foldin_parity
from pipeline.steps.diagnostics.churn import (
    churn_metrics,
    earlier_overlaps,
    fit_overlap,
    measure,
    recipe_overlap,
)
from pipeline.steps.nightly import cold_check as cold_check_module
from pipeline.steps.nightly.cold_check import cold_check, judge_overlap
from pipeline.steps.nightly.refit import refit
from pipeline.steps.reporting.page_files import page_files
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import (
    ChurnFile,
    ColdCheckFile,
    MlflowFile,
    ParityFile,
    SeedNoise,
)
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import labels, mlflow_metrics, page_of
from tests.raising import raises
from tests.worlds import NIGHTS, copy_of, purchases


@pytest.fixture(scope="module")
def third_refit(third_decided, tmp_path_factory):
    """The third night after its refit."""
    home, run_id, decision = third_decided
    assert decision.kind == "refresh"
    copied = copy_of(home, tmp_path_factory.mktemp("refit") / "home")
    refit(Workspace.open(copied), run_id)
    return copied, run_id


@pytest.fixture
def refitted(third_refit, tmp_path):
    return Workspace.open(copy_of(third_refit[0], tmp_path / "home")), third_refit[1]


def test_a_refresh_measures_the_churn_of_idle_users_by_cause(shop):
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
    idle = set(ws.vault.lookup([f"u{n}" for n in range(320)]).values())
    idle -= set(ws.vault.lookup(busy["user_id"].unique().to_list()).values())
    assert churn.users == len(idle) > 0
    live, after = (
        ws.lake.read("recommendations", where=pl.col(c.PUBLICATION_ID) == one.publication_id)
        for one in (first, second)
    )
    was, now = (
        set(
            frame.filter(pl.col(c.USER_ID).is_in(idle), pl.col(c.POSITION) <= 10)
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
        assert f"churn/{name}" in logged
    assert logged["churn/overlap_at_10"] == churn.at[10].overlap


def test_a_promotion_measures_the_parity_of_fold_in(shop):
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
    assert logged["churn/foldin.overlap_at_10"] == parity.overlap
    files = page_files(run)
    assert page_of(run).parity == ((NIGHTS[1], parity, None),)
    assert "Fold-in compared with retraining" in files["page.html"].decode()


def test_seed_noise_that_was_not_measured_has_a_reason(shop, monkeypatch):
    ws = Workspace.open(shop[0])
    night = open_night(ws, shop[2].run_id)
    stored = night.run.read(ChurnFile)
    with monkeypatch.context() as patched:
        patched.setattr(Recipe, "seeded", False)
        noise = SeedNoise(rate=0.0, reason="no seed noise")
        assert measure(night, silent) == stored.model_copy(update={"seed_noise": noise})
    monkeypatch.setattr(churned, "QUICK_SECONDS", 0.0)
    noise = measure(night, silent).seed_noise
    assert noise.rate is None and noise.reason.startswith("not measured: the refit took 0 s")
    assert "churn.seed_noise" in churn_metrics(night.run)


def test_before_lists_are_made_the_page_names_the_night_of_the_churn_it_shows(
    refitted, third_decided
):
    home, run_id, _ = third_decided
    at_the_gate = (Workspace.open(home).run(run_id).folder / "page.html").read_text()
    titles = [text for text in labels(at_the_gate) if "without new events" in text]
    assert len(titles) == 1 and titles[0].startswith(f"{NIGHTS[1].day} ")
    ws, run_id = refitted
    run = ws.run(run_id)
    cold_check(ws, run_id)
    page = (run.folder / "page.html").read_text()
    titles = [text for text in labels(page) if "without new events" in text]
    assert len(titles) == 1 and re.match(r"\d+\.\d % of the entries stayed", titles[0])
    assert [path.parent for path in run.folder.rglob("page.html")] == [run.folder]


def test_a_promotion_that_the_cold_check_stops_is_shown_as_blocked(refitted, monkeypatch):
    ws, run_id = refitted
    monkeypatch.setattr(churn_module, "LEAST_OVERLAP", 1.1)  # more than any list can share
    monkeypatch.setattr(cold_check_module, "MIN_IDLE_USERS", 1)
    for _ in range(2):  # a second attempt ends like the first
        with raises("cold_check.failed"):
            cold_check(ws, run_id)
        page = (ws.run(run_id).folder / "page.html").read_text()
        assert "the cold check stopped it" in page and "✗ Act" in page
        assert "The new lists were not published" in page and "go live" not in page


def test_an_overlap_is_compared_with_those_of_earlier_refreshes(refitted, shop, monkeypatch):
    monkeypatch.setattr(churned, "MIN_IDLE_USERS", 1)
    ws, run_id = refitted
    second = ws.run(shop[2].run_id).read(ColdCheckFile)
    assert earlier_overlaps(open_night(ws, run_id)) == (second.overlap,)
    # The live lists are 14 days old; those that the second night replaced were as old.
    assert earlier_overlaps(open_night(ws, shop[2].run_id)) == ()
    assert second.least is None or second.least == LEAST_OVERLAP


def test_older_live_lists_may_differ_more_and_are_compared_all_the_same(
    refitted, shop, monkeypatch
):
    monkeypatch.setattr(churned, "MIN_IDLE_USERS", 1)
    ws, run_id = refitted
    overlap = ws.run(shop[2].run_id).read(ColdCheckFile).overlap
    night = open_night(ws, run_id)
    live = night.history.published(night.as_of)[-1]
    # As if two runs had been stopped: the live lists are three times as old as usual.
    monkeypatch.setattr(type(night), "as_of", live.as_of + 3 * (night.as_of - live.as_of))
    assert 0 < overlap < 1
    assert earlier_overlaps(night) == (pytest.approx(overlap**3),)

    accepted = type(night.history).published
    # The last run was published twice for one as-of.

    def twice(history, before):
        return (*accepted(history, before), accepted(history, before)[-1])

    monkeypatch.setattr(type(night.history), "published", twice)
    assert earlier_overlaps(night) == (pytest.approx(overlap**3),)


def test_lists_of_one_recipe_that_hardly_resemble_each_other_are_compared(refitted, monkeypatch):
    ws, run_id = refitted
    monkeypatch.setattr(cold_check_module, "MIN_IDLE_USERS", 1)
    monkeypatch.setattr(cold_check_module, "fit_overlap", lambda night: 0.1)
    monkeypatch.setattr(churn_module, "LEAST_OVERLAP", 1.1)
    with raises("cold_check.failed"):
        cold_check(ws, run_id)
    assert ws.run(run_id).read(ColdCheckFile).least == 1.1


def test_lists_are_compared_without_the_last_days(shop, monkeypatch):
    ws = Workspace.open(shop[0])
    night = open_night(ws, shop[2].run_id)
    assert recipe_overlap(night, "als", "als") == 1.0
    assert 0.0 < recipe_overlap(night, "als", "popularity") < 1.0
    assert fit_overlap(night) is None  # all users have new events
    assert fit_overlap(open_night(ws, shop[1].run_id)) is None  # nothing was live
    history = churned.read_history(night.run, "train")
    monkeypatch.setattr(churned, "read_history", lambda *_: history)
    assert 0.0 < fit_overlap(night) < 1.0


@pytest.fixture
def scorers_in_memory(monkeypatch):
    """Return the numbers of scorers in memory, one at each reading of another scorer."""
    alive, refs = [], []
    read = churned.read_scorer

    def noted(run, step):
        alive.append(sum(ref() is not None for ref in refs))
        scorer = read(run, step)
        refs.append(weakref.ref(scorer))
        return scorer

    for module in (churned, foldin_parity):
        monkeypatch.setattr(module, "read_scorer", noted)
    return alive


def test_lists_that_are_compared_need_one_scorer_at_a_time(shop, scorers_in_memory):
    night = open_night(Workspace.open(shop[0]), shop[2].run_id)
    assert recipe_overlap(night, "als", "popularity") > 0
    assert not isinstance(foldin_parity._both(night, night.champion), str)
    assert scorers_in_memory == [0, 0, 0, 0]


USUAL = (0.92, 0.9, 0.88, 0.9)


@pytest.mark.parametrize(
    ("overlap", "earlier", "expected", "least"),
    [
        (0.83, USUAL, 1.0, 0.82),
        (0.81, USUAL, 1.0, 0.82),
        (0.6, (0.9, 0.8, 1.0, 0.9), 1.0, 0.9 - 4 * 1.4826 * 0.05),  # more different weeks
        (0.7, USUAL[:3], 1.0, 0.5),  # too few to compare
        (0.31, USUAL, 0.4, 0.328),  # a switch between recipes that share 0.4
        (0.34, USUAL, 0.4, 0.328),
    ],
)
def test_an_overlap_below_the_usual_one_stops_a_promotion(overlap, earlier, expected, least):
    bound, fault = judge_overlap(overlap, 900, earlier, expected)
    assert bound == pytest.approx(least)
    assert (fault is not None) == (overlap < least)


def test_with_few_users_a_lower_overlap_is_allowed():
    assert judge_overlap(0.5, 25, USUAL, 1.0)[0] == pytest.approx(0.9 - 1 / 5)


def test_few_users_or_unlike_recipes_are_not_compared():
    assert judge_overlap(0.1, 19, USUAL, 1.0) == (None, None)
    assert judge_overlap(None, 400, USUAL, 1.0) == (None, None)
    assert judge_overlap(0.0, 400, USUAL, 0.15) == (None, None)
