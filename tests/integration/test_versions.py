"""Comparison and reproduction of versions: tables, JSON output, and missing data."""

import io
import json
import os
import shutil
import stat
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.cli import main
from pipeline.errors import StorageError
from pipeline.evaluation.compare import difference, paired
from pipeline.evaluation.evaluate import NDCG, evaluate_stored
from pipeline.models.als import Als
from pipeline.steps.experiments.comparison.compare import compare
from pipeline.steps.experiments.reproduction.causes import CauseKind
from pipeline.steps.experiments.reproduction.reproduce import reproduce
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.maintenance.register_all import register_all
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.disk import sha256
from pipeline.workspace.artifacts import EvaluationFile, SnapshotFile, SplitFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.run_files import read_history, read_scorer, read_split
from pipeline.workspace.versions import find, number_of, runs_by_version
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.tampered import replace_file
from tests.worlds import CONFIG, NIGHTS, catalogue, copy_of, land, purchases

ALS = CONFIG[: CONFIG.index("[recipes.mad]")]
METRIC = "ndcg_at_20"


@pytest.fixture(scope="module")
def shop(tmp_path_factory, two_nights):
    """A workspace with two versions of one recipe, two weeks apart."""
    home, first, second = two_nights
    assert (first.model_version, second.model_version) == ("1", "2")
    return copy_of(home, tmp_path_factory.mktemp("versions") / "home")


@pytest.fixture
def copy(shop, tmp_path):
    return Workspace.open(copy_of(shop, tmp_path / "home"))


@pytest.fixture(scope="module")
def compared(shop):
    return compare(Workspace.open(shop), 1, 2)


def nightjar(*arguments, home, **environment):
    out, err = io.StringIO(), io.StringIO()
    command = ["nightjar", *map(str, arguments), "--home", str(home)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTJAR")} | environment
    with (
        patch.dict(os.environ, clean, clear=True),
        patch.object(sys, "argv", command),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())


def tamper(run, array):
    """Change one number of the refit's scorer by the smallest possible step."""
    arrays = run.arrays("refit", "scorer")
    arrays[array] = arrays[array].copy()
    arrays[array].flat[0] = np.nextafter(arrays[array].flat[0], np.float32(9))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(run, "refit", "scorer.npz", buffer.getvalue())


def forget(run, **facts):
    """Change the provenance that a run recorded."""
    snapshot = run.read(SnapshotFile).model_copy(update=facts)
    replace_file(run, "snapshot", "snapshot.json", snapshot.to_bytes())


def files(home):
    """Every file of a workspace but those that a reader may make."""
    return {
        path.relative_to(home): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm"))
    }


# --- which versions there are --------------------------------------------------------------------


def test_versions_are_listed_without_mlflow(copy):
    shutil.rmtree(copy.home / "mlflow")
    assert list(runs_by_version(copy, LedgerHistory.of(copy.ledger))) == [1, 2]
    assert find(copy, 2).name == "als"
    assert find(copy, 2).publication.generation == 3  # between them lies a patch


def test_an_unknown_version_is_answered_with_those_there_are(copy):
    done = nightjar("compare", 1, 7, home=copy.home)
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last == "nightjar: unknown version 7; the newest registered are 1, 2"
    assert nightjar("reproduce", 7, home=copy.home).returncode == 2
    with raises("compare.same_version"):
        compare(copy, 2, 2)


def test_a_version_has_a_number_or_an_alias_of_the_ledger(copy, tmp_path):
    assert [number_of(copy, text) for text in ("champion", "previous", "7")] == [2, 1, 7]
    with raises("version.not_a_version"):
        number_of(copy, "../../x")
    with raises("version.not_published"):
        number_of(Workspace.init(tmp_path / "new"), "champion")
    done = nightjar("compare", "champion", 2, home=copy.home)
    assert done.returncode == 2 and "version 2 is compared with itself" in done.stderr


def test_a_version_whose_run_is_gone_is_reported(copy):
    run = find(copy, 1).night.run
    shutil.rmtree(run.folder)
    with pytest.raises(StorageError, match=f"version 1 was made by run {run.run_id}, whose files"):
        compare(copy, 1, 2)
    done = nightjar("reproduce", 1, home=copy.home)
    assert done.returncode == 6 and done.stdout == ""


def test_a_version_that_no_user_saw_is_a_version(workspace, tmp_path):
    ws = workspace(tmp_path / "quiet", ALS)
    assert runs_by_version(ws, LedgerHistory.of(ws.ledger)) == {}
    with raises("version.unknown"):
        find(ws, 1)


# --- side by side --------------------------------------------------------------------------------


def test_both_are_judged_on_the_newer_holdout(shop, compared):
    ws = Workspace.open(shop)
    one, two = find(ws, 1).night.run, find(ws, 2).night.run
    pair = evaluate_stored(
        read_scorer(one, "train/als"),
        read_history(one, "train"),
        read_scorer(two, "train/als"),
        read_history(two, "train"),
        read_split(two),
        k=20,
    )
    expected = difference(*paired(pair.tonight, pair.stored, NDCG))
    (comparison,) = compared.page.paired_comparisons
    row = next(row for row in comparison.rows if row.name == METRIC)
    assert (row.left, row.right, row.users) == (expected.champion, expected.candidate, expected.n)
    assert row.lift == pytest.approx(expected.x)
    assert row.hi - row.lift == pytest.approx(1.96 * expected.se)
    assert "Same recipe" in comparison.about
    assert {r.name for r in comparison.rows} >= {"recall_at_20", f"slice.cold.{METRIC}"}


def test_figures_of_other_days_are_shown_and_not_subtracted(shop, compared):
    page = compared.page
    assert "must not be subtracted" in page.weeks
    ws = Workspace.open(shop)
    for number, side in ((1, "left"), (2, "right")):
        evaluated = find(ws, number).night.run.read(EvaluationFile).recipes["als"]
        shown = {row.name: getattr(row, side) for row in page.metrics}
        assert shown[METRIC].mean == evaluated.metrics[METRIC]
        assert (shown[METRIC].lo, shown[METRIC].hi) == (
            evaluated.metrics[f"{METRIC}_lo"],
            evaluated.metrics[f"{METRIC}_hi"],
        )
        assert shown[f"slice.hot.{METRIC}"].users == evaluated.metrics["slice.hot.users"]


def test_the_other_way_round_the_lift_is_the_other_way_round(copy, compared):
    page = compare(copy, 2, 1).page
    mine, reverse = (
        next(row for row in p.paired_comparisons[0].rows if row.name == METRIC)
        for p in (page, compared.page)
    )
    assert (mine.left, mine.right) == (reverse.right, reverse.left)
    assert mine.lift == pytest.approx(reverse.left / reverse.right - 1)


def test_lists_are_the_published_ones_and_no_user_is_named(shop, compared):
    ws, samples = Workspace.open(shop), compared.page.samples
    assert [sample.person for sample in samples] == ["User A", "User B", "User C"]
    whole = [find(ws, number).publication.publication_id for number in (1, 2)]
    lists = ws.lake.read("recommendations").filter(pl.col(c.PUBLICATION_ID).is_in(whole))
    seen = set()
    for user in lists[c.USER_ID].unique():
        mine = lists.filter((pl.col(c.USER_ID) == user) & (pl.col(c.POSITION) <= 10))
        both = mine.sort(c.PUBLICATION_ID, c.POSITION).partition_by(c.PUBLICATION_ID)
        seen.add(tuple(tuple(f"Item {i[1:]}" for i in one[c.ITEM_ID]) for one in both))
    for sample in samples:
        lists_of = tuple(tuple(e.title for e in side) for side in (sample.left, sample.right))
        assert lists_of in seen
        assert [e.shared for e in sample.left] == [e.title in lists_of[1] for e in sample.left]
    shared = [sum(entry.shared for entry in sample.left) for sample in samples]
    assert shared == sorted(shared) and shared[0] < shared[-1]
    text = compared.path.read_text() + json.dumps(compared.plain())
    users = set(lists[c.USER_ID]) - {c.FALLBACK_USER}
    raw = ws.vault.reveal(sorted(users)).values()
    assert len(users) == 320 and not any(user in text for user in users)
    assert not any(f"{user}<" in text or f'"{user}"' in text for user in raw)


def test_the_page_is_whole_and_holds_the_figures(compared):
    text = compared.path.read_text().replace("\xa0", " ")
    assert compared.path.name == "compare-1-2.html"
    assert compared.fault is None and compared.exit_code == 0
    for part in (compared.page.sentence, compared.page.weeks, "<svg", "Hyperparameters", "alpha"):
        assert part in text
    assert "http://" not in text and "<script" not in text
    as_json = compared.plain()
    assert {row["name"] for row in as_json["rows"]} >= {METRIC, "coverage_at_20"}
    assert [v["number"] for v in as_json["versions"]] == [1, 2]
    json.dumps(as_json, allow_nan=False)


def test_the_page_lies_at_both_versions_once_however_often(copy):
    from mlflow import MlflowClient

    client = MlflowClient(copy.tracking_uri, copy.tracking_uri)
    mine = copy.home / "mine.html"
    mine.write_text("")
    mine.chmod(0o644)
    for _ in range(2):
        comparison = compare(copy, 1, 2, out=mine)
        assert comparison.fault is None
        assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    for number in (1, 2):
        run_id = client.get_model_version("nightjar", str(number)).run_id
        path = "comparisons/compare-1-2.html"
        assert [f.path for f in client.list_artifacts(run_id, "comparisons")].count(path) == 1
        fetched = Path(client.download_artifacts(run_id, path))
        assert fetched.read_bytes() == mine.read_bytes()


def test_mlflow_shows_the_sentence_and_lines_recipes_up(shop):
    from mlflow import MlflowClient

    ws = Workspace.open(shop)
    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    experiment = client.get_experiment_by_name(ws.config.registry.experiment).experiment_id
    runs = client.search_runs([experiment])
    # What the live version alone has, and the lift that the best baseline lacks.
    names, own = set(), ("cost/refit_", "attribution/", "1 ", "2 ", "3 ", "7 ")
    for number in (1, 2):
        version, made = client.get_model_version("nightjar", str(number)), find(ws, number)
        night = [r for r in runs if r.data.tags["nightjar.run_id"] == made.night.run.run_id]
        child = client.get_run(version.run_id)
        (parent,) = [r for r in night if r.info.run_id == child.data.tags["mlflow.parentRunId"]]
        whole, note = (r.data.tags["mlflow.note.content"] for r in (parent, child))
        assert note == made.decision.sentence
        assert version.description.endswith(f"\n\n{note}")
        # These nights were started by hand.
        policy = "started without a request of the retrain policy; its decision: "
        policy += read_policy(made.night.run).reason
        assert whole.startswith(f"{note}\n\n{policy}")
        assert (child.data.params["recipe"], child.data.params["alpha"]) == ("als", "4.0")
        for run in night:
            if run is not parent:
                names.add(frozenset(m for m in run.data.metrics if not m.startswith(own)))
    assert len(names) == 1 and {f"4 {METRIC}", f"slice/all.{METRIC}"} <= next(iter(names))


def test_without_mlflow_the_page_is_written_all_the_same(copy):
    away = {"NIGHTJAR__REGISTRY__TRACKING_URI": "http://127.0.0.1:9"}
    done = nightjar("compare", 1, 2, "--json", home=copy.home, **away)
    assert done.returncode == 6
    printed = json.loads(done.stdout)
    assert "127.0.0.1:9" in printed["fault"] and printed["rows"]
    assert (copy.home / "reports" / "compare-1-2.html").is_file()
    assert done.stderr.splitlines()[-1].startswith(
        "nightjar: the page is written, but not attached"
    )


def test_a_version_that_mlflow_has_lost_is_reported(copy):
    from mlflow import MlflowClient

    client = MlflowClient(copy.tracking_uri, copy.tracking_uri)
    client.delete_model_version("nightjar", "2")
    comparison = compare(copy, 1, 2)
    assert comparison.exit_code == 6 and find(copy, 2).night.run_id in comparison.fault
    assert comparison.path.is_file()
    register_all(copy)
    assert compare(copy, 1, 2).fault is None
    # MLflow gave the number 2 up.
    owner = client.get_model_version("nightjar", "3").run_id
    assert "comparisons/compare-1-2.html" in [
        file.path for file in client.list_artifacts(owner, "comparisons")
    ]


def test_versions_that_cannot_be_paired_have_a_reason(copy):
    """A newer holdout that overlaps the training data of the older version."""
    run = find(copy, 2).night.run
    split = run.read(SplitFile)
    holdout = Interval(datetime(2024, 1, 15, 9, tzinfo=UTC), split.holdout.end)
    earlier = split.model_copy(update={"holdout": holdout})
    replace_file(run, "features", "split.json", earlier.to_bytes())
    page = compare(copy, 1, 2).page
    (comparison,) = page.paired_comparisons
    assert comparison.rows == () and comparison.about.startswith("No paired comparison: ")
    assert page.sentence.startswith("No users and ground truth are common")


# --- made again ----------------------------------------------------------------------------------


def test_a_version_comes_out_the_same_and_nothing_changes(copy):
    before = files(copy.home)
    reproduction = reproduce(copy, 1)
    assert (reproduction.outcome, reproduction.exit_code, reproduction.causes) == ("same", 0, ())
    assert {row.file for row in reproduction.rows} >= {"scorer.npz", "history.npz", "fallback.npz"}
    committed = find(copy, 1).night.run.folder / "refit" / "scorer.npz"
    scorer = next(row for row in reproduction.rows if row.file == "scorer.npz")
    assert scorer.rebuilt == sha256(committed)
    assert files(copy.home) == before
    assert reproduction.text().startswith("same bytes: version 1 (als, as-of 2024-03-11T09:00:00Z)")


def test_a_number_that_was_altered_is_located_by_its_array(copy):
    tamper(find(copy, 2).night.run, "item_factors")
    reproduction = reproduce(copy, 2)
    assert (reproduction.outcome, reproduction.exit_code, reproduction.causes) == ("differs", 1, ())
    bad = [row for row in reproduction.rows if not row.same]
    assert [(row.file, row.arrays) for row in bad] == [("scorer.npz", ("item_factors",))]
    assert "no known cause" in reproduction.text()


def test_another_library_and_other_code_are_named(copy):
    run = find(copy, 2).night.run
    tamper(run, "item_factors")
    libraries = run.read(SnapshotFile).libraries
    forget(run, libraries={**libraries, "implicit": "0.6.1"}, commit="f" * 40)
    done = nightjar("reproduce", 2, "--json", home=copy.home)
    printed = json.loads(done.stdout)
    assert done.returncode == 3
    assert [cause["kind"] for cause in printed["causes"]] == ["library", "code"]
    assert printed["causes"][0]["sentence"].startswith("implicit was 0.6.1 and is now ")
    assert [row["file"] for row in printed["rows"] if not row["same"]] == ["scorer.npz"]


def test_a_version_that_is_the_same_needs_no_same_libraries(copy):
    forget(find(copy, 2).night.run, libraries={}, commit="f" * 40)
    assert reproduce(copy, 2).outcome == "same"


def test_a_family_that_declares_its_randomness_explains_it(copy, monkeypatch):
    """ALS draws other random numbers (another replicate) and declares itself not deterministic."""
    train = Als.train
    loose = replace(Als().capabilities, deterministic=False)
    monkeypatch.setattr(Als, "capabilities", loose)
    monkeypatch.setattr(
        Als, "train", lambda self, history, **rest: train(self, history, replicate=1)
    )
    reproduction = reproduce(copy, 2)
    assert (reproduction.outcome, reproduction.exit_code) == ("differs", 3)
    assert [cause.kind for cause in reproduction.causes] == [CauseKind.THREADS]
    scorer = next(row for row in reproduction.rows if row.file == "scorer.npz")
    assert scorer.arrays == ("item_factors", "user_factors")


def test_data_that_were_swept_away_are_named(copy):
    """A newer catalogue takes the place of the pinned one, whose files are then removed."""
    pinned = find(copy, 1).night.snapshot.versions["items"]
    newest = copy.lake.replace("items", copy.lake.read("items").with_columns(price=pl.lit(1.0)))
    old = copy.lake.files("items", pinned) - copy.lake.files("items")
    assert newest > pinned and old
    for name in old:
        (copy.home / "lake" / "items" / name).unlink()
    done = nightjar("reproduce", 1, "--json", home=copy.home)
    printed = json.loads(done.stdout)
    assert (done.returncode, printed["outcome"], printed["rows"]) == (6, "gone", [])
    assert [cause["kind"] for cause in printed["causes"]] == ["snapshot"]
    sentence = printed["causes"][0]["sentence"]
    assert sentence.startswith("the pinned data are gone: lake table items: ")


def test_rows_that_are_gone_are_counted(copy):
    """As after an erasure: a user's rows are no longer in the files of the pinned version."""
    person, gone = None, 0
    sums = copy.home / "lake" / "_sums" / "events.jsonl"
    for path in sorted((copy.home / "lake" / "events").rglob("*.parquet")):
        rows = pl.read_parquet(path, hive_partitioning=False)
        person = person or rows[c.USER_ID][0]
        left = rows.filter(pl.col(c.USER_ID) != person)
        earlier = rows.filter((pl.col(c.USER_ID) == person) & (pl.col(c.TIMESTAMP) < NIGHTS[0]))
        if earlier.height:
            gone += earlier.height
            before = sha256(path)
            left.write_parquet(path)
            sums.write_text(sums.read_text().replace(before, sha256(path)))
    assert gone > 5
    reproduction = reproduce(copy, 1)
    assert (reproduction.outcome, reproduction.exit_code) == ("differs", 3)
    assert reproduction.causes[0].kind == CauseKind.ROWS
    assert f": {gone} are gone, as after the erasure of a user" in reproduction.causes[0].sentence
    scorer = next(row for row in reproduction.rows if row.file == "scorer.npz")
    assert set(scorer.arrays) >= {"item_factors", "user_ids"}


# --- other paired comparisons --------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, workspace):
    """Two recipes on the same days, both never shown; then the better one, two weeks later."""
    home = tmp_path_factory.mktemp("recipes") / "home"
    narrow = ALS.replace("[recipes.als]", "[recipes.narrow]").replace("factors = 8", "factors = 2")
    wide = narrow + ALS[ALS.index("[recipes.als]") :]
    ws = workspace(home, narrow)
    catalogue(home)
    land(home, purchases(), NIGHTS[0])
    feedback(ws, NIGHTS[0])
    nightly(ws, NIGHTS[0], publish=False)
    (home / "nightjar.toml").write_text(wide)
    ws = Workspace.open(home)
    nightly(ws, NIGHTS[0], publish=False)
    land(home, purchases(), NIGHTS[1], NIGHTS[0])
    feedback(ws, NIGHTS[1])
    nightly(ws, NIGHTS[1])
    assert [find(ws, number).name for number in (1, 2, 3)] == ["narrow", "als", "als"]
    return ws


@pytest.mark.slow
def test_two_nights_of_the_same_days_are_compared_person_by_person(recipes):
    page = compare(recipes, 1, 2).page
    (comparison,) = page.paired_comparisons
    assert page.weeks.startswith("Both were evaluated on the same holdout")
    runs = [find(recipes, number).night.run for number in (1, 2)]
    users = [
        run.frame("evaluate", f"users-{name}")
        for run, name in zip(runs, ("narrow", "als"), strict=True)
    ]
    row = next(row for row in comparison.rows if row.name == METRIC)
    means = [frame[NDCG].mean() for frame in users]
    assert (row.left, row.right) == (pytest.approx(means[0]), pytest.approx(means[1]))
    assert row.lift > 0.05 and row.lo > 0
    assert page.sentence.count(": better)") == 1
    differing = {pair.name: (pair.left, pair.right) for pair in page.settings if pair.differs}
    assert differing == {"recipe": ("narrow", "als"), "factors": ("2", "8")}
    assert {pair.name for pair in page.night_settings} == set()


@pytest.mark.slow
def test_a_recipe_that_the_newer_night_trained_too_is_compared_on_its_data(recipes):
    page = compare(recipes, 1, 3).page
    holdout, alike = page.paired_comparisons
    assert "Recipe and data differ" in holdout.about
    run = find(recipes, 3).night.run
    row = next(row for row in alike.rows if row.name == METRIC)
    assert row.left == pytest.approx(run.frame("evaluate", "users-narrow")[NDCG].mean())
    assert row.right == pytest.approx(run.frame("evaluate", "users-als")[NDCG].mean())
    assert page.sentence.count(": better)") == 2


@pytest.mark.slow
def test_lists_of_a_version_that_was_never_shown_are_those_of_its_refit(recipes):
    page = compare(recipes, 2, 3).page
    assert (page.left.live, page.right.live[:5]) == ("not published", "from ")
    assert len(page.samples) == 3
    titles = [entry.title for sample in page.samples for entry in sample.left]
    assert len(titles) == 30 and not {f"Item {n}" for n in range(9, 160, 10)} & set(titles)
    assert reproduce(recipes, 2).outcome == "same"
