"""The command line: sentences, exit codes, and one JSON object on stdout.

A whole night runs in processes of its own; the many small commands call the function of the console
script in this process, because loading the libraries takes longer than the command.
"""

import io
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import typer

from pipeline.base import format_instant
from pipeline.cli import main
from pipeline.cli.app import GROUPS, app
from pipeline.errors import printable
from pipeline.evaluation.slices import slug
from pipeline.models import gpu_driver
from pipeline.workspace.workspace import Workspace
from tests.groups import own_group
from tests.unit.report.test_page import Page
from tests.worlds import CONFIG, NIGHTS, land, purchases


def words(arguments, home):
    return [*map(str, arguments), *(["--home", str(home)] if home is not None else [])]


def cleaned(environment):
    return {k: v for k, v in os.environ.items() if not k.startswith("NIGHTJAR")} | environment


def process(*arguments, home=None, folder=None):
    """Run a command as a process, in another current folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words(arguments, home)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=cleaned({"PYTHONPATH": str(Path.cwd())}),
    )


def nightjar(*arguments, home=None, environment=None):
    """Run a command in this process; its changes of the environment are undone."""
    command, out, err = ["nightjar", *words(arguments, home)], io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, cleaned(environment or {}), clear=True),
        patch.object(sys, "argv", command),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return subprocess.CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())


def refused(done, code, *parts):
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nightjar: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in last


EVIL = "<script>alert('x')</script><svg onload=alert(1)></title></style>-->=HYPERLINK(1)"
RAW, ONE_USER = "RAW-USER-", "OneUserHiv+"
ANNA = f"{RAW}u1"


def deliver(home):
    """Land a shop with raw ids that a search finds, script in its texts, and a segment of a user.

    The user who has a segment of their own has events in the holdout, so they are evaluated.
    """
    bought = purchases(users=260, items=80, days=75).with_columns(
        pl.format("{}{}", pl.lit(RAW), "user_id").alias("user_id"),
        pl.col("item_id").replace("i0", EVIL),
    )
    items = pl.DataFrame({"item_id": bought["item_id"].unique(maintain_order=True)})
    items = items.with_columns(title=pl.lit(EVIL), categories=pl.lit(EVIL))
    users = pl.DataFrame({"user_id": bought["user_id"].unique(maintain_order=True).reverse()})
    last = pl.col("user_id") == bought["user_id"][-1]
    users = users.with_columns(segment=pl.when(last).then(pl.lit(ONE_USER)).otherwise(pl.lit(EVIL)))
    for name, frame in (("items", items), ("users", users)):
        path = home / "landing" / name / f"{name}.csv"
        frame.write_csv(path)
        os.utime(path, (0, 0))
    land(home, bought, NIGHTS[0])


def settings_of_libraries(folder):
    """Make a folder with settings that stop numba, and of which matplotlib warns.

    Other settings of numba would name a folder of compiled code, whose index is a pickle.
    """
    folder.mkdir()
    (folder / ".numba_config.yaml").write_text("- no mapping\n")
    (folder / "matplotlibrc").write_text("no.such: 1\n")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small shop after one night, made through the command line alone."""
    home = tmp_path_factory.mktemp("cli") / "a shop"
    assert nightjar("init", home).returncode == 0
    (home / "nightjar.toml").write_text(CONFIG)
    deliver(home)
    done = nightjar("feedback", "--at", format_instant(NIGHTS[0]), "--json", home=home)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["rows"] == sum(
        printed[name] for name in ("accepted", "quarantined", "duplicates", "tombstoned", "skipped")
    )
    done = process(
        "nightly", "--as-of", format_instant(NIGHTS[0]), "--json",
        home=home, folder=settings_of_libraries(home.parent / "current"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decision"] == "first"
    assert "no.such" not in done.stderr
    assert RAW not in done.stdout + done.stderr
    return home


def test_help_needs_no_library():
    code = (
        "import sys\nfrom pipeline import cli\n"
        "heavy = {'polars', 'numpy', 'mlflow', 'airflow', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        # A step in a process of its own does not wait for what only other steps need.
        "from pipeline.steps.nightly import nightly\n"
        "rare = {'great_expectations', 'implicit', 'lightgbm', 'matplotlib', 'mlflow', 'numba'}\n"
        "rare = (rare | {'optuna', 'scipy.stats'}) & set(sys.modules)\n"
        "assert not rare, rare\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert done.returncode == 0
    assert "nightly" in process("--help").stdout


def test_the_help_has_every_command_once_by_groups_and_examples():
    command = typer.main.get_command(app)
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(command.commands)
    done = nightjar("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    places = [lines.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    assert "    nightjar init shop" in lines
    assert "    nightjar lists u1 u2" in nightjar("lists", "--help").stdout.splitlines()


def test_the_version():
    done = nightjar("--version")
    assert (done.returncode, done.stdout) == (0, f"nightjar {version('nightjar')}\n")


@pytest.mark.parametrize(
    ("typed", "place", "expected"),
    [("nightjar com", "1", "compare"), ("nightjar gc --y", "2", "--yes")],
)
def test_the_shell_completes_commands_and_options(typed, place, expected):
    request = {"COMP_WORDS": typed, "COMP_CWORD": place, "_NIGHTJAR_COMPLETE": "complete_bash"}
    done = nightjar(environment=request)
    assert (done.returncode, done.stdout.split()) == (0, [expected])


def test_quiet_and_verbose_set_the_level_of_the_log(tmp_path):
    events = []
    for number, flags in enumerate(((), ("-q",), ("-v",))):
        copy = tmp_path / f"w{number}"
        assert nightjar("init", copy).returncode == 0
        for file in ("a.csv", "b.csv"):
            path = copy / "landing" / "events" / file
            path.write_text("event_id,user_id,item_id,kind,value,timestamp\n")
            os.utime(path, (0, 0))
        done = nightjar("feedback", *flags, home=copy)
        events.append([json.loads(line)["event"] for line in done.stderr.splitlines()])
        assert done.stdout
    plain, quiet, verbose = events
    assert "task_finished" in plain
    assert quiet == []
    assert verbose.count("progress") > plain.count("progress") > 0
    refused(nightjar("history", "-q", "-v", home=copy), 2, "exclude each other")
    refused(nightjar("gate", "-q", "calibrate", home=copy), 2, "after the command calibrate")


def test_init_twice_changes_nothing(tmp_path):
    first = nightjar("init", tmp_path / "w", "--json")
    key = (tmp_path / "w" / "secrets" / "vault.key").read_bytes()
    again = nightjar("init", tmp_path / "w", "--json")
    assert json.loads(first.stdout)["created"] is True
    assert json.loads(again.stdout)["created"] is False
    assert (tmp_path / "w" / "secrets" / "vault.key").read_bytes() == key
    mode = (tmp_path / "w" / "secrets" / "vault.key").stat().st_mode & 0o777
    assert mode == 0o600


def test_a_workspace_of_a_group(tmp_path):
    home, group = tmp_path / "w", own_group()
    assert nightjar("init", home, "--group", group).returncode == 0
    assert stat.S_IMODE((home / "landing" / "events").stat().st_mode) == 0o3770
    shown = nightjar("config", "show", "--json", home=home)
    settings = {x["path"]: x["value"] for x in json.loads(shown.stdout)["settings"]}
    assert settings["workspace.group"] == group
    refused(nightjar("init", home, "--group", "no such group"), 2, "no such group")
    refused(nightjar("init", tmp_path / "v", "--group", "no such group"), 2, "getent")


def test_init_leaves_strangers_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    refused(nightjar("init", tmp_path), 2, "neither empty nor a workspace", "thesis.tex")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_no_workspace(tmp_path):
    for command in (("history",), ("lists", "--all"), ("feedback",), ("config", "show")):
        refused(nightjar(*command, home=tmp_path), 2, "is not a workspace", "nightjar init")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("gate", "calibrate"), ("compare", "1", "2")])
def test_where_to_write_is_looked_at_before_the_work(tmp_path, command):
    nightjar("init", tmp_path / "w")
    for out, why in ((tmp_path / "no" / "x", "no such file"), (tmp_path, "is a directory")):
        refused(
            nightjar(*command, "--out", out, home=tmp_path / "w"), 6, f"cannot write {out}", why
        )
    done = nightjar(*command, "--out", tmp_path / "x", home=tmp_path / "w")
    assert done.returncode == 2  # nothing is live: there is no work to do
    assert not (tmp_path / "x").exists()


def test_a_naive_instant(home):
    refused(nightjar("nightly", "--as-of", "2024-03-11T09:00:00", home=home), 2, "no time zone")


def test_no_instant(home):
    refused(nightjar("nightly", "--as-of", "tomorrow", home=home), 2, "is not an instant")


def test_an_as_of_before_all_data(home):
    done = nightjar("nightly", "--as-of", "2001-01-01T00:00:00Z", home=home)
    refused(done, 3, "no event lies before")


def test_usage_errors_are_one_sentence(home):
    refused(nightjar("nightly", home=home), 2, "--as-of")
    refused(nightjar("lists", home=home), 2, "give either user ids or --all")
    refused(nightjar("gate", "--run", "nope", home=home), 2, "unknown run nope")
    refused(nightjar("gate", "--run", "../../x", home=home), 2, "unknown run ../../x")
    [run, *_] = (path.name for path in (home / "runs").iterdir())
    refused(nightjar("train", "--run", run, "--recipe", "../../x", home=home), 2, "'../../x'")


def test_a_typo_in_the_file(home, tmp_path):
    bad = tmp_path / "bad"
    nightjar("init", bad)
    (bad / "nightjar.toml").write_text("[gate]\nalpa = 1\n")
    refused(nightjar("history", home=bad), 2, "unknown setting gate.alpa. Allowed: alpha")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ('family = "alz"', "unknown family 'alz' in recipes.x. Allowed:"),
        ('family = "als"\nfactor = 3', "unknown setting recipes.x.factor. Allowed:"),
        ('family = "als"\nalpha = 0', "recipes.x.alpha = 0: input should be greater than 0"),
    ],
)
def test_a_recipe_that_cannot_be(tmp_path, recipe, expected):
    nightjar("init", tmp_path / "bad")
    (tmp_path / "bad" / "nightjar.toml").write_text(f"[recipes.x]\n{recipe}\n")
    refused(nightjar("history", home=tmp_path / "bad"), 2, "nightjar.toml: ", expected)


BAD = """
[train]
memory_gb = 0.002

[recipes.on_gpu]
family = "als"
factors = 2
device = "cuda"

[recipes.wide]
family = "als"
factors = 1024

[recipes.absent]
family = "lightfm"
factors = 2
iterations = 1
"""


@pytest.fixture(scope="module")
def prepared(home, tmp_path_factory):
    """A night of which only the training is left, with recipes that cannot be trained."""
    copy = tmp_path_factory.mktemp("bad") / "home"
    shutil.copytree(home, copy)
    (copy / "nightjar.toml").write_text(CONFIG + BAD)
    done = nightjar("snapshot", "--as-of", format_instant(NIGHTS[0]), "--json", home=copy)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run_id"]
    for step in ("validate", "features"):
        assert nightjar(step, "--run", run, home=copy).returncode == 0
    return copy, run


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("on_gpu", ["no NVIDIA GPU was found"]),
        ("wide", ["wide: training needs about ", "the limit is 2.0 MB (train.memory_gb)"]),
        ("absent", ["lightfm is not installed; `make lightfm` builds"]),
    ],
)
def test_a_recipe_that_cannot_be_trained_here(prepared, recipe, expected, monkeypatch):
    if recipe == "on_gpu" and gpu_driver._has_card():
        pytest.skip("there is a GPU")
    monkeypatch.setitem(sys.modules, "lightfm", None)
    copy, run = prepared
    done = nightjar("train", "--run", run, "--recipe", recipe, home=copy)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"train/{recipe} failed: ")
    for part in expected:
        assert part in line
    assert not (copy / "runs" / run / "train" / recipe).exists()


def test_an_already_done_night(home):
    done = nightjar("nightly", "--as-of", format_instant(NIGHTS[0]), "--json", home=home)
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "already_done"


def test_a_night_step_by_step_is_a_night(home):
    """The step commands on a replay: each opens the workspace anew and reads its input there."""
    started = nightjar(
        "snapshot", "--as-of", format_instant(NIGHTS[0]), "--recipe", "als", "--json", home=home
    )
    printed = json.loads(started.stdout)
    run = printed["run_id"]
    for step in ("validate", "features"):
        done = nightjar(step, "--run", run, "--json", home=home)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["step"] == step
    refused(nightjar("evaluate", "--run", "x" + run, home=home), 2, "unknown run x")
    refused(nightjar("gate", "--run", run, home=home), 6, "step evaluate", "is missing")
    for recipe in printed["recipes"]:
        assert nightjar("train", "--run", run, "--recipe", recipe, home=home).returncode == 0
    assert nightjar("evaluate", "--run", run, home=home).returncode == 0
    decided = nightjar("gate", "--run", run, "--json", home=home)
    assert decided.returncode == 0
    assert json.loads(decided.stdout)["kind"] == "first"
    for step in ("refit", "cold-check", "register", "recommend", "publish"):
        done = nightjar(step, "--run", run, home=home)
        assert done.returncode == 0, done.stderr


def test_lists_and_history(home, tmp_path):
    done = nightjar("lists", ANNA, "*", "--json", home=home)
    rows = json.loads(done.stdout)["rows"]
    assert {row["user_id"]: row["slot"] for row in rows} == {ANNA: "model", "*": "fallback"}
    for stranger in ("who", "' OR 1=1 --", "../../x", "\x1b[31mred"):
        done = nightjar("lists", ANNA, stranger, "--json", home=home)
        refused(done, 2, "unknown user", printable(stranger))
    done = nightjar("lists", "--all", "--out", tmp_path / "l.parquet", "--json", home=home)
    assert json.loads(done.stdout)["rows"] > 1000
    assert (tmp_path / "l.parquet").stat().st_size > 0
    entries = json.loads(nightjar("history", "--json", home=home).stdout)["entries"]
    types = [entry["type"] for entry in entries if entry["type"] != "step"]
    assert types[:2] == ["decision", "publication"]
    assert "first: als" in nightjar("history", home=home).stdout


def test_the_history_of_live_quality(home, tmp_path):
    asked = ("history", "--quality")
    assert nightjar(*asked, home=home).stdout.startswith("no nightly run has scored")
    drawn = tmp_path / "live.svg"
    done = nightjar(*asked, "--json", "--out", drawn, home=home)
    assert json.loads(done.stdout) == {"entries": [], "out": str(drawn)}
    assert drawn.read_bytes().startswith(b"<svg")
    refused(nightjar(*asked, "--out", "live.pdf", home=home), 2, "live.pdf")
    refused(nightjar("history", "--out", drawn, home=home), 2, "--quality")
    refused(nightjar(*asked, "--out", tmp_path / "no" / "l.png", home=home), 6, "cannot write")


def test_doctor(home, tmp_path):
    done = nightjar("doctor", "--json", home=home)
    assert done.returncode == 0, done.stdout
    assert all(check["ok"] for check in json.loads(done.stdout)["checks"])
    away = nightjar("doctor", "--json", home=home, environment={"AIRFLOW_HOME": str(tmp_path)})
    assert away.returncode == 2
    failed = [check for check in json.loads(away.stdout)["checks"] if not check["ok"]]
    assert [check["name"] for check in failed] == ["airflow store"]


def test_only_the_owner_can_read_a_workspace(home, tmp_path):
    """After ingest, a nightly run and exports, which the fixture and other tests made."""
    exported = tmp_path / "l.parquet"
    assert nightjar("lists", "--all", "--out", exported, home=home).returncode == 0
    paths = [home, exported, *home.rglob("*")]
    assert {"lake", "mlflow", "runs", "vault.db", "ledger.jsonl"} <= {path.name for path in paths}
    delivered = home / "landing"
    assert "pyfunc_model.py" in {path.name for path in paths}
    wide = [p for p in paths if delivered not in p.parents and p.lstat().st_mode & 0o077]
    assert wide == []


def contents(path):
    """Yield the bytes of a file, and the values of a table or of arrays."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield repr(pl.read_parquet(path).rows()).encode()
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            yield from (repr(array.tolist()).encode() for array in arrays.values())


def test_raw_ids_lie_in_delivered_files_only(home):
    delivered = [home / name for name in ("landing", "archive", "rejected")]
    paths = [p for p in home.rglob("*") if p.is_file() and not set(delivered) & set(p.parents)]
    names = {path.name for path in paths}
    assert {"history.npz", "page.html", "ledger.jsonl", "vault.db", "mlflow.db"} <= names
    assert any(RAW.encode() in path.read_bytes() for path in (home / "archive").iterdir())
    assert [p for p in paths if any(RAW.encode() in part for part in contents(p))] == []


def test_pages_of_a_shop_with_script_in_its_texts_hold_none(home):
    pages = [Page(path.read_text()) for path in home.rglob("*.html")]
    assert len(pages) > 1
    for page in pages:
        assert page.tags.keys() & {"script", "iframe", "object", "link"} == set()
        assert not any(name.startswith("on") for name in page.attributes)
        # Links to other pages load nothing.
        assert all(
            address.startswith(("../", "http://127.0.0.1:5000/#/")) for address in page.loads
        )


def test_a_segment_of_one_user_is_on_no_page_and_in_no_metric(home):
    """Nor is it in MLflow; the tables of users have it."""
    folders = [home / "mlflow", home / "runs"]
    shown = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    shown = [path for path in shown if path.name != "users.parquet"]
    assert {"page.html", "metrics.json", "mlflow.db"} <= {path.name for path in shown}
    name = slug(ONE_USER).encode()
    assert [p for p in shown if any(name in part.lower() for part in contents(p))] == []


def test_a_new_workspace_is_private_whatever_the_umask_is(tmp_path):
    ws = tmp_path / "ws"
    ws.mkdir()
    before = os.umask(0o022)
    try:
        Workspace.init(ws)
    finally:
        os.umask(before)
    assert stat.S_IMODE(ws.stat().st_mode) == 0o700


def test_an_export_is_private_even_if_it_replaces_a_file_that_others_can_read(home, tmp_path):
    commands = {
        "lists.parquet": ("lists", "--all"),
        "live.svg": ("history", "--quality"),
    }
    for name, command in commands.items():
        file = tmp_path / name
        file.write_text("x" * 1_000_000)
        file.chmod(0o644)
        assert nightjar(*command, "--out", file, home=home).returncode == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"xxxx" not in file.read_bytes()


@pytest.mark.parametrize("password", ["PLANTED", "PLANTED/1", "1/PLANTED"])
@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_password_in_the_tracking_uri_is_refused_and_not_shown(tmp_path, source, password):
    ws, uri = tmp_path / "ws", f"http://mluser:{password}@127.0.0.1:15000"
    text, environment = "", {}
    if source == "file":
        text = f'[registry]\ntracking_uri = "{uri}"\n'
    else:
        environment = {"NIGHTJAR__REGISTRY__TRACKING_URI": uri}
    Workspace.init(ws)
    (ws / "nightjar.toml").write_text(text)
    for command in (("config", "show"), ("nightly", "--as-of", "2024-01-01T00:00:00Z")):
        done = nightjar(*command, home=ws, environment=environment)
        refused(done, 2, "tracking_uri", "MLFLOW_TRACKING_PASSWORD")
        assert "PLANTED" not in done.stderr
    assert not any(b"PLANTED" in p.read_bytes() for p in ws.rglob("*.json"))


def test_gc_takes_no_future_instant(home):
    refused(nightjar("gc", "--at", "2999-01-01T00:00:00Z", home=home), 2, "2999")


@pytest.mark.parametrize("key", ["A" * 43 + "=", "PLANTED"])
def test_the_wrong_vault_key_opens_nothing_and_is_not_shown(home, key):
    done = nightjar("lists", ANNA, home=home, environment={"NIGHTJAR_VAULT_KEY": key})
    refused(done, 2, "key")
    assert key not in done.stderr


def test_the_vaults_key_may_lie_in_another_file(home, tmp_path):
    file = tmp_path / "vault.key"
    file.write_bytes((home / "secrets" / "vault.key").read_bytes())
    environment = {"NIGHTJAR_VAULT_KEY_FILE": str(file)}
    file.chmod(0o640)
    refused(nightjar("lists", ANNA, home=home, environment=environment), 2, str(file))
    file.chmod(0o400)
    assert nightjar("lists", ANNA, home=home, environment=environment).returncode == 0
    file.chmod(0o600)
    file.write_text("A" * 43 + "=")
    refused(nightjar("lists", ANNA, home=home, environment=environment), 2, "key")


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="core dumps are forbidden already"
)
def test_it_leaves_no_core_dump():
    code = """
import atexit, resource
from pipeline.cli import main
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE)))
main()
"""
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "(0, 0)"


def test_the_help_imports_neither_data_libraries_nor_the_metadata_of_packages():
    code = """
import atexit, sys
from pipeline.cli import main
atexit.register(lambda: print(sorted({"importlib.metadata", "numpy", "polars"} & {*sys.modules})))
main()
"""
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["ctypes", "json"])
def test_a_folder_of_data_is_no_folder_of_code(tmp_path, module):
    """The user's current folder is writable for others when the console script is called."""
    assert nightjar("init", tmp_path / "ws").returncode == 0
    drop, ran = tmp_path / "ws" / "landing" / "users", tmp_path / "ran"
    (drop / f"{module}.py").write_text(f"open({str(ran)!r}, 'a').write('x')\n")
    (drop / "users.csv").write_text("user_id\nu1\n")

    script = Path(sys.executable).with_name("nightjar")
    done = subprocess.run(
        [script, "ingest", "users.csv", "--table", "users", "--home", "../.."],
        cwd=drop,
        capture_output=True,
        text=True,
        env=cleaned({}),
    )

    assert done.returncode == 0, done.stderr
    assert not ran.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into any folder")
def test_a_workspace_that_cannot_be_written(home):
    home.chmod(0o500)
    try:
        done = nightjar("ingest", home / "nightjar.toml", home=home)
        assert done.returncode == 6
    finally:
        home.chmod(0o700)


def test_a_lock_left_by_a_killed_run_blocks_no_other(home):
    for lock in (home / "lake" / ".locks").glob("*.lock"):
        lock.write_text("999999\n")
    done = nightjar("nightly", "--as-of", format_instant(NIGHTS[0]), home=home)
    assert done.returncode == 0


def test_a_lock_that_is_held_is_named(home):
    import fcntl

    with (home / "lake" / ".locks" / "night.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = nightjar("nightly", "--as-of", format_instant(NIGHTS[0]), home=home)
    refused(done, 6, "the lock night is held")
