"""Pages on a workspace: that of a run after its publication, and that of all nights."""

import re
from datetime import timedelta

from pipeline import columns as c
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import live_lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.publish import publish
from pipeline.steps.reporting.index_page import INDEX, draw_index
from pipeline.workspace.artifacts import MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, land, purchases


def test_the_page_of_a_published_run_says_that_its_lists_are_live(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    page = (ws.run(second.run_id).folder / "page.html").read_text()
    assert "New lists are live: the same recipe on two more weeks of data" in page
    assert "First lists are live" in (ws.run(first.run_id).folder / "page.html").read_text()
    mlflow = ws.run(second.run_id).read(MlflowFile)
    assert f"http://127.0.0.1:5000/#/runs/{mlflow.run}" in page
    assert "#/models/nightjar/versions/2" in page
    assert 'href="../../reports/index.html"' in page


def test_a_repeated_publish_draws_a_lost_page_again(copy, shop):
    run, index = copy.run(shop[2].run_id), copy.home / INDEX
    page = (run.folder / "page.html").read_bytes()
    before = index.read_bytes()
    (run.folder / "page.html").unlink()
    index.unlink()
    publish(copy, run.run_id)
    assert (run.folder / "page.html").read_bytes() == page
    assert index.read_text().count("<tr") == before.decode().count("<tr") == 3


def test_the_page_of_all_nights_lists_runs_and_lists_without_ids(shop):
    ws = Workspace.open(shop[0])
    html = (ws.home / INDEX).read_text()
    runs = [f"../runs/{ended.run_id}/page.html" for ended in reversed(shop[1:])]
    assert re.findall(r'href="([^"]+)"', html) == runs
    assert all((ws.home / "reports" / address).is_file() for address in runs)
    assert html.count("<ol>") == 3 and html.count("<svg") == 2
    users = live_lists(ws)[c.USER_ID].unique().to_list()
    assert not [user for user in users if user in html]


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
