import gzip
import io
import json
import os
import resource
from datetime import timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import plain
from pipeline.data.sources.config import Limits
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest.ingest import ingest
from pipeline.steps.ingest.read_file import sum_of
from pipeline.steps.ingest.results import COUNTS
from pipeline.stores.batches import Batch, Batches
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, state, workspace
from tests.raising import raises

ROW = "1,anna,bread,1,2024-03-01 10:00:00"


@pytest.fixture
def here(monkeypatch):
    """Read files in this process: the tests are about the steps around it."""
    monkeypatch.setattr(Child, "call", parsed_here)


@pytest.fixture
def ws(tmp_path, here):
    return workspace(tmp_path / "ws")


def names(ws: Workspace, folder: str) -> list[str]:
    return sorted(p.name for p in (ws.home / folder).rglob("*") if not p.is_dir())


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """One pass, through a real child, over every kind of file."""
    ws = workspace(tmp_path_factory.mktemp("passed") / "ws")
    events = ws.home / "landing" / "events"
    land(ws, "orders-1.csv", orders(ROW, "2,bert,milk,-2,2024-03-02 10:00", "3,,x,1,2024-03-02"))
    land(ws, "orders-2.csv", orders(ROW, "2,bert,milk,-2,2024-03-02 10:00", "3,,x,1,2024-03-02"))
    land(ws, "orders-3.csv.gz", gzip.compress(orders("4,carl,salt,1,2024-03-03", ROW).encode()))
    land(ws, "orders-bad.csv", orders("5,anna,x,two,2024-03-03", "6,anna", "7,anna,x,1,2031-01-01"))
    land(ws, "orders-cut.csv.gz", gzip.compress(orders(*[ROW] * 99).encode())[:-9])
    land(ws, "orders-empty.csv", "")
    land(ws, "orders-header.csv", orders())
    land(ws, "orders-bytes.csv", b"line,customer\n\xff\xfe,1\n")
    land(ws, "orders-parquet.csv", b"PAR1" + b"0" * 99 + b"PAR1")
    land(ws, "orders-strange.csv", "a,b\n1,2\n")
    land(ws, "visits.jsonl", '{"user_id": "dora", "item_id": 7}\n')
    land(ws, "readme.txt", "hello")
    land(ws, ".orders-hidden.csv", "")
    land(ws, "orders-unfinished.csv.part", "")
    land(ws, "orders-late.csv", orders("8,emil,x,1,2024-03-03"))
    os.utime(events / "orders-late.csv", (AT.timestamp() - 1, AT.timestamp() - 1))
    (events / "orders-link.csv").symlink_to(ws.home / "nightjar.toml")
    os.utime(events / "orders-link.csv", (1, 1), follow_symlinks=False)
    os.mkfifo(events / "orders-pipe.csv")
    os.utime(events / "orders-pipe.csv", (1, 1))
    land(ws, "users.csv", "user_id,segment\nanna,a\n", "users")
    land(ws, "items.jsonl", '{"item_id": "bread", "categories": ["a"], "brand": "x"}\n', "items")
    return ws, feedback(ws, AT)


def test_a_pass_ingests_good_files_and_names_bad_ones(passed):
    _, result = passed
    assert result.failed
    outcomes = {
        one.file: (one.status.value, one.accepted, one.duplicates) for one in result.outcomes
    }
    assert outcomes == {
        "orders-1.csv": ("taken", 2, 0),
        "orders-2.csv": ("seen before", 0, 0),
        "orders-3.csv.gz": ("taken", 1, 1),
        "orders-bad.csv": ("taken", 0, 0),
        "orders-cut.csv.gz": ("set aside", 0, 0),
        "orders-empty.csv": ("set aside", 0, 0),
        "orders-header.csv": ("taken", 0, 0),
        "orders-bytes.csv": ("set aside", 0, 0),
        "orders-parquet.csv": ("set aside", 0, 0),
        "orders-strange.csv": ("waits", 0, 0),
        "orders-link.csv": ("not read", 0, 0),
        "orders-pipe.csv": ("not read", 0, 0),
        "visits.jsonl": ("waits", 0, 0),
        "readme.txt": ("set aside", 0, 0),
        "users.csv": ("taken", 1, 0),
        "items.jsonl": ("taken", 1, 0),
    }
    sentences = {one.file: one.sentence for one in result.outcomes}
    assert "cut short" in sentences["orders-cut.csv.gz"]
    assert "is empty" in sentences["orders-empty.csv"]
    assert "is a link" in sentences["orders-link.csv"]
    assert "is a named pipe" in sentences["orders-pipe.csv"]
    assert "not UTF-8" in sentences["orders-bytes.csv"]
    assert "no column 'customer'" in sentences["orders-strange.csv"]
    assert "no source's path matches" in sentences["visits.jsonl"]


def test_every_row_is_accounted_for(passed):
    ws, result = passed
    assert result.rows == 3 + 2 + 3 + 2
    assert result.rows == sum(getattr(result, name) for name in COUNTS[1:])
    assert result.reasons == {
        "timestamp_in_future": 1,
        "value_unparsable": 1,
        "wrong_number_of_fields": 1,
    }
    assert result.skipped == 1
    assert result.lake_version == ws.lake.version("events") == 0  # one commit of all files
    assert result.files == len(result.outcomes) == 16
    for one in result.outcomes:
        assert one.rows == sum(getattr(one, name) for name in COUNTS[1:])
    assert "orders-empty.csv: set aside: is empty; " in result.text()
    assert "3 rows = 2 accepted + 1 skipped; columns ignored: note" in result.text()


def test_the_lake_holds_the_rows(passed):
    ws, _ = passed
    events = ws.lake.read("events").sort(c.EVENT_ID)
    assert events.select(c.EVENT_ID, c.ITEM_ID, c.KIND, c.VALUE, c.SOURCE).rows() == [
        ("1", "bread", "purchase", 1.0, "orders"),
        ("2", "milk", "return", 2.0, "orders"),
        ("4", "salt", "purchase", 1.0, "orders"),
    ]
    assert set(events[c.INGESTED_AT]) == {AT}
    raw = ws.vault.reveal(events[c.USER_ID].to_list())
    assert [raw[user] for user in events[c.USER_ID]] == ["anna", "bert", "carl"]
    users = ws.lake.read("users")
    assert users[c.USER_ID].to_list() == events[c.USER_ID].head(1).to_list()
    assert ws.lake.read("items")["brand"].to_list() == ["x"]
    quarantine = ws.lake.read("quarantine").sort(c.LINE)
    assert quarantine[c.LINE].to_list() == [2, 3, 4]
    batches = ws.lake.read("batches").filter(pl.col(c.STATUS) == c.BatchStatus.DONE)
    assert batches.height == 6
    assert batches[c.ACCEPTED].sum() == 5


def test_files_go_where_they_belong(passed):
    ws, result = passed
    digests = {one.file: one.batch_id for one in result.outcomes}
    assert names(ws, "landing/events") == [
        ".orders-hidden.csv",
        "orders-late.csv",
        "orders-link.csv",
        "orders-pipe.csv",
        "orders-strange.csv",
        "orders-unfinished.csv.part",
        "visits.jsonl",
    ]
    assert names(ws, "archive") == sorted(
        digests[name] + name[name.index(".") :]
        for name in ("orders-1.csv", "orders-3.csv.gz", "orders-bad.csv", "orders-header.csv",
                     "users.csv", "items.jsonl")
    )  # fmt: skip
    bad = ("orders-bytes.csv", "orders-cut.csv.gz", "orders-empty.csv", "orders-parquet.csv",
           "readme.txt")  # fmt: skip
    kept = [f"{digests[name]}{name[name.index('.') :]}" for name in bad]
    reasons = [f"{digests[name]}.reason.txt" for name in bad]
    assert names(ws, "rejected") == sorted(kept + reasons)
    reason = ws.home / "rejected" / f"{digests['orders-empty.csv']}.reason.txt"
    assert reason.read_text().startswith("orders-empty.csv: is empty; ")
    assert not (ws.home / "scratch").exists()


def test_no_raw_id_leaves_the_vault(passed):
    ws, result = passed
    seen = 0
    for folder in ("lake", "runs"):
        for path in (ws.home / folder).rglob("*"):
            if path.is_file():
                seen += 1
                data = path.read_bytes()
                assert not any(name in data for name in (b"anna", b"bert", b"carl", b"emil"))
    assert seen > 10
    assert not any(name in str(plain(result)) for name in ("anna", "bert", "carl"))


def test_the_next_pass_reads_files_that_are_now_complete(passed, tmp_path):
    ws, _ = passed
    later = feedback(ws, AT + timedelta(seconds=2))
    statuses = {one.file: one.status.value for one in later.outcomes}
    assert statuses == {
        "orders-late.csv": "taken",
        "orders-strange.csv": "waits",
        "visits.jsonl": "waits",
    }
    assert [warning.partition(":")[0] for warning in later.warnings] == [
        "orders-link.csv",
        "orders-pipe.csv",
        "orders-strange.csv",
        "visits.jsonl",
    ]


def test_a_naive_time_waits_for_its_zone(ws):
    path = land(ws, "orders.csv", orders(ROW, "2,anna,x,1,2024-03-02"))
    home, config = ws.home, CONFIG.replace('timezone = "UTC"\n', "")
    (home / "nightjar.toml").write_text(config)
    result = feedback(Workspace.open(home), AT)
    assert result.failed
    assert result.outcomes[0].error_id == "ingest.wrong_setting"
    assert path.exists()
    assert ws.lake.version("batches") is None
    (home / "nightjar.toml").write_text(CONFIG)
    result = feedback(Workspace.open(home), AT)
    assert not result.failed
    assert result.accepted == 2


def test_the_same_name_with_other_content_is_another_file(ws):
    land(ws, "orders.csv", orders(ROW))
    assert feedback(ws, AT).accepted == 1
    land(ws, "orders.csv", orders("2,bert,milk,1,2024-03-01"))
    assert feedback(ws, AT).accepted == 1
    assert len(names(ws, "archive")) == 2


def test_a_rejected_name_may_come_again(ws):
    for content in ("", "a\0b"):
        land(ws, "orders.csv", content)
        assert feedback(ws, AT).failed
    assert len(names(ws, "rejected")) == 4


def test_files_elsewhere_stay_where_they_are(ws, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "orders-1.csv").write_text(orders(ROW))
    (folder / "orders-2.csv").write_text("")
    result = ingest(ws, [folder], at=AT)
    assert [one.status.value for one in result.outcomes] == ["taken", "set aside"]
    assert ingest(ws, [folder / "orders-1.csv"], at=AT).outcomes[0].status == ("seen before")
    assert sorted(p.name for p in folder.iterdir()) == ["orders-1.csv", "orders-2.csv"]
    assert not (ws.home / "archive").exists()
    assert not (ws.home / "rejected").exists()


def test_a_named_source_reads_any_file(ws, tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(orders(ROW))
    assert ingest(ws, [path], at=AT).failed
    assert ingest(ws, [path], at=AT, source="orders").accepted == 1
    again = ingest(ws, [path], at=AT, source="orders")
    assert [one.status.value for one in again.outcomes] == ["seen before"]
    with raises("ingest.unknown_source"):
        ingest(ws, [path], at=AT, source="visits")
    with raises("ingest.unknown_table"):
        ingest(ws, [path], at=AT, table="orders")
    with raises("ingest.replace_only_items"):
        ingest(ws, [path], at=AT, replace=True)


def test_paths_that_lead_nowhere(ws, tmp_path):
    with raises("ingest.not_found"):
        ingest(ws, [tmp_path / "gone.csv"], at=AT)
    (tmp_path / "hollow").mkdir()
    with raises("ingest.empty_folder"):
        ingest(ws, [tmp_path / "hollow"], at=AT)
    assert feedback(ws, AT).files == 0


def test_two_ingests_at_once_are_refused(ws):
    with ws.lake.lock("ingest"), raises("lock.held"):
        feedback(ws, AT)


def test_a_lake_without_its_vault_takes_no_new_users(ws):
    land(ws, "orders.csv", orders(ROW))
    feedback(ws, AT)
    (ws.home / "vault.db").unlink()
    with raises("vault.behind"):
        feedback(Workspace.open(ws.home), AT)


def test_of_catalogues_the_latest_wins(ws):
    one, two = "item_id,title\na,A\nb,B\n", "item_id,title\na,AA\n"
    titles = []
    for content in (one, two, one, one):
        land(ws, "items.csv", content, "items")
        last = feedback(ws, AT)
        titles.append(ws.lake.read("items").sort(c.ITEM_ID)[c.TITLE].to_list())
    assert titles == [["A", "B"], ["AA", "B"], ["A", "B"], ["A", "B"]]
    assert last.outcomes[0].status.value == "seen before"
    assert ws.lake.version("items") == 2


def test_a_full_catalogue_withdraws_the_rest(ws, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item_id\na\nb\n")
    ingest(ws, [path], table="items", at=AT)
    path.write_text("item_id\nb\n")
    ingest(ws, [path], table="items", at=AT, replace=True)
    assert dict(ws.lake.read("items").select(c.ITEM_ID, c.AVAILABLE).rows()) == {
        "a": False,
        "b": True,
    }


def test_a_shop_that_is_old_enough_asks_for_its_first_run(tmp_path, here):
    ws = workspace(tmp_path / "ws", CONFIG + "\n[schedule]\nfirst_after_days = 5\n")
    land(ws, "orders-1.csv", orders(ROW))
    first = feedback(ws, AT)
    assert first.action == "fold_in"
    assert "the last 7 days have no event" in first.reason
    land(ws, "orders-2.csv", orders("2,bert,milk,1,2024-03-09"))
    second = feedback(ws, AT)
    assert second.action == plain(second)["action"] == "retrain"


def test_a_file_that_changes_while_it_is_read_waits(ws, monkeypatch):
    path = land(ws, "orders.csv", orders(ROW))

    def changed(self: Child, function: str, **request: object) -> dict[str, object]:
        with path.open("a") as stream:
            stream.write("2,bert,milk,1,2024-03-02,x\n")
        return parsed_here(self, function, **request)

    monkeypatch.setattr(Child, "call", changed)
    result = feedback(ws, AT)
    assert result.outcomes[0].status.value == "waits"
    assert ws.lake.version("events") is None


def test_a_file_that_is_too_big_is_not_opened(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"12345")
    with raises("ingest.file_too_large"):
        sum_of(path, Limits(max_file_bytes=4))
    assert len(sum_of(path, Limits())) == 64


def test_a_child_that_is_killed_sets_the_file_aside(tmp_path):
    ws = workspace(tmp_path / "ws", f"{CONFIG}\n[ingest.limits]\nmax_memory_bytes = {256 << 20}\n")
    big = io.BytesIO()
    row = dict.fromkeys(("line", "customer", "sku", "n", "ordered"), "1")
    pl.DataFrame(row | {"note": "a" * (120 << 20)}).write_parquet(big)
    land(ws, "orders.parquet", big.getvalue())
    small = land(ws, "orders-2.csv", orders(ROW))
    result = feedback(ws, AT)
    outcomes = {one.file: one for one in result.outcomes}
    assert outcomes["orders.parquet"].status.value == "set aside"
    assert "cannot be read within the limits" in outcomes["orders.parquet"].sentence
    assert outcomes["orders-2.csv"].status.value == "taken"
    assert not small.exists()


def test_files_of_one_pass_give_the_sum_of_their_single_passes(tmp_path, here):
    changed = ROW.replace("bread", "cake")
    passes = []
    for rows in (1, 4, 200_000):
        config = f"{CONFIG}\n[ingest]\nrows_per_commit = {rows}\n"
        ws = workspace(tmp_path / str(rows), config)
        land(ws, "orders-0.csv", orders(ROW, "2,bert,milk,1,2024-03-01"))
        feedback(ws, AT)
        land(ws, "orders-1.csv", orders(ROW, changed, "3,anna,salt,1,2024-03-01"))
        land(ws, "orders-2.csv", orders("3,anna,salt,1,2024-03-01", "4,anna,x,two,2024-03-01"))
        land(ws, "orders-3.csv", orders("3,anna,rye,1,2024-03-01", "5,carl,rye,1,2024-03-02", "6"))
        land(ws, "orders-4.csv", orders("3,anna,salt,1,2024-03-01", "4,anna,x,two,2024-03-01"))
        land(ws, "orders-5.csv", "")
        row = {"event_id": "7", "user_id": "anna", "item_id": "x", "kind": "view"}
        row |= {"timestamp": "2024-03-02T10:00:00Z"}
        land(ws, "visits-6.jsonl", json.dumps(row))
        land(ws, "visits-7.jsonl", json.dumps(row | {"event_id": "8", "value": 2}))
        for number, title in enumerate("abacc"):
            land(ws, f"items-{number}.csv", f"item_id,title\nbread,{title}\n,x\n", "items")
        result = feedback(ws, AT)
        passes.append((state(ws), [(one.text(), one.reasons) for one in result.outcomes]))
        assert ws.lake.read("items")[c.TITLE].to_list() == ["c"]
        assert names(ws, "landing") == []
    assert passes[0] == passes[1] == passes[2]
    texts = [text for text, _ in passes[0][1]]
    assert [text.partition("; deliver")[0] for text in texts[5:]] == [
        "orders-1.csv: 3 rows = 1 accepted + 1 quarantined + 1 duplicates; quarantined for "
        "1 event_id_conflict; columns ignored: note",
        "orders-2.csv: 2 rows = 0 accepted + 1 quarantined + 1 duplicates; quarantined for "
        "1 value_unparsable; columns ignored: note",
        "orders-3.csv: 3 rows = 1 accepted + 2 quarantined; quarantined for 1 event_id_conflict, "
        "1 wrong_number_of_fields; columns ignored: note",
        "orders-4.csv: seen before",
        "orders-5.csv: set aside: is empty",
        "visits-6.jsonl: 1 rows = 1 accepted",
        "visits-7.jsonl: 1 rows = 1 accepted",
    ]
    assert [text.split(": ")[1] for text in texts[:5]] == [
        "2 rows = 1 accepted + 1 quarantined; quarantined for 1 item_id_missing",
    ] * 4 + ["seen before"]


def test_a_pass_takes_no_more_files_than_it_may_and_the_oldest_first(tmp_path, here):
    ws = workspace(tmp_path / "ws", f"{CONFIG}\n[ingest]\nfiles_per_pass = 3\n")
    for number in reversed(range(7)):
        row = f"{number},anna,bread,1,2024-03-01"
        path = land(ws, f"orders-{9 - number}.csv", orders(row))
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    # A file that waits for a better config, or was bad, does not block other files for ever.
    for number in range(5):
        land(ws, f"strange-{number}.csv", "a,b\n1,2\n")
    land(ws, "items.csv", "item_id\nbread\n", "items")
    backlogs, taken = [], []
    for _ in range(4):
        result = feedback(ws, AT)
        backlogs.append(result.backlog)
        taken.append([one.file for one in result.outcomes if one.status == "taken"])
    assert backlogs == [4, 1, 0, 0]
    assert taken == [
        ["items.csv", "orders-9.csv", "orders-8.csv", "orders-7.csv"],
        ["orders-6.csv", "orders-5.csv", "orders-4.csv"],
        ["orders-3.csv"],
        [],
    ]
    assert "for the next pass" not in result.text()
    for number in range(5):
        land(ws, f"a-{number}.csv", f"a,b\n{number}\n")
        land(ws, f"orders-{number}.csv", orders(f"{number + 20},x,x,1,2024-03-01"))
    # The five that wait come first here; two of the new ones and the old ones that wait are left.
    assert "\n7 files are left for the next pass\n" in feedback(ws, AT).text()


def test_a_file_of_too_many_bad_rows_is_set_aside_as_a_whole(ws):
    (ws.home / "nightjar.toml").write_text(CONFIG + "\n[ingest.limits]\nmax_bad_rows = 2\n")
    few, many = (ROW, "2,anna,x,two,2024-03-01", "3,anna"), ("4,anna,x,x,2024-03-01",)
    land(ws, "orders-1.csv", orders(*few))
    land(ws, "orders-2.csv", orders(*few, *many))
    result = feedback(Workspace.open(ws.home), AT)
    assert [one.status.value for one in result.outcomes] == ["taken", "set aside"]
    (problem,) = result.problems
    assert problem.startswith("orders-2.csv: set aside: has more than 2 bad rows")
    assert ws.lake.read("quarantine").height == 2


def test_a_limit_of_file_sizes_is_one_sentence(ws, tmp_path):
    """Polars reports a spool whose end it cannot write as a damaged file, without a reason."""
    rows = pl.DataFrame({c.EVENT_ID: [f"{n * 7919 % 10_007}" for n in range(10_000)]})
    batch = Batch("b" * 64, "events", "shop", "f", 1, 1, 0, 0, 0, 0, "", 0, AT)
    rows.write_parquet(tmp_path / "whole", compression="lz4", statistics=False)
    size = (tmp_path / "whole").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 20, hard))
    try:
        with raises("storage.cannot_write"):
            Batches(ws.lake).commit([batch], rows, ws.lake.empty("quarantine"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
