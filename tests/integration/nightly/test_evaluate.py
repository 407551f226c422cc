"""The evaluation of a night: lists that were live, scored on the events that followed."""

import json
from dataclasses import replace

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval, format_instant, silent
from pipeline.evaluation.holdout import UNANSWERED
from pipeline.evaluation.prequential import PrequentialFigures
from pipeline.report.live import live_table
from pipeline.steps.diagnostics.live_quality import live_history, live_summary, score
from pipeline.steps.nightly.night_record import night_record
from pipeline.workspace.artifacts import EvaluationFile, LiveFile
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import DecisionFile, MlflowFile
from pipeline.workspace.run_files import read_split, trained
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import mlflow_metrics
from tests.worlds import NIGHTS, purchases


def test_the_second_night_scores_the_lists_of_the_first(shop):
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
    hits = [item in shown.get(raw.get(user), shown[c.FALLBACK_USER]) for user, item, _ in asked]
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
    assert logged["attribution/live.ndcg_at_20"] == pytest.approx(all_users.ndcg)
    # Computed again, after the second publication went live, it is the same.
    again = score(night, read_split(night.run), silent)
    assert tuple(map(PrequentialFigures.of, again.rows)) == file.rows


def test_the_second_night_compares_recipes_without_answers_to_the_lists_of_the_first(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    night = open_night(ws, second.run_id)
    rows = ws.lake.read("recommendations", where=pl.col(c.PUBLICATION_ID) == first.publication_id)
    shown = {user: set(part[c.ITEM_ID]) for (user,), part in rows.group_by(c.USER_ID)}
    split = read_split(night.run)
    assert NIGHTS[0] <= split.holdout.start  # so the lists of the first night were live throughout
    pairs = set(split.truth.select(c.USER_ID, c.ITEM_ID).iter_rows())
    answered = {
        (user, item) for user, item in pairs if item in shown.get(user, shown[c.FALLBACK_USER])
    }
    answers = night.run.read(EvaluationFile).answers
    assert (answers.targets, answers.answered) == (len(pairs), len(answered))
    assert 0 < len(answered) < len(pairs)
    users = night.run.frame("evaluate", f"users-{night.champion_name}")
    alone = {user for user, _ in pairs} - {user for user, _ in pairs - answered}
    assert set(users.filter(pl.col(UNANSWERED).is_null())[c.USER_ID]) == alone
    decision = night.run.read(DecisionFile).root
    lifts = {row.recipe: row for row in decision.without_answers}
    assert set(lifts) == set(trained(night))
    count = users.height - len(alone)
    # With fewer than 200 users there is no comparison.
    assert {(row.users, row.users_without) for row in lifts.values()} == {(users.height, count)}
    assert count < 200 and {row.lift_without for row in lifts.values()} == {None}
    page = (night.run.folder / "page.html").read_text()
    assert "<h2>Lifts without events that answer a shown list</h2>" in page
    share = mlflow_metrics(ws, night.run.read(MlflowFile).run)["attribution/answers.share"]
    assert share == pytest.approx(len(answered) / len(pairs))


def bounds_of(record):
    return json.loads(record.artifacts["bounds.json"])


def test_lifts_without_answers_are_metrics_of_each_recipe_in_mlflow(shop, monkeypatch):
    night = open_night(Workspace.open(shop[0]), shop[2].run_id)
    decision = night.run.read(DecisionFile).root
    lifts = tuple(
        replace(row, lift_without=0.2, lo_without=0.1, hi_without=0.3)
        for row in decision.without_answers
    )
    changed = replace(decision, without_answers=lifts)
    monkeypatch.setattr("pipeline.steps.nightly.night_record.decision_of", lambda _: changed)
    record = night_record(night, version=None, taken=frozenset())
    name, own = "attribution/lift_without_answers", "attribution/refresh.lift_without_answers"
    assert len(record.children) == len(lifts) > 1
    for child in record.children:
        lift, span = child.metrics.get(name), bounds_of(child).get(name)
        is_champion = child.recipe == night.champion_name
        assert (lift, span) == ((None, None) if is_champion else (0.2, [0.1, 0.3]))
    assert (record.metrics[own], bounds_of(record)[own]) == (0.2, [0.1, 0.3])


def test_the_first_night_has_nothing_to_score(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    assert ws.run(first.run_id).find(LiveFile) is None
    assert ws.run(first.run_id).read(EvaluationFile).answers is None
    scored = live_history(ws)
    assert [run.run_id for run in scored] == [second.run_id]
    assert live_table(scored).splitlines()[2].startswith(f"{NIGHTS[1]:%Y-%m-%d}  1  ")
