"""Pages on a workspace: that of a run after its publication, and that of all nights."""

import re
from datetime import timedelta
from html import unescape

import pytest

from pipeline import columns as c
from pipeline.number_text import change
from pipeline.report.headline import Headline
from pipeline.report.nights import NightRow
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import live_lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.publish import publish
from pipeline.steps.nightly.register import Mirror
from pipeline.steps.reporting import index_page
from pipeline.steps.reporting.index_page import INDEX, draw_index
from pipeline.steps.reporting.page_files import draw_page, page_files
from pipeline.workspace.artifacts import CostFile, SnapshotFile, ValidationFile
from pipeline.workspace.lifts import registered_figures
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import page_of
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, land, purchases


def test_the_page_of_a_published_run_has_live_lists(copy, shop):
    first, second = (copy.run(ended.run_id) for ended in shop[1:])
    page = draw_page(second).read_text()
    assert "New lists are live: the same recipe on two more weeks of data" in page
    assert "First lists are live" in draw_page(first).read_text()
    mlflow = second.read(MlflowFile)
    assert f"http://127.0.0.1:5000/#/runs/{mlflow.run}" in page
    assert "#/models/nightjar/versions/2" in page
    assert 'href="../../reports/index.html"' in page


def test_publish_draws_the_pages_also_when_it_is_repeated(copy, shop):
    run, index = copy.run(shop[2].run_id), copy.home / INDEX
    page = draw_page(run).read_bytes()
    (run.folder / "page.html").unlink()
    index.unlink()
    publish(copy, run.run_id)
    assert (run.folder / "page.html").read_bytes() == page
    assert index.read_text().count("<tr") == 3


def test_the_copy_in_mlflow_holds_nothing_that_is_known_only_after_it(copy, shop):
    run = copy.run(shop[2].run_id)
    page = run.folder / "page.html"
    page.unlink()
    mlflow = page_files(run)["page.html"].decode()
    assert "New lists were accepted for publication" in mlflow and "#/runs/" not in mlflow
    with copy.lake.lock("register"):
        Mirror.of(copy).copy_night(open_night(copy, run.run_id))
    assert not page.exists()


def test_the_page_of_all_nights_lists_runs_and_lists_without_ids(shop):
    ws = Workspace.open(shop[0])
    html = (ws.home / INDEX).read_text()
    runs = [f"../runs/{ended.run_id}/page.html" for ended in reversed(shop[1:])]
    assert re.findall(r'<a href="([^"]+)"', html) == runs
    assert all((ws.home / "reports" / address).is_file() for address in runs)
    assert html.count("<ol>") == 3 and html.count("<svg") == 3
    second = ws.run(shop[2].run_id)
    figures = registered_figures(second)
    for lift in (figures.over_before, figures.over_baseline):
        low, high = (change(end).removesuffix(" %") for end in lift.interval[1:])
        assert f"{change(lift.lift)} ({low} to {high})" in html.replace("\xa0", " ")
    assert [link.against for link in figures.links] == ["1"]
    assert f"compared with version 1: {change(figures.links[0].lift)}" in html.replace("\xa0", " ")
    assert "lift over the version before of each run" not in html.lower()
    users = set(live_lists(ws)[c.USER_ID]) - {c.FALLBACK_USER}
    assert users and not [user for user in users if user in html]


def test_training_has_the_same_seconds_on_every_page(shop):
    ws = Workspace.open(shop[0])
    for ended in shop[1:]:
        run = ws.run(ended.run_id)
        costs = [run.find(CostFile, step) for step in (*run.steps("train"), "refit")]
        total = sum(cost.fit_seconds for cost in costs if cost)
        shown = (cost.fit_seconds for cost in page_of(run).costs.values())
        assert sum(shown) == pytest.approx(total)
        for html in (draw_page(run).read_text(), (ws.home / INDEX).read_text()):
            assert f">{total:,.0f} s<" in html.replace("\xa0", " ")


def test_the_lists_of_the_page_are_live_after_a_fold_in(third):
    html = unescape((third.home / INDEX).read_text())
    titles = dict(third.lake.read("items", columns=[c.ITEM_ID, c.TITLE]).iter_rows())
    rows = live_lists(third).sort(c.USER_ID, c.POSITION)
    live = {
        index_page._named(items[:10], titles)
        for (items,) in rows.group_by(c.USER_ID).agg(c.ITEM_ID).select(c.ITEM_ID).iter_rows()
    }
    shown = [
        tuple(re.findall("<li>(.*?)</li>", part.partition("</ol>")[0]))
        for part in html.split("<ol>")[1:]
    ]
    assert len(shown) == 3 and set(shown) <= live
    assert "new events folded in" in html


def test_a_user_without_lists_any_more_is_not_on_the_page(copy, monkeypatch):
    """As after an erasure: the events are in a window, and the lists are gone."""
    users, read = [], index_page._entries

    def entries(lists, user):
        users.append(user)
        return read(lists, user) if user != users[0] else []

    monkeypatch.setattr(index_page, "_entries", entries)
    html = draw_index(copy).read_text()
    assert html.count("<ol>") == 2 and "most events" not in html


def test_a_run_whose_files_are_gone_stays_on_the_page(copy, shop):
    run = copy.run(shop[1].run_id)
    run.folder.rename(copy.home / "gone")
    html = draw_index(copy).read_text()
    assert "2024-03-11 09:00" in html and run.run_id not in html


def test_a_night_that_a_check_stopped_is_on_the_page(workspace, tmp_path):
    ws = workspace(tmp_path / "late", CONFIG)
    land(ws.home, purchases(), NIGHTS[0] - timedelta(days=1))
    feedback(ws, NIGHTS[0])
    with raises("validate.failed"):
        nightly(ws, NIGHTS[0])
    html = (ws.home / INDEX).read_text()
    assert "✗ Act" in html and "The data of this night are not usable" in html
    assert html.count("<tr") == 2
    [address] = re.findall(r'<a href="([^"]+)"', html)
    page = (ws.home / "reports" / address).read_text()
    assert "✗ Act" in page and "into landing/" in page and 'href="../../reports/index.html"' in page
    [run] = ws.runs.starting_with("")
    rows = len(run.read(ValidationFile).checks)
    assert page.count("<tr") == rows + 2  # the headings of both tables
    assert page.count("✗ failed") == len(run.read(ValidationFile).failed) > 0
    (run.folder / "page.html").unlink()
    assert "<a href" not in draw_index(ws).read_text()


def test_a_refused_night_that_was_repeated_comes_before_its_result(copy, shop, monkeypatch):
    as_of = copy.run(shop[2].run_id).read(SnapshotFile).as_of
    refused = NightRow(as_of, Headline("act", "The data were refused."))
    monkeypatch.setattr(index_page, "_refused", lambda *_: [refused])
    html = draw_index(copy).read_text()
    assert html.index("✓ Good") < html.index("New lists are live") < html.index("✗ Act")


def test_equal_titles_of_a_list_show_the_ids_of_their_items():
    titles = {"1": "MILK", "2": "BREAD", "3": "MILK", "4": None}
    assert index_page._named(["1", "2", "3", "4", "5"], titles) == (
        "MILK (1)", "BREAD", "MILK (3)", "4", "5",
    )  # fmt: skip
