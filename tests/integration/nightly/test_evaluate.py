"""The evaluation of a night: lists that were live, scored on the events that followed."""

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval, format_instant, silent
from pipeline.evaluation.prequential import PrequentialFigures
from pipeline.report.live import live_table
from pipeline.steps.diagnostics.live_quality import live_history, live_summary, score
from pipeline.workspace.artifacts import LiveFile, MlflowFile
from pipeline.workspace.night import open_night
from pipeline.workspace.run_files import read_split
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
    assert logged["live.ndcg_at_20"] == pytest.approx(all_users.ndcg)
    # Computed again, after the second publication went live, it is the same.
    again = score(night, read_split(night.run), silent)
    assert tuple(map(PrequentialFigures.of, again.rows)) == file.rows


def test_the_first_night_has_nothing_to_score(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    assert ws.run(first.run_id).find(LiveFile) is None
    scored = live_history(ws)
    assert [run.run_id for run in scored] == [second.run_id]
    assert live_table(scored).splitlines()[2].startswith(f"{NIGHTS[1]:%Y-%m-%d}  1  ")
