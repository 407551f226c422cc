"""Fold-in: events reach the lists of their users between two nights, and no other list."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import plain
from pipeline.failpoints import VARIABLE
from pipeline.serving.foldin import Seen
from pipeline.serving.publish import chain
from pipeline.steps.feedback import foldin as module
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.patch import make_patch
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace import task_log
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import PatchEntry
from pipeline.workspace.release_artifacts import ChurnFile, ParityFile, PatchFile
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, START, catalogue, land, purchases

SMALL = {"users": 150, "items": 80, "days": 90}
FIRST, SECOND, _ = NIGHTS
LATER = FIRST + timedelta(hours=5)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, workspace):
    """A workspace after its first night, whose lists go live by the clock."""
    home = tmp_path_factory.mktemp("foldin") / "home"
    toml = CONFIG.replace('task = "discovery"', 'task = "discovery"\nmin_users = 60')
    toml = toml.replace('[publish]\nlive_from = "as_of"', "[gate]\nmin_users = 60")
    toml += "[features]\nmax_events_per_user_day = 30\n"
    ws = workspace(home, toml)
    catalogue(home, items=80)
    land(home, purchases(**SMALL), FIRST)
    feedback(ws, FIRST)
    assert nightly(ws, FIRST).decision == "first"
    return home


@pytest.fixture
def ws(shop, tmp_path):
    shutil.copytree(shop, tmp_path / "home")
    return Workspace.open(tmp_path / "home")


@pytest.fixture(scope="module")
def second_landed(shop, tmp_path_factory):
    """The events of the second night are in the lake, and in no list yet."""
    home = shutil.copytree(shop, tmp_path_factory.mktemp("second") / "home")
    land(home, purchases(**SMALL), SECOND, FIRST)
    ingest_landed(Workspace.open(home), now())
    return home


@pytest.fixture
def second(second_landed, tmp_path):
    return Workspace.open(shutil.copytree(second_landed, tmp_path / "second"))


def did(ws, *rows, name="more", ago=60.0):
    """Land events (user, item, instant) in a file that was written so many seconds ago."""
    path = ws.home / "landing" / "events" / f"{name}.csv"
    lines = [
        f"{name}-{n},{user},{item},1,{at:%Y-%m-%dT%H:%M:%SZ}"
        for n, (user, item, at) in enumerate(rows)
    ]
    path.write_text("\n".join(["event_id,user_id,item_id,value,timestamp", *lines, ""]))
    written = datetime.now(UTC).timestamp() - ago
    os.utime(path, (written, written))


def sold_out(ws, items, name="sold-out"):
    """Land a catalogue file by which these items are unavailable."""
    path = ws.home / "landing" / "items" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["item_id,available", *(f"{item},false" for item in items), ""]))
    written = datetime.now(UTC).timestamp() - 60
    os.utime(path, (written, written))


def shown(ws, *users):
    """Return each user's items, best first."""
    rows = lists(ws, list(users) or None).sort(c.USER_ID, c.POSITION)
    return {user: part[c.ITEM_ID].to_list() for (user,), part in rows.group_by(c.USER_ID)}


def now():
    return datetime.now(UTC)


def test_a_pass_refreshes_the_lists_of_users_with_new_events_and_no_other(ws):
    before = shown(ws)
    taken = before["u1"][0]
    did(ws, ("u1", taken, LATER), ("u2", before["u2"][3], LATER))
    result = feedback(ws, now())
    assert result.foldin.users_refreshed == 2
    after = shown(ws)
    assert {user for user in before if before[user] != after[user]} == {"u1", "u2"}
    assert taken not in after["u1"]
    assert len(after["u1"]) == len(before["u1"]) == 20
    sold_out = {f"i{n}" for n in range(9, 80, 10)}
    assert not sold_out & set(after["u1"])
    # A row of publications after its base, and a ledger entry without a user.
    base, patch = ws.lake.read("publications").sort(c.GENERATION).iter_rows(named=True)
    assert (patch[c.BASE], patch[c.GENERATION]) == (base[c.PUBLICATION_ID], 2)
    same = (c.MODEL_VERSION, c.RUN_ID, c.RECIPE, c.CATALOGUE_VERSION, c.RULES_HASH)
    assert [patch[name] for name in same] == [base[name] for name in same]
    assert base[c.LIVE_FROM] < patch[c.LIVE_FROM] < now()
    assert (result.foldin.publication_id, result.foldin.generation) == (patch[c.PUBLICATION_ID], 2)
    as_json = plain(result)
    assert (as_json["users_refreshed"], as_json["publication_id"]) == (2, patch[c.PUBLICATION_ID])
    assert 58 < as_json["foldin"]["fresh_after_seconds"] < 120
    assert f"{result.foldin.fresh_after_seconds:,.0f} s after" in result.text()
    entries = LedgerHistory.of(ws.ledger).entries
    [entry] = [entry for entry in entries if isinstance(entry, PatchEntry)]
    assert (entry.base, entry.generation) == (base[c.PUBLICATION_ID], 2)


def test_a_second_pass_finds_nothing_new(ws):
    did(ws, ("u1", "i3", LATER))
    feedback(ws, now())
    versions = {t: ws.lake.version(t) for t in ("publications", "recommendations")}
    lines = history(ws)
    again = feedback(ws, now())
    assert again.foldin.users_refreshed == 0
    assert again.foldin.publication_id is None
    assert again.foldin.sentence == ("no list was refreshed: no user has new events")
    assert versions == {t: ws.lake.version(t) for t in versions}
    assert history(ws) == lines


def test_the_next_patch_has_the_users_since_the_last_with_all_their_events(ws):
    first, second = shown(ws, "u1")["u1"][:2]
    did(ws, ("u1", first, LATER), name="one")
    feedback(ws, now())
    did(ws, ("u1", second, LATER + timedelta(hours=1)), ("u2", "i3", LATER), name="two")
    assert feedback(ws, now()).foldin.users_refreshed == 2
    did(ws, ("u3", "i3", LATER), name="three")
    last = feedback(ws, now())
    assert (last.foldin.users_refreshed, last.foldin.generation) == (1, 4)
    assert not {first, second} & set(shown(ws, "u1")["u1"])


def test_events_after_the_instant_wait_for_a_later_pass(ws):
    did(ws, ("u1", "i3", LATER), ("u2", "i3", LATER + timedelta(hours=2)))
    ingest_landed(ws, now())
    early = foldin(ws, LATER + timedelta(hours=1))
    assert early.users_refreshed == 1
    assert foldin(ws, LATER + timedelta(hours=2)).users_refreshed == 0  # half-open
    assert foldin(ws, LATER + timedelta(hours=3)).users_refreshed == 1
    back = foldin(ws, LATER)
    assert back.users_refreshed == 0
    assert "contain events up to 2024-03-11T17:00:00Z" in back.sentence


def test_late_events_are_new_whatever_their_day(ws):
    taken = shown(ws, "u1")["u1"][0]
    did(ws, ("u1", taken, START + timedelta(days=3)))
    assert feedback(ws, now()).foldin.users_refreshed == 1
    assert taken not in shown(ws, "u1")["u1"]


def test_new_users_get_a_list_unless_the_model_has_none_of_their_items(ws):
    anyone = shown(ws, "*")["*"]
    taste = [("newcomer", f"i{n}", LATER + timedelta(minutes=n)) for n in (1, 5, 13, 17)]
    did(ws, *taste, ("pioneer", "unheard-of", LATER), ("u1", "unheard-of", LATER))
    result = feedback(ws, now())
    # `u1` has a history beside the new item; the other user has nothing else.
    assert result.foldin.users_refreshed == 2
    assert "1 user are for items unknown to the live model" in result.text()
    rows = lists(ws, ["newcomer", "pioneer"])
    slots = dict(rows.select(c.USER_ID, c.SLOT).unique().rows())
    assert slots == {"newcomer": "model", "pioneer": "fallback"}
    mine = shown(ws, "newcomer", "pioneer")
    assert mine["pioneer"] == anyone != mine["newcomer"]
    shelf = [int(item[1:]) % 4 for item in mine["newcomer"][:5]]
    assert shelf.count(1) >= 4
    did(ws, ("pioneer", "unheard-of", LATER), ("pioneer", "novel", LATER), name="alone")
    alone = feedback(ws, now()).foldin
    assert alone.users_refreshed == 0
    assert "1 user are for items unknown to the live model" in alone.sentence


def test_a_user_without_net_purchases_gets_the_fallback(ws):
    did(ws, ("u900", "i3", LATER))
    feedback(ws, now())
    assert set(lists(ws, ["u900"])[c.SLOT]) == {"model"}
    toml = ws.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('"*.csv"', '"more*"'))
    path = ws.home / "landing" / "events" / "back.jsonl"
    at = f"{LATER + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    path.write_text(
        f'{{"event_id": "b", "user_id": "u900", "item_id": "i3", "kind": "return", "timestamp": '
        f'"{at}"}}\n'
    )
    os.utime(path, (START.timestamp(), START.timestamp()))
    assert feedback(Workspace.open(ws.home), now()).foldin.users_refreshed == 1
    assert set(lists(ws, ["u900"])[c.SLOT]) == {"fallback"}


def test_a_flood_of_one_user_counts_up_to_the_daily_limit(ws, tmp_path):
    shutil.copytree(ws.home, tmp_path / "modest")
    modest = Workspace.open(tmp_path / "modest")
    rows = [("u1", f"i{n % 80}", LATER + timedelta(seconds=n)) for n in range(5000)]
    did(ws, *rows)
    did(modest, *rows[:30])
    assert feedback(ws, now()).foldin.users_refreshed == 1
    assert feedback(modest, now()).foldin.users_refreshed == 1
    assert ws.lake.read("events").height == modest.lake.read("events").height + 4970
    assert shown(ws) == shown(modest)


def test_before_the_first_night_nothing_is_folded_in(workspace, tmp_path):
    ws = workspace(tmp_path / "new", CONFIG)
    did(ws, ("u1", "i3", LATER))
    result = feedback(ws, now())
    assert (result.accepted, result.foldin.users_refreshed) == (1, 0)
    assert "nothing is published yet" in result.text()


def test_an_instant_in_the_future_is_refused(ws):
    with raises("instant.future"):
        foldin(ws, now() + timedelta(days=1))
    assert ws.lake.read("publications").height == 1


@pytest.mark.parametrize("command", ["feedback", "ingest"])
def test_a_pass_in_the_future_takes_nothing_in(ws, command):
    from pipeline.cli.app import app

    did(ws, ("u1", "i3", LATER))
    landed, known = sorted((ws.home / "landing" / "events").iterdir()), ws.lake.read("events")
    paths = [str(path) for path in landed] if command == "ingest" else []
    future = [command, *paths, "--at", "2999-01-01T00:00:00Z", "--home", str(ws.home)]
    with raises("instant.future"):
        app(future, standalone_mode=False)
    assert landed and sorted((ws.home / "landing" / "events").iterdir()) == landed
    assert ws.lake.read("events").equals(known)


def test_a_patch_for_a_replaced_base_is_made_again(second, monkeypatch):
    ws = second
    did(ws, ("u1", shown(ws, "u1")["u1"][0], LATER))
    ingest_landed(ws, now())
    made = []

    def overtaken(night, behind, at, **rest):
        patch = make_patch(night, behind, at, **rest)
        made.append(patch)
        if len(made) == 1:
            assert nightly(ws, SECOND).decision == "refresh"
            did(ws, ("u2", "i3", SECOND + timedelta(hours=1)), name="after")
            ingest_landed(ws, now())
        return patch

    monkeypatch.setattr(module, "make_patch", overtaken)
    monkeypatch.setattr(task_log, "PROGRESS_SECONDS", 0.0)
    messages = []
    result = foldin(ws, now(), progress=messages.append)
    assert made[0].users > 140
    assert [patch.users for patch in made[1:]] == [1]
    assert result.users_refreshed == 1
    assert any("but the live publication is" in text for text in messages)
    rows = ws.lake.read("publications").sort(c.GENERATION)
    assert rows[c.BASE].to_list() == [None, None, rows[c.PUBLICATION_ID][1]]


def test_a_base_that_is_replaced_again_and_again_ends_with_a_sentence(ws, monkeypatch):
    did(ws, ("u1", "i3", LATER))
    ingest_landed(ws, now())
    made = []

    def overtaken(night, behind, at, **rest):
        patch = make_patch(night, behind, at, **rest)
        made.append(patch)
        name = f"p-other-{len(made)}"
        with night.run.draft(f"foldin/{name}") as draft:
            draft.write(PatchFile(Seen(1, FIRST)))
        row = patch.row(behind, live_from=now()).with_columns(
            pl.lit(name).alias(c.PUBLICATION_ID), pl.lit(LATER, dtype=c.INSTANT).alias(c.AS_OF)
        )
        ws.lake.append("publications", row)
        return patch

    monkeypatch.setattr(module, "make_patch", overtaken)
    with raises("publish.overtaken"):
        foldin(ws, now())
    assert len(made) == 3


def test_a_night_takes_along_events_that_arrived_while_it_was_at_work(second):
    ws = second
    active = set(ws.lake.read("events", where=pl.col(c.TIMESTAMP) >= FIRST)[c.USER_ID])
    quiet = set(ws.vault.lookup([f"u{n}" for n in range(150)]).values()) - active
    assert len(quiet) >= 3
    late, *others = (ws.vault.reveal([user])[user] for user in (min(quiet), *sorted(active)[:2]))
    did(ws, (late, "i3", START), name="late")
    assert feedback(ws, now()).foldin.users_refreshed > 100
    before = shown(ws)
    # These two have events after the night's as-of: one is in a patch already.
    taken = {user: before[user][0] for user in others}
    did(ws, (others[0], taken[others[0]], SECOND + timedelta(hours=1)), name="one")
    feedback(ws, now())
    did(ws, (others[1], taken[others[1]], SECOND + timedelta(hours=2)), name="two")
    ingest_landed(ws, now())
    version = ws.lake.version("publications")
    ended = nightly(ws, SECOND)
    assert ended.decision == "refresh"
    rows = chain(ws.lake.read("publications"), ended.publication_id)
    assert rows[c.BASE].to_list() == [None, ended.publication_id]
    assert ws.lake.version("publications") == version + 1  # both, or neither
    after = shown(ws)
    assert all(item not in after[user] for user, item in taken.items())
    patched = ws.lake.read(
        "recommendations", where=pl.col(c.PUBLICATION_ID) == rows[c.PUBLICATION_ID][1]
    )
    assert patched[c.USER_ID].n_unique() == 2
    types = [entry.type for entry in history(ws) if entry.type != "step"][-3:]
    assert types == ["decision", "publication", "patch"]
    # A user with a late event alone was folded in, so they do not count as idle.
    assert ws.run(ended.run_id).read(ChurnFile).users == len(quiet) - 1
    assert feedback(ws, now()).foldin.users_refreshed == 0
    assert nightly(ws, SECOND).status == "already_done"


def test_a_champion_that_cannot_fold_in_leaves_lists_as_they_are(workspace, tmp_path):
    toml = CONFIG.split("[recipes.als]")[0].replace("[publish]", "min_users = 60\n\n[publish]")
    toml += "[gate]\nmin_users = 60\n\n"
    ws = workspace(
        tmp_path / "bpr", toml + '[recipes.bpr]\nfamily = "bpr"\nfactors = 8\niterations = 60\n'
    )
    events = purchases(**SMALL)
    land(ws.home, events, FIRST)
    feedback(ws, FIRST)
    ended = nightly(ws, FIRST)
    assert ended.recipe == "bpr"
    did(ws, ("u1", "i3", LATER), ago=(now() - START).total_seconds())
    before = shown(ws)
    result = feedback(ws, LATER + timedelta(hours=1))
    assert result.accepted == 1
    assert result.foldin.sentence == (
        "no list was refreshed: the live model (bpr, version 1) cannot fold in: lists stay until "
        "the next nightly run"
    )
    assert shown(ws) == before


def test_a_list_does_not_wait_while_lightfm_is_live(workspace, tmp_path):
    pytest.importorskip("lightfm")
    toml = CONFIG.split("[recipes.als]")[0].replace("[publish]", "min_users = 60\n\n[publish]")
    recipe = '[recipes.lightfm]\nfamily = "lightfm"\nfactors = 8\niterations = 10\n'
    ws = workspace(tmp_path / "lightfm", toml + "[gate]\nmin_users = 60\n\n" + recipe)
    events = purchases(**SMALL)
    land(ws.home, events, FIRST)
    feedback(ws, FIRST)
    ended = nightly(ws, FIRST)
    assert ended.recipe == "lightfm"
    before = shown(ws)
    did(ws, ("u1", "i3", LATER), ago=(now() - START).total_seconds())
    assert feedback(ws, LATER + timedelta(hours=1)).foldin.users_refreshed == 1
    after = shown(ws)
    assert after.pop("u1") != before.pop("u1")
    assert after == before
    land(ws.home, events, SECOND, FIRST)
    feedback(ws, SECOND)
    ended = nightly(ws, SECOND)
    parity = ws.run(ended.run_id).read(ParityFile)
    assert "not deterministic" in parity.reason
    assert 0.3 < parity.overlap < 0.999


def test_the_command_line_folds_in_and_prints_one_object(ws):
    did(ws, ("u1", "i3", LATER))
    ingest_landed(ws, now())
    command = [sys.executable, "-m", "pipeline.cli", "fold-in", "--home", str(ws.home), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert (printed["users_refreshed"], printed["generation"]) == (1, 2)


def test_a_sold_out_item_leaves_all_live_lists_and_spare_entries_move_up(ws):
    before = {**shown(ws), "*": shown(ws, "*")["*"]}
    gone = before["*"][0]
    sold_out(ws, [gone])
    result = feedback(ws, now())
    assert result.foldin.users_trimmed == sum(gone in row for row in before.values()) > 20
    assert (result.foldin.users_refreshed, result.events) == (0, 0)
    after = {**shown(ws), "*": shown(ws, "*")["*"]}
    for user, row in before.items():
        assert after[user][: len(row) - 1] == [item for item in row if item != gone][: len(row) - 1]
        assert len(after[user]) == 20 and gone not in after[user]
    # Another pass has nothing to do.
    version = ws.lake.version("publications")
    assert feedback(ws, now()).foldin.users_trimmed == 0
    assert ws.lake.version("publications") == version


def test_spare_entries_of_a_folded_in_list_move_up_too_and_its_events_stay_in_it(ws):
    taken = shown(ws, "u1")["u1"][0]
    did(ws, ("u1", taken, LATER))
    feedback(ws, now())
    folded = shown(ws, "u1")["u1"]
    for n, place in enumerate((0, 1)):
        sold_out(ws, [folded[place]], name=f"sold-out-{n}")
        assert feedback(ws, now()).foldin.users_trimmed > 0
    after = shown(ws, "u1")["u1"]
    assert after[:18] == folded[2:]
    assert len(set(after)) == 20 and taken not in after
    # An event after the withdrawal is folded in.
    did(ws, ("u1", after[0], LATER + timedelta(hours=1)), name="next")
    assert feedback(ws, now()).foldin.users_refreshed == 1
    assert after[0] not in shown(ws, "u1")["u1"]


def test_lists_take_an_id_in_the_forms_of_files(ws):
    assert lists(ws, ["\u00a0u1 "]).equals(lists(ws, ["u1"]))


@pytest.mark.parametrize("place", ["patch_staged", "patch_swapped"])
def test_a_pass_that_was_killed_in_a_withdrawal_is_completed_by_the_next(ws, tmp_path, place):
    gone = shown(ws, "*")["*"][0]
    sold_out(ws, [gone])
    did(ws, ("u1", shown(ws, "u1")["u1"][1], LATER))
    undisturbed = Workspace.open(shutil.copytree(ws.home, tmp_path / "undisturbed"))
    at = now()
    feedback(undisturbed, at)

    command = [sys.executable, "-m", "pipeline.cli", "feedback", "--home", str(ws.home)]
    killed = {**os.environ, VARIABLE: f"{place}:kill"}
    done = subprocess.run(
        [*command, "--at", at.isoformat()], env=killed, capture_output=True, text=True, check=False
    )
    assert (done.returncode, f"failpoint {place}: kill" in done.stderr) == (-signal.SIGKILL, True)
    feedback(ws, at)

    assert (shown(ws), shown(ws, "*")) == (shown(undisturbed), shown(undisturbed, "*"))
    ids = [
        w.lake.read("publications").sort(c.GENERATION)[c.PUBLICATION_ID].to_list()
        for w in (ws, undisturbed)
    ]
    assert ids[0] == ids[1] and len(set(ids[0])) == 3
    for w in (ws, undisturbed):
        entries = LedgerHistory.of(w.ledger).entries
        patches = [entry.publication_id for entry in entries if isinstance(entry, PatchEntry)]
        assert sorted(patches) == sorted(set(ids[0]))[1:]


def test_a_withdrawal_does_not_hide_users_without_new_events_from_the_churn(second):
    ws = second
    active = set(ws.lake.read("events", where=pl.col(c.TIMESTAMP) >= FIRST)[c.USER_ID])
    names = ws.vault.lookup([f"u{n}" for n in range(150)])
    quiet = next(user for user, name in names.items() if name not in active)
    sold_out(ws, shown(ws, quiet)[quiet][:1])
    ingest_landed(ws, now())
    assert foldin(ws, FIRST + timedelta(minutes=1)).users_trimmed > 20
    ended = nightly(ws, SECOND)
    churn = ws.run(ended.run_id).read(ChurnFile)
    assert churn.users >= 3
    assert churn.first.lost["stock"] > 0


def test_a_catalogue_without_available_items_changes_no_live_list(ws):
    before = shown(ws)
    sold_out(ws, [f"i{n}" for n in range(80)])
    with raises("lists.too_short") as refused:
        feedback(ws, now())
    assert refused.value.exit_code == 5
    assert shown(ws) == before
    assert ws.lake.read("publications").height == 1


def test_a_champion_that_cannot_fold_in_loses_sold_out_items_too(ws, monkeypatch):
    monkeypatch.setattr(module, "make_patch", lambda *_, **__: "cannot fold in")
    gone = shown(ws, "*")["*"][0]
    sold_out(ws, [gone])
    assert feedback(ws, now()).foldin.users_trimmed > 20
    assert not any(gone in row for row in shown(ws).values())


def test_a_night_publishes_nothing_where_all_items_are_sold_out(second):
    ws = second
    before = shown(ws)
    sold_out(ws, [f"i{n}" for n in range(80)])
    ingest_landed(ws, now())
    toml = ws.home / "nightjar.toml"
    toml.write_text(toml.read_text() + "[validate]\ncatalogue_shrink = 1.0\n")
    ws = Workspace.open(ws.home)
    with raises("lists.too_short") as refused:
        nightly(ws, SECOND)
    assert refused.value.exit_code == 5
    assert shown(ws) == before
